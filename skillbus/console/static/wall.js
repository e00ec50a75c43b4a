// One tile for each pod, on a canvas: its place never moves, its shape says the state, its colour whether that is as it
// should be. Only tiles that changed are drawn anew, neighbours that look alike in one stroke, and never for longer than a
// part of a frame.

import { $, plural, say, show } from "./dom.js";
import { byId, ID, OFF, WORD } from "./fleet.js";
import { WORDS } from "./banner.js";

const LARGEST = 20, SMALLEST = 6, BUDGET_MS = 6;
const COLOURS = { running: "--run", stopped: "--still", holding: "--hold", starting: "--hold", fenced: "--dim", ended: "--dim", lost: "--dim" };

export class Wall {
  constructor(fleet) {
    this.fleet = fleet;
    this.canvas = $("wall");
    this.context = this.canvas.getContext("2d");
    this.tip = $("wall-tip");
    this.ids = [];
    this.places = new Map();
    this.due = new Set();
    this.isDrawing = false;
    this.paths = new Map(WORDS.map((word) => [word, new Path2D(document.querySelector(`#g-${word} path`).getAttribute("d"))]));
    new ResizeObserver(() => this.lay()).observe($("wall-box"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.lay());
    addEventListener("skillbus-theme", () => this.lay());
    this.canvas.addEventListener("mousemove", (event) => this.#point(event));
    this.canvas.addEventListener("mouseleave", () => show(this.tip, false));
    this.canvas.addEventListener("click", (event) => this.#pick(event));
  }

  // Every pod anew: somebody came or went, or the room changed.
  lay() {
    show($("wall-box"), this.fleet.pods.size > 0);
    const width = $("wall-box").clientWidth;
    if (!width) return;
    this.ids = [...this.fleet.pods.values()].sort(byId).map((row) => row[ID]);
    this.places = new Map(this.ids.map((id, place) => [id, place]));
    const room = Math.min(400, innerHeight * 0.45);
    this.pitch = SMALLEST;
    for (let pitch = LARGEST; pitch >= SMALLEST; pitch--) {
      if (Math.ceil(this.ids.length / Math.floor(width / pitch)) * pitch <= room) { this.pitch = pitch; break; }
    }
    this.scale = devicePixelRatio || 1;
    this.size = Math.round(this.pitch * this.scale); // in whole pixels, so that a pattern fits tile by tile
    this.pitch = this.size / this.scale;
    this.across = Math.max(1, Math.floor(width / this.pitch));
    const lines = Math.max(1, Math.ceil(this.ids.length / this.across));
    this.canvas.width = Math.round(width * this.scale);
    this.canvas.height = lines * this.size;
    this.canvas.style.height = `${lines * this.pitch}px`;
    this.#cut();
    this.due = new Set(this.ids.keys());
    this.#begin();
  }

  // These rows have changed.
  change(rows) {
    for (const row of rows) {
      const place = this.places.get(row[ID]);
      if (place !== undefined) this.due.add(place);
    }
    this.#begin();
  }

  // A pattern for each look of a tile.
  #cut() {
    const style = getComputedStyle(document.documentElement);
    const off = style.getPropertyValue("--off").trim();
    const step = (this.size - this.scale) / 12; // of the box of 16, the 12 in the middle
    this.looks = [new Map(), new Map()];
    for (const [word, path] of this.paths) {
      const own = style.getPropertyValue(COLOURS[word] ?? "--off").trim();
      this.looks.forEach((looks, isOff) => {
        const tile = new OffscreenCanvas(this.size, this.size);
        const context = tile.getContext("2d");
        context.setTransform(step, 0, 0, step, -2 * step, -2 * step);
        context.fillStyle = isOff ? off : own;
        context.fill(path);
        looks.set(word, this.context.createPattern(tile, "repeat"));
      });
    }
  }

  #begin() {
    if (this.isDrawing || !this.due.size) return;
    this.isDrawing = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    const until = performance.now() + BUDGET_MS;
    let count = 0;
    for (const place of this.due) {
      this.#stroke(place);
      if (++count % 100 === 0 && performance.now() > until) break;
    }
    if (this.due.size) {
      requestAnimationFrame(() => this.#draw());
      return;
    }
    this.isDrawing = false;
    performance.clearMarks("wall-drawn");
    performance.mark("wall-drawn", { detail: this.ids.length });
  }

  // This tile, and those behind it in its line that are due and look the same.
  #stroke(place) {
    const look = this.#look(place), column = place % this.across;
    const behind = Math.min(this.ids.length, place - column + this.across);
    let end = place;
    do this.due.delete(end++);
    while (end < behind && this.due.has(end) && this.#look(end) === look);
    const box = [column * this.size, Math.floor(place / this.across) * this.size, (end - place) * this.size, this.size];
    this.context.clearRect(...box);
    if (!look) return;
    this.context.fillStyle = look;
    this.context.fillRect(...box);
  }

  #look(place) {
    const row = this.fleet.pods.get(this.ids[place]);
    return row && (this.looks[Number(row[OFF])].get(row[WORD]) ?? this.looks[1].get("lost"));
  }

  describe(counts) {
    const parts = WORDS.filter((word) => counts[word]).map((word) => `${counts[word]} ${word}`);
    const text = `One tile for each of ${plural(this.ids.length, "pod")}: ${parts.join(", ")}. The table below has the same.`;
    if (this.canvas.getAttribute("aria-label") !== text) this.canvas.setAttribute("aria-label", text);
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / this.pitch), line = Math.floor((event.clientY - box.top) / this.pitch);
    return column < this.across ? this.fleet.pods.get(this.ids[line * this.across + column]) : undefined;
  }

  #point(event) {
    const row = this.#at(event);
    show(this.tip, Boolean(row));
    if (!row) return;
    say(this.tip, `${row[ID]} · ${row[WORD]}`);
    const box = this.canvas.getBoundingClientRect();
    const left = Math.min(event.clientX - box.left + 12, box.width - this.tip.offsetWidth);
    this.tip.style.left = `${Math.max(0, left)}px`;
    this.tip.style.top = `${event.clientY - box.top + 16}px`;
  }

  #pick(event) {
    const row = this.#at(event);
    if (!row) return;
    $("q").value = row[ID];
    $("q").dispatchEvent(new Event("input", { bubbles: true }));
  }
}
