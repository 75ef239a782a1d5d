// From which score on a part is stopped, and what that costs and brings.

import { get, of, post } from "./api.js";
import { on } from "./bus.js";
import { busy, button, field, h, icon, replace } from "./dom.js";
import { histogram } from "./charts.js";
import { number, percent, score, t } from "./i18n.js";
import { guard, showNews } from "./notices.js";
import { bent, stopped, wilson } from "./stats.js";
import { address, mayChange, refresh } from "./store.js";
import { rollBack } from "./versions.js";

const STEPS = 1000;

/** `2 of 100 (0.6–7 %)` */
function share(hits, all) {
  const [low, high] = wilson(hits, all).map(percent);
  return { hits: number(hits), all: number(all), low: low.replace(/\s*%$/, ""), high };
}

class Threshold {
  constructor(root, context) {
    Object.assign(this, context);
    this.root = root;
    this.card = h("section", { class: "card threshold", "aria-labelledby": "cut-title" });
    root.append(h("h1", { id: "cut-title" }, t("view.threshold")), h("p", { class: "quiet" }, t("threshold.how")), this.card);
  }

  async load() {
    this.data = await get(of(this.detector, "/threshold"), { signal: this.signal });
    this.value = this.data.value;
    this.draw();
  }

  range() {
    const { good, defects, judged, value } = this.data;
    const scores = [...good, ...defects, ...judged.good, ...judged.flaw, value];
    this.scale = bent(good, scores);
    const all = scores.map(this.scale.to);
    const low = all.reduce((a, b) => Math.min(a, b));
    const high = all.reduce((a, b) => Math.max(a, b));
    const room = (high - low || 1) * 0.03;
    return [low - room, high + room];
  }

  draw() {
    const { good, defects, judged } = this.data;
    const [low, high] = this.range();
    const placed = (...lists) => lists.flat().map(this.scale.to);
    this.chart = histogram(placed(good, judged.good), placed(defects, judged.flaw), low, high, t("threshold.chart"));
    const moved = (event) => this.set(this.scale.from(Number(event.target.value)), false);
    this.slider = h("input", { type: "range", min: low, max: high, step: (high - low) / STEPS, value: this.scale.to(this.value), oninput: moved, "aria-label": t("threshold.slider") });
    this.words = h("div", { class: "says" });
    this.exact = h("input", { type: "number", step: "any", value: this.value, onchange: (event) => this.set(Number(event.target.value), true) });
    this.apply = button(t("threshold.apply"), guard(() => this.post({ value: this.value }, this.apply)), { class: "main", hidden: !mayChange() });
    this.back = button(t("threshold.back"), () => this.set(this.data.value, true));
    const legend = h("p", { class: "legend" }, h("span", { class: "good" }, t("threshold.good")), h("span", { class: "flaw" }, t("threshold.flaws")), h("span", { class: "past" }, t("threshold.past")));
    const used = h("p", { class: "quiet" }, t("threshold.used", { value: score(this.data.value), rule: this.data.rule }));
    replace(this.card, legend, h("div", { class: "scale" }, this.chart.drawing, this.slider), this.words, h("div", { class: "row end" }, field(t("threshold.exact"), this.exact), this.apply, this.back), used, mayChange() ? this.rules() : h("p", { class: "quiet" }, t("role.engineers")));
    this.dragging();
    this.set(this.value, true);
  }

  /** The chart moves the threshold too. */
  dragging() {
    const { drawing } = this.chart;
    const to = (event) => {
      if (!event.buttons) return;
      const box = drawing.getBoundingClientRect();
      const [low, high] = this.range();
      const at = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
      this.set(this.scale.from(low + at * (high - low)), true);
    };
    drawing.addEventListener("pointerdown", (event) => (drawing.setPointerCapture(event.pointerId), to(event)));
    drawing.addEventListener("pointermove", to);
  }

  rules() {
    const rule = (key, wish, count) => {
      const act = button(t(key), guard(() => this.post(wish, act)), { disabled: !count });
      return act;
    };
    const { good, defects } = this.data;
    return h("fieldset", {}, h("legend", {}, t("threshold.rules")), h("div", { class: "row" }, rule("threshold.alarms", { false_alarms: 0.01 }, good.length), rule("threshold.find", { find: 0.95 }, defects.length)), !defects.length && h("p", { class: "quiet" }, t("threshold.rules.none")));
  }

  set(value, slide) {
    if (!Number.isFinite(value)) return;
    this.value = value;
    if (slide) this.slider.value = this.scale.to(value);
    if (document.activeElement !== this.exact || slide) this.exact.value = Number(value.toPrecision(6));
    this.chart.move(this.scale.to(value));
    const same = Math.abs(value - this.data.value) < 1e-12;
    this.apply.disabled = same;
    this.back.disabled = same;
    this.tell();
  }

  tell() {
    const { good, defects, judged } = this.data;
    const at = (scores) => share(stopped(scores, this.value), scores.length);
    const lines = [good.length ? t("threshold.stops", at(good)) : t("threshold.stops.none")];
    lines.push(defects.length ? t("threshold.finds", at(defects)) : t("threshold.finds.none"));
    const own = [judged.good.length && t("threshold.judged.good", at(judged.good)), judged.flaw.length && t("threshold.judged.flaw", at(judged.flaw))].filter(Boolean);
    const row = (kind, symbol, line) => h("p", { class: kind }, icon(symbol), h("span", {}, line));
    const teach = !defects.length && h("p", {}, h("a", { href: address(this.detector, "review") }, t("threshold.teach")));
    replace(this.words, row("good", "check", lines[0]), row("flaw", "target", lines[1]), own.length > 0 && h("p", { class: "quiet" }, t("threshold.judged", { what: own.join(", ") })), teach);
    this.slider.setAttribute("aria-valuetext", `${score(this.value)}. ${lines.join(" ")}`);
  }

  async post(wish, control) {
    const before = await get(of(this.detector, "/versions"), { signal: this.signal });
    const made = await busy(control, () => post(of(this.detector, "/threshold"), wish));
    const undo = button(t("threshold.undo"), guard(async () => {
      await rollBack(this.detector, before.current);
      news.remove();
      await this.load();
    }), { symbol: "undo", class: "small" });
    const news = showNews(t("threshold.done", { value: score(made.threshold), version: made.version }), undo, 30);
    await refresh();
    await this.load();
    this.slider.focus();
  }
}

function unready(detector) {
  return h("div", { class: "empty" }, icon("folder"), h("h2", {}, t("live.unready")), h("p", {}, t("live.unready.how")), h("a", { class: "button main", href: address(detector, "new") }, t("live.learn")));
}

export async function show(root, context) {
  const detail = await get(of(context.detector), { signal: context.signal });
  if (detail.threshold === null) {
    root.append(h("h1", {}, t("view.threshold")), unready(context.detector));
    return;
  }
  const view = new Threshold(root, context);
  await view.load();
  on("version", guard(async (event) => {
    const touched = view.value !== view.data.value;
    if (event.detector === context.detector && !touched) await view.load();
  }), context.signal);
}
