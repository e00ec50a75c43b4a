// A certificate that is still growing, and the button to print it.

import { ask } from "./api.js";
import { $, say } from "./dom.js";
import { themes } from "./keys.js";
import { acks } from "./picture.js";

themes();
$("print").hidden = false;
$("print").addEventListener("click", () => print());

const EVERY_MS = 1000;

async function follow() {
  let story;
  try {
    story = await ask(`api/v1/kills/${encodeURIComponent(document.body.dataset.kill)}`);
  } catch {
    setTimeout(follow, 3 * EVERY_MS);
    return;
  }
  if (!story.is_under_way) {
    location.reload(); // whole, with its pods
    return;
  }
  if (story.certificate) {
    say(document.querySelector("#sentence bdi"), story.certificate.sentence);
    const picture = acks(story.certificate);
    if (picture) {
      picture.id = "acks";
      $("acks")?.replaceWith(picture);
    }
  }
  setTimeout(follow, EVERY_MS);
}

if ("underWay" in document.body.dataset) setTimeout(follow, EVERY_MS);
