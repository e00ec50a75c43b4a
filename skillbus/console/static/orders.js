// The dialogs: stop, permit a restart; and the buttons that rehearse and sync. The same forms work without this.

import { ask, newKey, order, Refused } from "./api.js";
import { $, el, instant, plural, say, show } from "./dom.js";
import { GONE } from "./banner.js";
import { GROUPS, ID, WORD } from "./fleet.js";

export class Orders {
  // tell: called with what became of an order: (sentence, link or null).
  constructor(fleet, tell) {
    this.fleet = fleet;
    this.tell = tell;
    for (const button of document.querySelectorAll("[data-opens]")) {
      button.addEventListener("click", (event) => {
        event.preventDefault();
        this.open(button.dataset.opens);
      });
    }
    for (const dialog of document.querySelectorAll("dialog")) {
      dialog.querySelector(".cancel")?.addEventListener("click", () => dialog.close());
    }
    const kill = document.querySelector("#kill-dialog form"), reset = document.querySelector("#reset-dialog form");
    kill?.addEventListener("input", () => this.#label(kill));
    kill?.addEventListener("submit", (event) => this.#kill(event, kill));
    reset?.addEventListener("submit", (event) => this.#reset(event, reset));
    reset?.elements.scope.addEventListener("change", () => this.#lifts(reset));
    for (const form of document.querySelectorAll("[data-act]")) form.addEventListener("submit", (event) => this.#act(event, form));
  }

  open(name) {
    const dialog = $(`${name}-dialog`);
    if (!dialog || document.querySelector("dialog[open]")) return;
    const form = dialog.querySelector("form");
    form.dataset.key = newKey();
    show(form.querySelector(".problem"), false);
    if (name === "kill") {
      this.#choices(form);
      this.#label(form);
    }
    if (name === "reset") this.#scopes(form);
    dialog.showModal();
    dialog.querySelector(".cancel").focus();
  }

  // -- stop --------------------------------------------------------------------------------------------------------

  #choices(form) {
    const groups = new Set();
    for (const row of this.fleet.pods.values()) row[GROUPS].forEach((group) => groups.add(group));
    form.querySelector("#groups").replaceChildren(...[...groups].sort().map((group) => el("option", { value: group })));
    const ids = [...this.fleet.pods.keys()].slice(0, 500);
    form.querySelector("#pods").replaceChildren(...ids.map((id) => el("option", { value: id })));
  }

  #label(form) {
    const { scope, group, pod } = form.elements;
    let count = 0;
    for (const row of this.fleet.pods.values()) {
      const isMeant = scope.value === "fleet" || (scope.value === "group" ? row[GROUPS].includes(group.value.trim()) : row[ID] === pod.value.trim());
      if (isMeant && !GONE.has(row[WORD])) count++;
    }
    group.required = scope.value === "group";
    pod.required = scope.value === "pod";
    const none = { fleet: "Stop the fleet", group: "Stop this group", pod: "Stop this pod" }[scope.value];
    const isSeen = this.fleet.status && !this.fleet.status.blind && !this.fleet.isFrozen;
    say(form.querySelector("[data-submit]"), count && isSeen ? `Stop ${plural(count, "pod")}` : none);
  }

  async #kill(event, form) {
    event.preventDefault();
    const { scope, group, pod, reason, incident } = form.elements;
    const body = { reason: reason.value, incident: incident.value };
    if (scope.value === "group") body.group = group.value.trim();
    if (scope.value === "pod") body.pod = pod.value.trim();
    const answer = await this.#give(form, "api/v1/kill", body);
    if (!answer) return;
    form.reset();
    this.tell(answer.sentence, `kills/${encodeURIComponent(answer.id)}`);
  }

  // -- permit a restart ----------------------------------------------------------------------------------------------

  #scopes(form) {
    const kills = this.fleet.status?.kills ?? [];
    const chosen = form.elements.scope.value;
    const scopes = kills.length ? kills.map((kill) => kill.scope) : ["fleet"];
    form.elements.scope.replaceChildren(...scopes.map((scope) => el("option", { value: scope, selected: scope === chosen }, scope.replaceAll(":", " "))));
    this.#lifts(form);
  }

  async #lifts(form) {
    const box = form.querySelector("[data-lifts]");
    const scope = form.elements.scope.value;
    box.replaceChildren(el("p", { class: "muted" }, "Looking which orders stand …"));
    let found;
    try {
      found = await ask(`reset/orders?scope=${encodeURIComponent(scope)}`);
    } catch (error) {
      found = { orders: [], why: error.message };
    }
    if (scope !== form.elements.scope.value) return;
    if (found.why) {
      box.replaceChildren(el("p", { class: "note warn" }, el("bdi", {}, found.why)));
      return;
    }
    const lines = found.orders.map((one) =>
      el("li", {}, el("time", {}, instant(one.at_ms, this.fleet.nowMs)), " ", el("bdi", {}, one.by || "somebody"), " via ", el("bdi", {}, one.via || "?"),
        ...(one.reason ? [": ", el("q", {}, el("bdi", {}, one.reason))] : [])));
    box.replaceChildren(el("p", { class: "label" }, `This lifts ${plural(lines.length, "order")}`), el("ul", {}, ...lines));
  }

  async #reset(event, form) {
    event.preventDefault();
    const { scope, reason, confirm, even_recent: recent } = form.elements;
    const [kind, name] = scope.value.split(":");
    const body = { confirm: confirm.value, reason: reason.value, even_recent: recent.checked };
    if (kind === "group") body.group = name;
    if (kind === "pod") body.pod = name;
    const answer = await this.#give(form, "api/v1/reset", body);
    if (!answer) return;
    form.reset();
    this.tell(answer.sentence, null);
  }

  // -- all of them ---------------------------------------------------------------------------------------------------

  // The answer; null: it was refused, and the dialog says why.
  async #give(form, path, body) {
    const button = form.querySelector("[data-submit]"), problem = form.querySelector(".problem");
    button.disabled = true;
    show(problem, false);
    try {
      const answer = await order(path, body, form.dataset.key);
      form.closest("dialog").close();
      return answer;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const { done = [], not_done: missing = [], unknown = [] } = error.problem;
      const lists = [["Done", done], ["Not done", missing], ["Not known", unknown]].filter(([, names]) => names.length);
      problem.replaceChildren(el("bdi", {}, error.message), ...lists.map(([name, names]) => el("div", {}, `${name}: ${names.join(", ")}.`)));
      show(problem, true);
      if (error.status >= 400 && error.status < 500) form.dataset.key = newKey(); // nothing was done: the next is another order
      return null;
    } finally {
      button.disabled = false;
    }
  }

  async #act(event, form) {
    event.preventDefault();
    const button = form.querySelector("button"), name = form.dataset.act;
    button.disabled = true;
    this.tell(name === "drill" ? "Drill: asking every pod …" : "Sync: every pod makes a pass …", null);
    try {
      const answer = await order(`api/v1/${name}`, {}, newKey());
      this.tell(`${name === "drill" ? "Drill" : "Sync"}: ${answer.sentence}`, null);
    } catch (error) {
      this.tell(error.message, null);
    } finally {
      button.disabled = false;
    }
  }
}
