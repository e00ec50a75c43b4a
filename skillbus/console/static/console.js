// The page, kept up to date: events in, at most a few paints a second out.

import { ask, HOME } from "./api.js";
import { $, el, glyph, instant, say, show } from "./dom.js";
import { bannerOf, WORDS } from "./banner.js";
import { Fleet } from "./fleet.js";
import { listen, themes } from "./keys.js";
import { Orders } from "./orders.js";
import { acks, drills } from "./picture.js";
import { Stream } from "./stream.js";
import { Table } from "./table.js";
import { Timeline } from "./timeline.js";
import { Wall } from "./wall.js";

const PAINT_MS = 250;
const SELECT_MS = 500;
const ANNOUNCE_MS = 5000;

const fleet = new Fleet();
const wall = new Wall(fleet);
const table = new Table(fleet);
const timeline = new Timeline(fleet);
const orders = new Orders(fleet, tell);

// The console's own clock, by which it says since when it is blind.
const rendered = performance.timeOrigin + (performance.getEntriesByType("navigation")[0]?.responseStart ?? 0);
const consoleNowMs = () => Date.now() + Number(document.body.dataset.nowMs) - rendered;

// -- events --------------------------------------------------------------------------------------------------------------

let isSelectDue = false, selectedAt = -SELECT_MS, paintTimer = 0, paintedAt = 0;

const takes = {
  snapshot(data) {
    fleet.takeSnapshot(data);
    wall.lay();
    isSelectDue = true;
  },
  status(data) {
    fleet.takeStatus(data);
  },
  pods(data) {
    if (fleet.takePods(data)) wall.lay();
    else wall.change(data.changed);
    isSelectDue = true;
  },
  beats(data) {
    fleet.takeBeats(data);
  },
  audit(entry) {
    timeline.take(entry);
    if (entry.kind === "drill-result") drawDrills();
  },
  kill: takeKill,
};

function take(name, data) {
  takes[name](data);
  if (!paintTimer) paintTimer = setTimeout(paint, Math.max(0, paintedAt + PAINT_MS - performance.now()));
}

function paint() {
  paintTimer = 0;
  paintedAt = performance.now();
  if (!fleet.status || document.hidden) return;
  paintBanner();
  paintStanding();
  if (isPastDue && !fleet.status.blind) readPast();
  if (isSelectDue && paintedAt - selectedAt >= SELECT_MS) {
    isSelectDue = false;
    table.select();
    selectedAt = performance.now();
  } else if (isSelectDue) {
    paintTimer = setTimeout(paint, SELECT_MS - (paintedAt - selectedAt));
  }
  table.fill();
}

setInterval(() => fleet.status && !paintTimer && !fleet.isFrozen && paint(), 1000); // ages move on by themselves
addEventListener("visibilitychange", () => document.hidden || paint());

// -- the sentence --------------------------------------------------------------------------------------------------------

let lostSince = 0, told = { word: "", at: 0, text: "" };

function paintBanner() {
  const banner = bannerOf(fleet.status, consoleNowMs());
  const head = `${banner.word} ${banner.figure}`.trim() + (banner.tone === "unknown" && banner.rest ? ":" : "");
  document.body.dataset.tone = banner.tone;
  $("banner-icon").setAttribute("href", `#i-${banner.tone}`);
  say($("banner-head"), (lostSince ? `As of ${instant(lostSince)}: ` : "") + head);
  say($("banner-rest"), banner.rest);
  const box = $("banner-asides");
  if (box.childElementCount !== banner.asides.length) box.replaceChildren(...banner.asides.map(() => el("p", {}, el("bdi"))));
  banner.asides.forEach((line, place) => say(box.children[place].firstChild, line));
  const name = `${banner.word} ${banner.figure}`.trim();
  document.title = `${lostSince ? "? " : ""}${name} · ${document.body.dataset.fleet} · skillbus`;
  const icon = `${HOME}static/icon-${lostSince ? "lost" : banner.tone}.svg`;
  if ($("favicon").getAttribute("href") !== icon) $("favicon").setAttribute("href", icon);
  announce(banner, name);
}

// For who listens: a new word at once, figures now and then, the passing of time never.
function announce(banner, name) {
  const word = banner.word + Boolean(lostSince);
  const text = lostSince ? "The stream is lost. Figures are frozen." : `${name} ${banner.tone === "unknown" ? "" : banner.rest}`.trim();
  const isNew = word !== told.word;
  if (!isNew && (text === told.text || performance.now() - told.at < ANNOUNCE_MS || banner.tone === "running")) return;
  const isFirst = !told.word;
  told = { word, text, at: performance.now() };
  if (!isFirst) say($("announcer"), text);
}

function paintStanding() {
  const { keeper, counts, pods_count: podsCount, last_good_drill: drill } = fleet.status;
  $("keeper").dataset.state = keeper.hears ? "ok" : "bad";
  say($("keeper").lastElementChild, keeper.hears ? "keeper hears" : "keeper deaf");
  const since = keeper.deaf_since_ms ? ` since ${instant(keeper.deaf_since_ms)}` : "";
  say($("keeper-notice"), keeper.hears ? "" : `This console is deaf${since}: a raw PUBLISH would not be kept by it. ${keeper.why}`.trim());
  show($("keeper-notice"), !keeper.hears);
  say($("pods-count"), String(podsCount));
  show($("wall-empty"), !podsCount);
  paintLegend(counts);
  wall.describe(counts);
  document.querySelector('[data-opens="reset"]')?.toggleAttribute("data-idle", !fleet.status.kills.length);
  if (drill) say($("drill-last"), `Last good drill ${instant(drill.at_ms, fleet.nowMs)} by ${drill.by}: ${drill.sentence}`);
}

function paintLegend(counts) {
  const words = WORDS.filter((word) => counts[word]);
  const legend = $("legend");
  if (legend.dataset.words !== words.join()) {
    legend.dataset.words = words.join();
    legend.replaceChildren(...words.map((word) => el("li", {}, el("span", { class: "word", "data-word": word }, glyph(word), word), " ", el("b"))));
  }
  words.forEach((word, place) => say(legend.children[place].lastElementChild, String(counts[word])));
}

const KINDS = ["kill", "certificate", "reset-asked", "reset", "arm", "sync", "drill", "drill-result", "restored", "refused", "tidied"];

// What the first paint could not read, because Redis was away, is read once it is back.
let isPastDue = "pastDue" in document.body.dataset;

async function readPast() {
  isPastDue = false;
  try {
    const { entries } = await ask(`api/v1/audit?limit=100&${KINDS.map((kind) => `kind=${kind}`).join("&")}`);
    entries.slice(0, 12).reverse().forEach((entry) => timeline.take(entry));
    say($("timeline-none"), "Nothing yet.");
    const last = entries.find((entry) => entry.kind === "certificate");
    const story = last && (await ask(`api/v1/kills/${encodeURIComponent(last.record)}`));
    if (story?.certificate) takeKill(story);
    else say($("proof"), "No certificate is kept.");
    await drawDrills();
  } catch { /* it may be asked for again by a reload */ }
}

// -- kills, drills -------------------------------------------------------------------------------------------------------

function takeKill({ id, is_under_way: isUnderWay, certificate }) {
  $("kill-part").dataset.kill = id;
  $("proof").replaceChildren(...(isUnderWay ? [el("b", {}, "under way"), " "] : []), el("bdi", {}, certificate.sentence));
  $("proof-link").setAttribute("href", `${HOME}kills/${encodeURIComponent(id)}`);
  show($("proof-link"), true);
  const picture = acks(certificate);
  $("acks-box").replaceChildren(...(picture ? [picture] : []));
}

async function drawDrills() {
  try {
    const { entries } = await ask("api/v1/audit?kind=drill-result&limit=24");
    const picture = drills(entries.reverse());
    $("drills-box").replaceChildren(...(picture ? [picture] : []));
  } catch { /* the picture stays as it was; that nothing can be seen, the sentence says */ }
}

function tell(sentence, link) {
  const box = $("told");
  const text = el("p", {}, el("bdi", {}, sentence), ...(link ? [" ", el("a", { href: HOME + link }, "Certificate")] : []));
  const button = el("button", { type: "button", class: "quiet small" }, "Dismiss");
  button.addEventListener("click", () => show(box, false));
  box.replaceChildren(text, button);
  show(box, true);
}

// -- the stream ----------------------------------------------------------------------------------------------------------

function tellStream(since) {
  lostSince = since;
  document.body.dataset.stream = since ? "lost" : "live";
  $("live").dataset.state = since ? "bad" : "ok";
  say($("live").lastElementChild, since ? "not live" : "live");
  say($("lost"), since ? `No connection to the console since ${instant(since)}. What is below is as of then. Trying again …` : "");
  show($("lost"), Boolean(since));
  if (since) {
    fleet.freeze();
    paint();
    askWhy();
  }
}

// A stream cannot say why it was refused.
async function askWhy() {
  try {
    await ask("api/v1/me");
  } catch (error) {
    if (error.status !== 401) return;
    $("lost").replaceChildren("Your session has ended: figures are frozen. ", el("a", { href: `${HOME}login` }, "Log in again"));
  }
}

themes();
listen(orders);
new Stream(`${HOME}api/v1/events`, take, tellStream);
