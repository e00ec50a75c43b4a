// Nodes and words. Whatever others wrote becomes text nodes, never markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child != null).map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

// A write that changes nothing still costs a layout and wakes screen readers.
export function say(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

export function show(node, isShown) {
  if (node && node.hidden === isShown) node.hidden = !isShown;
}

export function mark(node, name, value) {
  if (value === "" || value === false || value == null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

export function glyph(word) {
  return svg("svg", { "aria-hidden": "true" }, svg("use", { href: `#g-${word}` }));
}

export const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function instant(atMs, nowMs = 0) {
  if (!(atMs > 0 && atMs < 250e12)) return "never";
  const iso = new Date(atMs).toISOString();
  const time = `${iso.slice(11, 19)}Z`;
  return !nowMs || Math.abs(nowMs - atMs) < 86_400_000 ? time : `${iso.slice(0, 10)} ${time}`;
}

export function age(seconds) {
  for (const [size, unit] of [[86_400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.trunc(seconds))} s`;
}

export function took(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${Number(seconds.toPrecision(3))} s`;
}
