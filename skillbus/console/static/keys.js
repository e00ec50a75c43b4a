// Single keys, which can be turned off; and light or dark.

import { $ } from "./dom.js";

const kept = {
  get(name) { try { return localStorage.getItem(name); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, value); } catch { /* no storage: until the page is left */ } },
};

export function listen(orders) {
  const box = $("keys-on");
  box.checked = kept.get("skillbus-keys") !== "off";
  box.addEventListener("change", () => kept.set("skillbus-keys", box.checked ? "on" : "off"));
  $("keys-button").hidden = false;
  $("keys-button").addEventListener("click", () => $("keys-dialog").showModal());
  const acts = { k: () => orders.open("kill"), r: () => orders.open("reset"), "/": () => $("q").focus(), t: turnTheme, "?": () => $("keys-dialog").showModal() };
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, textarea, select, dialog[open]");
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping || !box.checked || !Object.hasOwn(acts, event.key)) return;
    event.preventDefault();
    acts[event.key]();
  });
}

const NAMES = { "": "automatic", light: "light", dark: "dark" };

export function themes() {
  const button = $("theme");
  if (!button) return;
  button.hidden = false;
  button.setAttribute("aria-label", `Theme: ${NAMES[document.documentElement.dataset.theme ?? ""]}`);
  button.addEventListener("click", turnTheme);
}

function turnTheme() {
  const root = document.documentElement;
  const next = { "": "light", light: "dark", dark: "" }[root.dataset.theme ?? ""];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
  kept.set("skillbus-theme", next);
  $("theme").setAttribute("aria-label", `Theme: ${NAMES[next]}`);
  dispatchEvent(new Event("skillbus-theme"));
}
