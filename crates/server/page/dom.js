// Elements, icons and the few things that every view says the same way.

const SVG = "http://www.w3.org/2000/svg";

const ICONS = {
  check: "M4 12.5l5.5 5.5L20 6.5",
  cross: "M5.5 5.5l13 13M18.5 5.5l-13 13",
  warn: "M12 3.5L22 20.5H2zM12 10v5M12 17.2v.8",
  full: "M4 9V4h5M15 4h5v5M20 15v5h-5M9 20H4v-5",
  left: "M14.5 5l-7 7 7 7",
  right: "M9.5 5l7 7-7 7",
  undo: "M8 5L4 9l4 4M4 9h10a5 5 0 0 1 0 10H9",
  folder: "M3 6h6l2 2.5h10V19H3z",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  down: "M12 4v11M7 11l5 5 5-5M4 20h16",
  layers: "M12 4l9 5-9 5-9-5zM3 14l9 5 9-5",
  brush: "M20 4L10 14M10 14c-3 0-4 2-4 6 4 0 6-1 6-4z",
  box: "M4 6h16v12H4z",
  erase: "M8 19l-4-4L14 5l5 5-9 9zM8 19h12",
  fit: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5M9 9h6v6H9z",
  user: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM4 20c1-4 4-5.5 8-5.5s7 1.5 8 5.5",
  target: "M12 3v4M12 17v4M3 12h4M17 12h4M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z",
};

function fill(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

function property(element, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (name === "class") element.setAttribute("class", value);
  else if (value === true) element.setAttribute(name, "");
  else element.setAttribute(name, value);
}

/** An element of HTML: `h("button", { class: "main", onclick }, "Learn")`. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) property(element, name, value);
  fill(element, children);
  return element;
}

/** An element of SVG. */
export function s(tag, properties = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) property(element, name, value);
  fill(element, children);
  return element;
}

export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

export function button(label, onclick, options = {}) {
  const { symbol, key, ...rest } = options;
  const inside = [symbol && icon(symbol), h("span", {}, label), key && h("kbd", { "aria-hidden": "true" }, key)];
  return h("button", { type: "button", onclick, "aria-keyshortcuts": key, ...rest }, inside);
}

/** A button that shows only a symbol; its label is read out and shown as a tip. */
export function symbolButton(symbol, label, onclick, rest = {}) {
  return h("button", { type: "button", class: "symbol", title: label, "aria-label": label, onclick, ...rest }, icon(symbol));
}

export function field(label, input, note) {
  return h("label", { class: "field" }, h("span", {}, label), input, note && h("small", {}, note));
}

export function replace(element, ...children) {
  element.replaceChildren();
  fill(element, children);
  return element;
}

export function say(text) {
  document.getElementById("spoken").textContent = text;
}

/** While someone writes into a field, letters are text and not commands. */
export function writing(event) {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  if (!at.matches || at.matches("textarea, select")) return Boolean(at.matches);
  return at.matches("input:not([type=range], [type=checkbox], [type=radio], [type=file])");
}

/** Runs `work` while the button is off, so that nothing is sent twice. */
export async function busy(element, work) {
  element.disabled = true;
  element.setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    element.disabled = false;
    element.removeAttribute("aria-busy");
  }
}
