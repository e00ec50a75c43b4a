// The audit as it grows: the newest first, each entry once, and no more than fit.

import { HOME } from "./api.js";
import { $, el, instant, show } from "./dom.js";

const KEPT = 12;

export class Timeline {
  constructor(fleet) {
    this.fleet = fleet;
    this.known = new Set();
  }

  take(entry) {
    const name = `${entry.source} ${entry.id}`;
    if (this.known.has(name)) return;
    this.known.add(name);
    if (this.known.size > 3000) this.known.delete(this.known.values().next().value);
    const list = $("timeline");
    if ([...list.children].some((line) => line.dataset.name === name)) return;
    const line = made(entry, this.fleet.nowMs);
    line.dataset.name = name;
    line.dataset.atMs = entry.at_ms;
    const older = [...list.children].find((other) => Number(other.dataset.atMs) <= entry.at_ms);
    list.insertBefore(line, older ?? null);
    while (list.children.length > KEPT) list.lastElementChild.remove();
    show($("timeline-none"), false);
  }
}

function made(entry, nowMs) {
  const what = el("span", { class: "what" }, el("bdi", {}, entry.what), " ");
  const from = el("span", { class: "muted" });
  if (entry.scope && entry.scope !== "fleet") from.append(el("bdi", {}, entry.scope), " ");
  if (entry.by) from.append("by ", el("bdi", {}, entry.by), " ");
  if (entry.via) from.append("via ", el("bdi", {}, entry.via));
  what.append(from);
  if (entry.record) what.append(" ", el("a", { href: `${HOME}kills/${encodeURIComponent(entry.record)}` }, "certificate"));
  const time = el("time", { datetime: entry.at }, instant(entry.at_ms, nowMs));
  return el("li", { "data-kind": entry.kind }, time, el("span", { class: "kind" }, entry.kind || "?"), what);
}
