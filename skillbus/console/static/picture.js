// Pictures as inline SVG, built node by node. console/pictures.py draws the same for the first paint.

import { el, svg, took } from "./dom.js";

const WIDTH = 624, LEFT = 8, LEAST_MS = 10;

export function nice(ms) {
  const power = 10 ** Math.max(0, Math.ceil(Math.log10(ms)) - 1);
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= ms);
}

export function acks(certificate) {
  const times = certificate.ack_ms;
  if (!times.length) return null;
  const top = nice(Math.max(times.at(-1), LEAST_MS));
  const points = ["0,100"];
  times.forEach((ms, number) => {
    const x = ((ms * 100) / top).toFixed(2);
    points.push(`${x},${(100 - (number * 100) / times.length).toFixed(2)}`, `${x},${(100 - ((number + 1) * 100) / times.length).toFixed(2)}`);
  });
  points.push("100,0", "100,100");
  const named = [["p50", certificate.p50_s], ["p99", certificate.p99_s], ["last", certificate.max_s]].filter(([, seconds]) => seconds != null);
  const words = named.map(([name, seconds]) => `${name} ${took(seconds)}`).join(", ");
  const box = svg("svg", { x: LEFT, y: 30, width: WIDTH, height: 130, viewBox: "0 0 100 100", preserveAspectRatio: "none" });
  box.append(svg("polyline", { class: "area", points: points.join(" ") }));
  for (const [, seconds] of named) {
    const at = Math.min(100, (seconds * 100_000) / top);
    box.append(svg("line", { class: "mark", x1: at, x2: at, y1: 0, y2: 100 }));
  }
  box.append(svg("line", { class: "axis", x1: 0, x2: 100, y1: 100, y2: 100 }));
  const ticks = [0, 1, 2, 3, 4].map((step) =>
    svg("text", { class: "tick", x: LEFT + (step * WIDTH) / 4, y: 180, "text-anchor": ["start", "middle", "middle", "middle", "end"][step] }, took((top * step) / 4000)),
  );
  const label = `Pods proved quiet, by the time since the order: ${words}`;
  const caption = named.map(([name, seconds]) => el("span", {}, el("b", {}, name), ` ${took(seconds)}`));
  return el("figure", { class: "picture" }, svg("svg", { viewBox: "0 0 640 190", role: "img", "aria-label": label }, box, ...ticks), el("figcaption", {}, ...caption));
}

const timeOf = (entry, word) => (/^\d{1,9}$/.test(entry.fields[`answered_${word}_ms`] ?? "") ? Number(entry.fields[`answered_${word}_ms`]) : 0);

// entries: of the audit, kind drill-result, the oldest first.
export function drills(entries) {
  if (!entries.length) return null;
  const top = nice(Math.max(LEAST_MS, ...entries.map((entry) => timeOf(entry, "max"))));
  const pitch = WIDTH / Math.max(12, entries.length);
  const nodes = [svg("line", { class: "axis", x1: LEFT, x2: LEFT + WIDTH, y1: 160, y2: 160 })];
  entries.forEach((entry, number) => {
    const isGood = entry.fields.ok === "1";
    const x = LEFT + number * pitch, width = pitch * 0.7;
    const high = Math.max(2, (timeOf(entry, "max") * 100) / top) * 1.3, half = ((timeOf(entry, "p50") * 100) / top) * 1.3;
    nodes.push(svg("rect", { class: isGood ? "bar" : "bar bad", x, width, y: 160 - high, height: high }, svg("title", {}, `${entry.at}: ${entry.fields.sentence ?? ""}`)));
    if (half) nodes.push(svg("rect", { class: "half", x, width, y: 159 - half, height: 2 }));
    if (!isGood) nodes.push(svg("text", { class: "bad", x: x + width / 2, y: 152 - high, "text-anchor": "middle" }, "!"));
  });
  nodes.push(svg("text", { class: "tick", x: LEFT, y: 20 }, took(top / 1000)), svg("text", { class: "tick", x: LEFT, y: 180 }, "older"));
  nodes.push(svg("text", { class: "tick", x: LEFT + WIDTH, y: 180, "text-anchor": "end" }, "latest"));
  const label = `${entries.length} drills, the latest on the right: the height is the time of the last answer, at most ${took(top / 1000)}`;
  const caption = ["bar: last answer", "line: p50", "! : not everybody"].map((text) => el("span", {}, text));
  return el("figure", { class: "picture" }, svg("svg", { viewBox: "0 0 640 190", role: "img", "aria-label": label }, ...nodes), el("figcaption", {}, ...caption));
}
