// What happened over time, files to take along, who did what.

import { get, of, query } from "./api.js";
import { h, icon, replace } from "./dom.js";
import { columns } from "./charts.js";
import { moment, number, percent, t } from "./i18n.js";
import { guard } from "./notices.js";
import { summary, isAdmin } from "./store.js";
import { settings } from "./settings.js";

const HOUR = 3600e3;
const DAY = 24 * HOUR;
const SPANS = { day: [DAY, "hour"], week: [7 * DAY, "hour"], month: [30 * DAY, "day"], year: [365 * DAY, "day"] };

/** Times without parts are drawn too: a hole is news. */
function whole(buckets, since, step) {
  if (!buckets.length) return [];
  const first = buckets[0].at;
  const found = new Map(buckets.map((b) => [Math.round((b.at - first) / step), b]));
  const start = Math.ceil((since - first) / step);
  const end = Math.max(0, Math.floor((Date.now() - first) / step));
  const none = (at) => ({ at: first + at * step, parts: 0, stopped: 0, doubtful: 0, drift: null });
  return Array.from({ length: end - start + 1 }, (_, i) => found.get(start + i) ?? none(start + i));
}

const sentence = (b) => t("history.bucket", { at: moment(b.at), parts: number(b.parts), stopped: number(b.stopped), doubtful: number(b.doubtful), drift: number(b.drift, 2) });

function figure(key, buckets, kinds, most, { extra, limit } = {}) {
  const data = buckets.map((b) => kinds.map(([kind, value]) => ({ kind, value: value(b) })));
  const chart = columns(data, most, t(`${key}.label`), (at) => sentence(buckets[at]), limit);
  const ends = h("p", { class: "row between quiet ends" }, h("span", {}, moment(buckets[0].at)), h("span", {}, moment(buckets.at(-1).at)));
  return h("figure", {}, h("figcaption", {}, h("strong", {}, t(key)), extra), chart, ends);
}

function table(buckets) {
  const heads = ["at", "parts", "stopped", "doubtful", "drift"];
  const row = (b) => h("tr", {}, h("th", { scope: "row" }, moment(b.at)), h("td", {}, number(b.parts)), h("td", {}, number(b.stopped)), h("td", {}, number(b.doubtful)), h("td", {}, number(b.drift, 2)));
  const inside = h("table", {}, h("thead", {}, h("tr", {}, heads.map((k) => h("th", { scope: "col" }, t(`history.col.${k}`))))), h("tbody", {}, [...buckets].reverse().map(row)));
  return h("details", {}, h("summary", {}, t("history.table")), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": t("history.table") }, inside));
}

class History {
  constructor(context) {
    Object.assign(this, context);
    this.span = "week";
    this.charts = h("div", { class: "charts" });
    const pick = h("select", { onchange: guard((event) => ((this.span = event.target.value), this.load())) }, Object.keys(SPANS).map((s) => h("option", { value: s, selected: s === this.span }, t(`history.${s}`))));
    this.element = h("section", { class: "card", "aria-labelledby": "history-title" }, h("div", { class: "row between" }, h("h2", { id: "history-title" }, t("history.title")), h("label", { class: "row" }, h("span", {}, t("history.span")), pick)), this.charts);
  }

  async load() {
    const [long, bucket] = SPANS[this.span];
    const since = Date.now() - long;
    const { buckets } = await get(of(this.detector, `/history${query({ bucket, since })}`), { signal: this.signal });
    const sorted = [...buckets].sort((a, b) => a.at - b.at);
    this.draw(sorted, whole(sorted, since, bucket === "hour" ? HOUR : DAY));
  }

  draw(real, all) {
    if (!real.length) {
      replace(this.charts, h("div", { class: "empty" }, icon("layers"), h("h3", {}, t("history.empty")), h("p", {}, t("history.empty.how"))));
      return;
    }
    const sum = (key) => real.reduce((total, b) => total + b[key], 0);
    const parts = sum("parts");
    const words = t("history.sum", { parts: number(parts), stopped: number(sum("stopped")), share: percent(parts ? sum("stopped") / parts : 0), doubtful: number(sum("doubtful")) });
    const most = Math.max(1, ...all.map((b) => b.parts));
    const doubts = Math.max(1, ...all.map((b) => b.doubtful));
    const legend = h("span", { class: "legend" }, h("span", { class: "flaw" }, t("history.stopped")), h("span", { class: "plain" }, t("history.passed")));
    replace(
      this.charts,
      h("p", { class: "big" }, words),
      figure("history.parts", all, [["flaw", (b) => b.stopped], ["plain", (b) => b.parts - b.stopped]], most, { extra: legend }),
      figure("history.doubtful", all, [["doubt", (b) => b.doubtful]], doubts),
      figure("history.drift", all, [["drift", (b) => Math.max(0, b.drift ?? 0)]], Math.max(1, ...all.map((b) => b.drift ?? 0)), { extra: h("span", { class: "quiet" }, t("history.drift.note")), limit: 1 }),
      table(real),
    );
  }
}

function exports(detector) {
  const item = (key, path) => h("li", {}, h("a", { class: "button", href: of(detector, path), download: "" }, icon("down"), h("span", {}, h("b", {}, t(`export.${key}`)), h("small", {}, t(`export.${key}.note`)))));
  const ready = summary(detector)?.version;
  const files = [ready && item("file", "/file"), item("csv", "/export?format=csv"), item("mvtec", "/export?format=mvtec"), item("coco", "/export?format=coco")];
  return h("section", { class: "card", "aria-labelledby": "export-title" }, h("h2", { id: "export-title" }, t("export.title")), h("ul", { class: "exports" }, files));
}

export async function show(root, context) {
  const view = new History(context);
  root.append(h("h1", {}, t("view.history")), view.element, exports(context.detector));
  await view.load();
  if (isAdmin()) root.append(settings(context.signal));
}
