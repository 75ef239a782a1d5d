// A part as it is seen: its picture, the found places over it, the words for its verdict.

import { map, picture } from "./api.js";
import { h, icon, s } from "./dom.js";
import { percent, score, t } from "./i18n.js";

const FAR = 1;
const DOUBTFUL = 0.2;

export function toggleMaps() {
  const hidden = document.documentElement.classList.toggle("nomap");
  for (const box of document.querySelectorAll("input.maps")) box.checked = !hidden;
}

/** The switch that `m` moves as well. */
export function mapSwitch() {
  const box = h("input", { type: "checkbox", class: "maps", onchange: toggleMaps });
  box.checked = !document.documentElement.classList.contains("nomap");
  return h("label", { class: "switch" }, box, h("span", {}, t("look.map")), h("kbd", { "aria-hidden": "true" }, "m"));
}

export const far = (part) => part.drift >= FAR;
export const doubtful = (part) => part.doubt >= DOUBTFUL;

export function regionBoxes(part) {
  const [height, width] = part.size;
  const boxes = part.regions.map((r) => s("rect", { x: r.left, y: r.top, width: r.width, height: r.height }));
  return s("svg", { class: "regions", viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" }, boxes);
}

export function imageText(part) {
  return t(part.flaw ? "look.image.flaw" : "look.image.good", { name: part.name });
}

function missing(box) {
  box.classList.add("gone");
  box.replaceChildren(h("span", {}, t("look.gone")));
}

/**
 * Picture and map in one box; both scale the same way, so that they lie on each other.
 * `always` asks for the map of a good part too; `silent` where the text beside it says what it is.
 */
export function look(part, max, options = {}) {
  const box = h("div", { class: "look" });
  if (!part.kept) {
    missing(box);
    return box;
  }
  const lazy = options.lazy ? "lazy" : null;
  box.append(h("img", { src: picture(part, max), alt: options.silent ? "" : imageText(part), loading: lazy, draggable: "false", decoding: "async", onerror: () => missing(box) }));
  if (part.flaw || options.always) {
    const over = h("img", { class: "map", src: map(part, max), alt: "", loading: lazy, draggable: "false", onerror: () => over.remove() });
    box.append(over);
  }
  if (options.boxes) box.append(regionBoxes(part));
  return box;
}

/** OK or NG by word, colour and symbol. */
export function verdict(part) {
  return h("span", { class: `verdict ${part.flaw ? "flaw" : "good"}` }, icon(part.flaw ? "cross" : "check"), h("b", {}, t(part.flaw ? "look.ng" : "look.ok")));
}

export function chips(part) {
  const judged = part.judgement;
  const word = judged && t(judged.label === "good" ? "look.judged.good" : "look.judged.flaw", { kind: judged.kind ?? "" });
  return h("span", { class: "chips" }, [
    far(part) && h("span", { class: "chip warn" }, icon("warn"), t("look.far")),
    !judged && doubtful(part) && h("span", { class: "chip doubt" }, t("look.doubtful")),
    part.flaw && part.kind && h("span", { class: "chip" }, part.kind),
    judged && h("span", { class: `chip judged ${judged.label}` }, word),
  ]);
}

export function facts(part) {
  const row = (name, value) => [h("dt", {}, t(name)), h("dd", {}, value)];
  return h("dl", { class: "facts" }, [
    row("look.score", t("look.score.of", { score: score(part.score), threshold: score(part.threshold) })),
    row("look.probability", percent(part.probability)),
    row("look.kind", part.kind ?? "–"),
    row("look.places", String(part.regions.length)),
    row("look.version", String(part.version)),
  ]);
}

export function farWarning(part) {
  return far(part) && h("p", { class: "notice warn" }, icon("warn"), h("span", {}, t("look.far.long", { drift: score(part.drift) })));
}
