// Errors and short news above the view. Errors stay until they are put away.

import { h, icon, symbolButton } from "./dom.js";
import { t } from "./i18n.js";

/** Nothing is seen beside an open dialog: it has a place of its own. */
const box = () => document.querySelector("dialog[open] .notices") ?? document.getElementById("notices");

/** What a closing dialog still had to say. */
export function keepNotices(dialog) {
  document.getElementById("notices").append(...dialog.querySelectorAll(".notices > *"));
}

function card(kind, text, hint, more) {
  const inside = [h("p", {}, h("strong", {}, text), hint && h("span", { class: "hint" }, hint)), more];
  const role = kind === "bad" ? "alert" : "status";
  const element = h("div", { class: `notice says-now ${kind}`, role }, icon(kind === "bad" ? "warn" : "check"), inside);
  element.append(symbolButton("cross", t("close"), () => element.remove()));
  return element;
}

/** The sentence and hint of whatever was thrown. */
export function explain(fault) {
  if (fault.status === 0) return { text: t("error.offline"), hint: t("error.offline.hint") };
  return { text: fault.message || String(fault), hint: fault.hint ?? null };
}

export function clearNews() {
  for (const old of box().querySelectorAll(".fine")) old.remove();
}

export function showError(fault, more) {
  if (fault?.name === "AbortError" || fault?.status === 401) return;
  const { text, hint } = explain(fault);
  const known = [...box().children].find((c) => c.classList.contains("bad") && c.querySelector("strong").textContent === text);
  known?.remove();
  box().append(card("bad", text, hint, more));
}

/** News takes the place of older news; errors stay. */
export function showNews(text, more, seconds = 6) {
  clearNews();
  const element = card("fine", text, null, more);
  box().append(element);
  if (seconds) setTimeout(() => element.remove(), seconds * 1000);
  return element;
}

/** Wraps a handler: what it throws is shown and not lost. */
export function guard(work) {
  return async (...given) => {
    try {
      return await work(...given);
    } catch (fault) {
      showError(fault);
      return undefined;
    }
  };
}

/** What stands in a view that could not load. */
export function failed(fault, retry) {
  const { text, hint } = explain(fault);
  const again = h("button", { type: "button", class: "main", onclick: retry }, t("again"));
  return h("div", { class: "empty", role: "alert" }, icon("warn"), h("h2", {}, text), hint && h("p", {}, hint), again);
}
