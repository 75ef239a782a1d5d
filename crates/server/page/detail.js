// One part in a dialog: enlarged, with its facts, to be judged.

import { of, post, remove } from "./api.js";
import { bus } from "./bus.js";
import { comparison } from "./compare.js";
import { button, busy, h, replace, say, symbolButton, writing } from "./dom.js";
import { moment, t } from "./i18n.js";
import { chips, facts, farWarning, look, mapSwitch, verdict } from "./look.js";
import { guard, keepNotices, showNews } from "./notices.js";
import { refresh } from "./store.js";
import { Zoom } from "./zoom.js";

function announce(part) {
  bus.dispatchEvent(new CustomEvent("judged", { detail: part }));
}

/** Sends a judgement and tells the views of it. */
export async function judge(part, label, kind = null, mask = null) {
  const answer = await post(of(part.detector, "/judgements"), { part: part.part, label, kind, mask });
  const judged = { ...part, judgement: answer.judgement };
  announce(judged);
  refresh().catch(() => {});
  return judged;
}

export async function takeBack(part) {
  await remove(`/api/judgements/${encodeURIComponent(part.judgement.id)}`);
  const free = { ...part, judgement: null };
  announce(free);
  refresh().catch(() => {});
  return free;
}

function judging(part, redraw) {
  const act = (work, text) =>
    guard(async (event) => {
      redraw(await busy(event.currentTarget, work));
      say(text);
      showNews(text);
    });
  if (part.judgement && !part.judgement.learned) return button(t("detail.undo"), act(() => takeBack(part), t("detail.undone")), { symbol: "undo" });
  if (!part.kept) return h("p", { class: "quiet" }, t("look.gone"));
  const kind = part.flaw ? part.kind : null;
  return [
    part.judgement && h("p", { class: "quiet wide" }, t("detail.learned", { version: part.judgement.learned })),
    button(t("judge.good"), act(() => judge(part, "good"), t("judge.good.done")), { symbol: "check", class: "good", key: "g" }),
    button(t("judge.flaw"), act(() => judge(part, "flaw", kind), t("judge.flaw.done")), { symbol: "cross", class: "flaw", key: "f" }),
  ];
}

function side(part, redraw) {
  return [
    h("h2", { id: "detail-name" }, part.name),
    h("p", { class: "row" }, verdict(part), chips(part)),
    farWarning(part),
    facts(part),
    h("p", { class: "quiet" }, `${moment(part.at)} · ${t(`source.${part.source}`)}`),
    h("div", { class: "judge" }, judging(part, redraw)),
    comparison(part),
    h("p", { class: "row" }, h("a", { href: `/api/parts/${part.part}/image`, download: part.name }, t("detail.original"))),
  ];
}

/** Opens the dialog; `step` moves to the part beside it. */
export function openDetail(first, step) {
  let part = first;
  const gone = new AbortController();
  const inner = h("div", { class: "inner" });
  const stage = h("div", { class: "stage", tabindex: "0", role: "group", "aria-label": t("detail.stage") }, inner);
  const zoom = new Zoom(stage, inner, gone.signal);
  const panel = h("div", { class: "panel" });
  const draw = (next) => {
    if (next.part !== part.part) zoom.reset();
    if (next.part !== part.part || !inner.firstChild) replace(inner, look(next, 2048, { boxes: true, always: true }));
    part = next;
    replace(panel, side(part, draw));
  };
  const move = (by) => {
    const next = step?.(part, by);
    if (next) draw(next);
  };
  const close = () => dialog.close();
  const tools = h("div", { class: "tools" }, [
    symbolButton("minus", t("detail.smaller"), () => zoom.by(1 / 1.5)),
    symbolButton("plus", t("detail.larger"), () => zoom.by(1.5)),
    symbolButton("fit", t("detail.whole"), () => zoom.reset()),
    mapSwitch(),
    step && symbolButton("left", t("previous"), () => move(-1)),
    step && symbolButton("right", t("next"), () => move(1)),
    symbolButton("cross", t("close"), close, { class: "symbol last" }),
  ]);
  const dialog = h("dialog", { class: "detail", "aria-labelledby": "detail-name" }, tools, stage, panel, h("div", { class: "notices" }));
  dialog.addEventListener("close", () => {
    gone.abort();
    keepNotices(dialog);
    dialog.remove();
  });
  dialog.addEventListener("keydown", (event) => {
    if (writing(event) || zoom.key(event)) return;
    if (event.key === "ArrowLeft") move(-1);
    else if (event.key === "ArrowRight") move(1);
    else if (event.key === "g" || event.key === "f") panel.querySelector(`.judge .${event.key === "g" ? "good" : "flaw"}`)?.click();
    else if (event.key === "c") panel.querySelector(".comparing")?.click();
    else return;
    event.stopPropagation();
  });
  document.body.append(dialog);
  dialog.showModal();
  draw(part);
  stage.focus();
}
