// Doubtful parts first: good or flaw, which kind, where.

import { get, of, query } from "./api.js";
import { on } from "./bus.js";
import { busy, button, field, h, icon, replace, say, symbolButton, writing } from "./dom.js";
import { judge, openDetail, takeBack } from "./detail.js";
import { Drawing } from "./draw.js";
import { clock, number, t } from "./i18n.js";
import { LearnBar } from "./learn.js";
import { chips, facts, farWarning, look, mapSwitch, verdict } from "./look.js";
import { guard } from "./notices.js";
import { address, summary } from "./store.js";
import { versionList } from "./versions.js";

const PAGE = 50;

class Review {
  constructor(root, context) {
    Object.assign(this, context);
    this.root = root;
    this.at = 0;
    this.undo = [];
    this.made = [];
    this.tool = "brush";
    this.size = 24;
    this.stage = h("div", { class: "stage" });
    this.panel = h("div", { class: "panel" });
    this.strip = h("ul", { class: "strip", "aria-label": t("review.queue") });
    this.desk = h("section", { class: "desk", "aria-label": t("review.part") }, this.stage, this.panel);
    this.bar = new LearnBar(this.detector, this.signal, guard(() => this.learned()));
  }

  /** What was learned can no longer be taken back. */
  async learned() {
    this.undo = [];
    await this.load();
  }

  get part() {
    return this.parts[this.at] ?? null;
  }

  get kinds() {
    return [...new Set([...(summary(this.detector)?.kinds ?? []), ...this.made])];
  }

  async load() {
    const path = of(this.detector, `/parts${query({ order: "doubtful", judged: false, limit: PAGE })}`);
    const found = await get(path, { signal: this.signal });
    // Nothing can be learned from an image that is no longer kept.
    this.parts = found.parts.filter((p) => p.kept);
    this.at = 0;
    this.draw();
  }

  frame() {
    this.root.append(h("h1", { class: "unseen" }, t("view.review")), this.bar.element, this.strip, this.desk, versionList(this.detector, this.signal));
  }

  draw() {
    this.drawing = null;
    this.kind = this.part?.flaw ? this.part.kind : null;
    this.drawStrip();
    if (!this.part) return this.drawEmpty();
    this.desk.classList.remove("none");
    this.drawStage();
    return this.drawPanel();
  }

  drawEmpty() {
    this.desk.classList.add("none");
    const some = summary(this.detector)?.parts > 0;
    const go = h("a", { class: "button main", href: address(this.detector, "live") }, t("view.live"));
    const undo = this.undo.length > 0 && button(t("review.undo"), guard(() => this.undoLast()), { symbol: "undo", key: "u" });
    replace(this.stage, h("div", { class: "empty" }, icon("check"), h("h2", {}, t(some ? "review.empty" : "review.unseen")), h("p", {}, t(some ? "review.empty.how" : "review.unseen.how")), h("p", { class: "row middle" }, go, undo)));
    replace(this.panel);
  }

  drawStrip() {
    const item = (part, at) => {
      const pick = () => this.move(at - this.at);
      const label = `${part.name}, ${t(part.flaw ? "look.ng" : "look.ok")}`;
      return h("li", {}, h("button", { type: "button", class: part.flaw ? "tile flaw" : "tile good", "aria-label": label, "aria-current": at === this.at ? "true" : null, onclick: pick }, look(part, 128, { lazy: true, silent: true })));
    };
    const held = this.strip.contains(document.activeElement);
    replace(this.strip, this.parts.map(item));
    this.strip.hidden = !this.parts.length;
    const current = this.strip.children[this.at];
    if (!current) return;
    this.strip.scrollLeft = current.offsetLeft - this.strip.clientWidth / 2 + current.clientWidth / 2;
    if (held) current.firstChild.focus({ preventScroll: true });
  }

  drawStage() {
    this.drawing = new Drawing(this.part, this.signal, () => this.drawn());
    Object.assign(this.drawing, { tool: this.tool, size: this.size });
    const box = look(this.part, 1024, { boxes: true, always: true });
    if (this.part.kept) box.append(this.drawing.canvas);
    replace(this.stage, box);
  }

  drawPanel() {
    const { part } = this;
    const place = t("review.place", { at: number(this.at + 1), all: number(this.parts.length) });
    const steps = h("div", { class: "row between" }, symbolButton("left", t("previous"), () => this.move(-1), { disabled: this.at === 0 }), h("span", { class: "quiet" }, place), symbolButton("right", t("next"), () => this.move(1), { disabled: this.at >= this.parts.length - 1 }));
    const open = symbolButton("fit", t("review.zoom"), () => openDetail(part));
    const head = h("div", { class: "row between" }, h("h2", { class: "name" }, part.name), open);
    this.good = button(t("judge.good"), guard(() => this.send("good")), { symbol: "check", class: "good", key: "g" });
    this.flaw = button(t("judge.flaw"), guard(() => this.send("flaw")), { symbol: "cross", class: "flaw", key: "f" });
    const undo = button(t("review.undo"), guard(() => this.undoLast()), { symbol: "undo", key: "u", class: "small", disabled: !this.undo.length });
    replace(this.panel, steps, head, h("p", { class: "row" }, verdict(part), chips(part), h("span", { class: "quiet" }, clock(part.at))), farWarning(part), h("div", { class: "judge" }, this.good, this.flaw), this.kindPicker(), this.tools(), facts(part), h("div", { class: "row between" }, mapSwitch(), undo));
  }

  kindPicker() {
    const pick = (kind) => () => {
      this.kind = this.kind === kind ? null : kind;
      this.drawKinds();
    };
    const chip = (kind, at) => button(kind, pick(kind), { class: "kind", "data-kind": kind, "aria-pressed": "false", key: at < 9 ? String(at + 1) : undefined });
    this.input = h("input", { maxlength: 60, autocomplete: "off", placeholder: t("review.kind.example") });
    const add = h("form", { class: "row", hidden: true, onsubmit: (event) => this.addKind(event) }, field(t("review.kind.name"), this.input), h("button", {}, t("review.kind.add")));
    add.addEventListener("keydown", (event) => event.key === "Escape" && this.drawPanel());
    this.adding = add;
    const fresh = button(t("review.kind.new"), () => this.newKind(), { symbol: "plus", class: "kind", key: "n" });
    this.kindBox = h("fieldset", { class: "kinds" }, h("legend", {}, t("review.kind")), h("div", { class: "row" }, this.kinds.map(chip), fresh), add);
    this.drawKinds();
    return this.kindBox;
  }

  drawKinds() {
    for (const chip of this.kindBox.querySelectorAll("[data-kind]")) chip.setAttribute("aria-pressed", String(chip.dataset.kind === this.kind));
  }

  newKind() {
    this.adding.hidden = false;
    this.input.focus();
  }

  addKind(event) {
    event.preventDefault();
    const name = this.input.value.trim();
    if (!name) return;
    if (!this.kinds.includes(name)) this.made.push(name);
    this.kind = name;
    this.kindBox.replaceWith(this.kindPicker());
    this.flaw.focus();
  }

  tools() {
    const choose = (tool) => () => {
      this.tool = this.drawing.tool = tool;
      for (const b of box.querySelectorAll("[data-tool]")) b.setAttribute("aria-pressed", String(b.dataset.tool === tool));
    };
    const tool = (name) => button(t(`review.${name}`), choose(name), { symbol: name, class: "small", "data-tool": name, "aria-pressed": String(name === this.tool) });
    const size = h("input", { type: "range", min: 4, max: 96, step: 2, value: this.size, oninput: (event) => (this.size = this.drawing.size = Number(event.target.value)) });
    const found = this.part.regions.length > 0 && button(t("review.found"), () => this.drawing.add(this.part.regions), { symbol: "target", class: "small" });
    this.clear = button(t("review.clear"), () => this.drawing.clear(), { symbol: "erase", class: "small", disabled: true });
    const box = h("fieldset", { class: "draw" }, h("legend", {}, t("review.draw")), h("div", { class: "row" }, tool("brush"), tool("box"), found, this.clear), field(t("review.size"), size));
    if (!this.part.kept) box.disabled = true;
    return box;
  }

  drawn() {
    this.clear.disabled = this.drawing.empty;
  }

  async send(label) {
    const { part } = this;
    if (!part || this.sending) return;
    this.sending = true;
    const flaw = label === "flaw";
    try {
      const judged = await busy(flaw ? this.flaw : this.good, () => judge(part, label, flaw ? this.kind : null, flaw ? this.drawing.mask() : null));
      this.undo.push(judged);
      say(`${part.name}: ${t(`judge.${label}.done`)}`);
    } finally {
      this.sending = false;
    }
    await this.leave(part);
  }

  /** The judged part goes; the next one takes its place. */
  async leave(part) {
    this.parts = this.parts.filter((p) => p.part !== part.part);
    this.at = Math.min(this.at, Math.max(0, this.parts.length - 1));
    if (!this.parts.length) await this.load();
    else this.draw();
  }

  async undoLast() {
    const last = this.undo.at(-1);
    if (!last || this.sending) return;
    const free = await takeBack(last);
    this.undo.pop();
    this.parts = [free, ...this.parts.filter((p) => p.part !== free.part)];
    this.at = 0;
    this.draw();
    say(t("review.undone", { name: free.name }));
  }

  move(by) {
    const next = this.at + by;
    if (next < 0 || next >= this.parts.length) return;
    this.at = next;
    this.draw();
    say(`${this.part.name}: ${t(this.part.flaw ? "look.ng" : "look.ok")}`);
  }

  keys(event) {
    if (writing(event) || document.querySelector("dialog[open]")) return;
    const ranged = event.target.matches?.("input[type=range]");
    const digit = /^[1-9]$/.test(event.key) && this.kinds[Number(event.key) - 1];
    const act = {
      g: () => this.send("good"),
      f: () => this.send("flaw"),
      u: () => this.undoLast(),
      n: () => this.newKind(),
      ArrowLeft: ranged ? null : () => this.move(-1),
      ArrowRight: ranged ? null : () => this.move(1),
    }[event.key];
    const work = act ?? (digit && (() => this.kindBox.querySelector(`[data-kind="${CSS.escape(digit)}"]`).click()));
    if (!work || (!this.part && event.key !== "u")) return;
    event.preventDefault();
    guard(work)();
  }

  /** New parts wait behind those that are shown. */
  take(part) {
    if (part.detector !== this.detector || part.judgement || this.parts.some((p) => p.part === part.part)) return;
    if (this.parts.length >= PAGE) return;
    this.parts.push(part);
    if (this.parts.length === 1) this.draw();
    else this.drawStrip();
  }

  /** Somebody judged a shown part in the dialog. */
  judged(part) {
    if (!part.judgement || this.sending || !this.parts.some((p) => p.part === part.part)) return;
    guard(() => this.leave(part))();
  }
}

export async function show(root, context) {
  const view = new Review(root, context);
  view.frame();
  await view.load();
  addEventListener("keydown", (event) => view.keys(event), { signal: context.signal });
  on("part", (part) => view.take(part), context.signal);
  on("judged", (part) => view.judged(part), context.signal);
}
