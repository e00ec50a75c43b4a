// The sentence at the top. console/banner.py says the same of the first paint; a test holds both against each other.

import { instant } from "./dom.js";

export const GONE = new Set(["stopped", "fenced", "ended", "lost"]);
export const WORDS = ["deaf", "running", "stopping", "starting", "holding", "unconfirmed", "fenced", "stopped", "ended", "lost"];

const NEW = "Its pods hold. A new fleet? Run skillbus arm. An old one? Its Redis has lost its data.";

export function bannerOf(status, nowMs) {
  if (status.blind) return unknown(status.blind, nowMs);
  const whole = status.kills.find((kill) => kill.scope === "fleet");
  const parts = status.kills
    .filter((kill) => kill.scope !== "fleet")
    .map((kill) => `${kill.scope.replaceAll(":", " ")} is stopped ${since(kill.record, status.now_ms)}`);
  if (whole) return killed(status, whole.record, parts);
  if (!status.is_armed) return made("unarmed", "NOT ARMED", "", "", [NEW, ...others(status, []), ...parts]);
  const { running = 0, holding = 0 } = status.counts;
  if (!running && holding) return made("holding", "HOLDING", `${holding}`, "", [...others(status, ["holding"]), ...parts]);
  const tone = running || !status.pods_count ? "running" : "holding";
  return made(tone, "RUNNING", `${running}`, "", [...others(status, ["running"]), ...parts]);
}

function made(tone, word, figure, rest, asides) {
  return { tone, word, figure, rest, asides };
}

function killed(status, record, parts) {
  const { stopped = 0 } = status.counts;
  let still = 0;
  for (const [word, count] of Object.entries(status.counts)) if (!GONE.has(word)) still += count;
  const told = since(record, status.now_ms);
  if (still) return made("stopping", "STOPPING", `${stopped}/${stopped + still}`, told, [...others(status, ["stopped"]), ...parts]);
  const first = stopped ? `${stopped} stopped` : "no pod was there to stop";
  return made("stopped", "STOPPED", "", told, [[first, ...others(status, ["stopped"])].join(", "), ...parts]);
}

function unknown(blind, nowMs) {
  const what = blind.why.startsWith("no answer") ? "no answer from Redis" : "the fleet cannot be seen";
  const seen = blind.seen_at_ms ? `figures are as of ${instant(blind.seen_at_ms)}` : "nothing was seen yet";
  const rest = `${what} for ${Math.floor(Math.max(0, nowMs - blind.since_ms) / 1000)} s`;
  return made("unknown", "UNKNOWN", "", rest, [blind.why, seen]);
}

function others(status, but) {
  const waiting = status.headline.includes("they wait for a restart") ? ": reset, they wait for a restart" : "";
  const found = WORDS.filter((word) => !but.includes(word) && status.counts[word]).map(
    (word) => `${status.counts[word]} ${word}${word === "stopped" ? waiting : ""}`,
  );
  return found.length ? [found.join(", ")] : [];
}

function since(record, nowMs) {
  const atMs = Date.parse(record.at) || 0;
  const words = [atMs ? `since ${instant(atMs, nowMs)}` : "", record.by && `by ${record.by}`, record.via && `via ${record.via}`];
  return words.filter(Boolean).join(" ") + (record.reason ? `: "${record.reason}"` : "");
}
