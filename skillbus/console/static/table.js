// Pods as rows of a real table: a page of them, filled in place, so that neither focus nor selection is lost.

import { $, age, el, glyph, mark, say, show } from "./dom.js";
import { BEAT, GROUPS, HEARS, ID, LATE, OFF, OUTCOME, PASS, selected, SKILLS, TWIN, VERSION, WHY, WORD } from "./fleet.js";

const PAGE = 25;
const STRAGGLERS = 8;
const LABELS = ["State", "Pod", "Last contact", "Hears", "Last pass", "Skills", "Version", "Groups", "Why"];

function made() {
  const cells = LABELS.map((label) =>
    label === "Pod" ? el("th", { scope: "row", role: "rowheader", "data-label": label }) : el("td", { role: "cell", "data-label": label }),
  );
  for (const place of [5, 6]) cells[place].className = "mono";
  cells[8].className = "why";
  cells[0].append(el("span", { class: "word" }, glyph("lost"), el("span")));
  cells[1].append(el("bdi"), el("span", { class: "badge warn", hidden: true }, "twin"));
  cells[4].append(el("span"), " ", el("span", { class: "muted" }));
  for (const place of [6, 7, 8]) cells[place].append(el("bdi"));
  return el("tr", { role: "row" }, ...cells);
}

function fill(line, row, nowMs) {
  const [state, pod, contact, hears, pass, skills, version, groups, why] = line.cells;
  const word = state.firstElementChild;
  mark(word, "data-word", row[WORD]);
  word.toggleAttribute("data-off", row[OFF]);
  mark(word.querySelector("use"), "href", `#g-${row[WORD]}`);
  say(word.lastElementChild, row[WORD]);
  say(pod.firstElementChild, row[ID]);
  show(pod.lastElementChild, row[TWIN]);
  say(contact, row[BEAT] ? `${age((nowMs - row[BEAT]) / 1000)} ago` : "–");
  mark(contact, "class", row[LATE] ? "num warn" : "num");
  say(hears, row[HEARS] ? "hears" : "deaf");
  mark(hears, "class", row[HEARS] ? "" : "warn");
  say(pass.firstElementChild, row[OUTCOME] || "–");
  say(pass.lastElementChild, row[OUTCOME] ? `${age((nowMs - row[PASS]) / 1000)} ago` : "");
  mark(pass, "class", row[OUTCOME] && row[OUTCOME] !== "ok" ? "warn" : "");
  say(skills, row[SKILLS] || "–");
  say(version.firstElementChild, row[VERSION] || "–");
  say(groups.firstElementChild, row[GROUPS].join(", ") || "–");
  say(why.firstElementChild, row[WHY]);
}

function fillBody(body, rows, nowMs) {
  while (body.rows.length > rows.length) body.lastElementChild.remove();
  while (body.rows.length < rows.length) body.append(made());
  rows.forEach((row, place) => fill(body.rows[place], row, nowMs));
}

export class Table {
  constructor(fleet) {
    this.fleet = fleet;
    this.offset = 0;
    this.key = "";
    this.isDown = false;
    this.found = [];
    this.stragglers = [];
    this.stragglersCount = 0;
    for (const id of ["stragglers", "pods-table"]) $(id).tBodies[0].replaceChildren(); // the server's rows look the same, and are built otherwise
    for (const head of document.querySelectorAll("#pods-table th[data-key]")) this.#sortable(head);
    $("filter").addEventListener("submit", (event) => event.preventDefault());
    $("filter").addEventListener("input", () => this.#anew());
    const pager = $("pager");
    pager.querySelectorAll("a").forEach((link) => link.remove());
    this.back = el("button", { type: "button", class: "plain small", hidden: true }, "Back");
    this.next = el("button", { type: "button", class: "plain small", hidden: true }, "Next");
    this.back.addEventListener("click", () => this.#turn(-PAGE));
    this.next.addEventListener("click", () => this.#turn(PAGE));
    pager.append(this.back, this.next);
    $("pager-text").setAttribute("aria-live", "off");
  }

  #sortable(head) {
    const button = el("button", { type: "button" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const isSame = this.key === head.dataset.key;
      this.isDown = isSame && !this.isDown;
      this.key = isSame && !this.isDown ? "" : head.dataset.key; // up, down, and back to who is in trouble
      document.querySelectorAll("#pods-table th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      if (this.key) head.setAttribute("aria-sort", this.isDown ? "descending" : "ascending");
      this.#anew();
    });
  }

  #anew() {
    this.offset = 0;
    this.select();
    this.fill();
  }

  #turn(by) {
    this.offset += by;
    this.fill();
    $("pods-table").scrollIntoView({ block: "nearest" });
  }

  // Which pods are shown: to be done again when rows have changed.
  select() {
    this.found = selected(this.fleet.pods, { text: $("q").value, word: $("word").value, key: this.key, isDown: this.isDown });
    this.stragglers = [];
    let count = 0;
    for (const row of this.fleet.pods.values()) if (row[OFF]) count++;
    this.stragglersCount = count;
    if (count) this.stragglers = selected(new Map([...this.fleet.pods].filter(([, row]) => row[OFF]))).slice(0, STRAGGLERS);
  }

  // What is shown of them: ages move on by themselves.
  fill() {
    const nowMs = this.fleet.nowMs;
    const count = this.found.length;
    this.offset = Math.max(0, Math.min(this.offset, Math.floor(Math.max(0, count - 1) / PAGE) * PAGE));
    fillBody($("pods-table").tBodies[0], this.found.slice(this.offset, this.offset + PAGE), nowMs);
    const isFiltered = $("q").value || $("word").value;
    const none = isFiltered ? "No pod matches" : "No pod is known";
    say($("pager-text"), count ? `${this.offset + 1}–${Math.min(count, this.offset + PAGE)} of ${count}` : none);
    show(this.back, this.offset > 0);
    show(this.next, this.offset + PAGE < count);
    show($("stragglers-part"), this.stragglersCount > 0);
    fillBody($("stragglers").tBodies[0], this.stragglers, nowMs);
    say($("stragglers-count"), String(this.stragglersCount));
    const more = this.stragglersCount - this.stragglers.length;
    say($("stragglers-more"), `and ${more} more: see all pods`);
    show($("stragglers-more"), more > 0);
  }
}
