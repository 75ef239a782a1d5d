// The newest verdicts, for a screen at the line.

import { get, of, query } from "./api.js";
import { on } from "./bus.js";
import { button, h, icon, replace, say, writing } from "./dom.js";
import { openDetail } from "./detail.js";
import { clock, number, percent, t } from "./i18n.js";
import { chips, doubtful, far, look, mapSwitch, verdict } from "./look.js";
import { guard } from "./notices.js";
import { Sender } from "./send.js";
import { address, summary } from "./store.js";
import { chooseFiles, chooseFolder, dropPlace } from "./upload.js";

const PAGE = 48;
const MOST = 480;

class Live {
  constructor(root, context) {
    Object.assign(this, context);
    this.root = root;
    this.parts = [];
    this.only = "all";
    this.end = false;
    this.board = h("section", { class: "board", "aria-label": t("live.newest") });
    this.counts = h("dl", { class: "counters" });
    this.tiles = h("ul", { class: "tiles" });
    this.more = button(t("live.older"), guard(() => this.older()), { hidden: true });
    this.sender = new Sender(this.detector, (part) => this.take(part), this.signal);
  }

  frame() {
    const give = (files) => this.sender.send(files);
    const full = button(t("live.full"), () => this.full(), { symbol: "full" });
    const bar = h("div", { class: "bar" }, chooseFiles(give), chooseFolder(give), h("span", { class: "quiet grow" }, t("live.drop")), mapSwitch(), full);
    const choice = ["all", "flaw"].map((kind) => {
      const input = h("input", { type: "radio", name: "only", value: kind, class: "unseen", onchange: guard(() => this.filter(kind)) });
      input.checked = kind === this.only;
      return h("label", {}, input, h("span", {}, t(`live.only.${kind}`)));
    });
    const head = h("div", { class: "row between" }, h("h2", {}, t("live.latest")), h("div", { class: "segments", role: "radiogroup", "aria-label": t("live.only") }, choice));
    this.lost = h("p", { class: "lost", role: "alert", hidden: true }, icon("warn"), t("live.lost"));
    this.screen = h("div", { class: "screen" }, this.lost, this.board, this.counts);
    const hint = h("div", { class: "dropping", "aria-hidden": "true" }, icon("down"), t("live.release"));
    this.root.append(h("h1", { class: "unseen" }, t("view.live")), bar, this.sender.element, this.screen, head, this.tiles, h("p", { class: "row middle" }, this.more), hint);
    dropPlace(this.root, give, this.signal);
  }

  full() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.screen.requestFullscreen().catch(() => this.screen.classList.toggle("filled"));
  }

  async load() {
    const flaw = this.only === "flaw" ? true : undefined;
    const found = await get(of(this.detector, `/parts${query({ order: "new", limit: PAGE, flaw })}`), { signal: this.signal });
    this.parts = found.parts;
    this.counted = found.counts;
    this.end = found.parts.length < PAGE;
    this.drawAll();
  }

  /** A verdict that may be old must not look like that of the part at the line. */
  line({ up, again }) {
    this.lost.hidden = up;
    this.screen.classList.toggle("stale", !up);
    return again ? this.load() : null;
  }

  async filter(kind) {
    this.only = kind;
    await this.load();
  }

  async older() {
    const flaw = this.only === "flaw" ? true : undefined;
    const before = this.parts.at(-1).part;
    const found = await get(of(this.detector, `/parts${query({ order: "new", limit: PAGE, flaw, before })}`), { signal: this.signal });
    this.end = found.parts.length < PAGE || this.parts.length >= MOST;
    this.parts.push(...found.parts);
    this.tiles.append(...found.parts.map((part) => this.tile(part)));
    this.more.hidden = this.end;
  }

  drawAll() {
    replace(this.tiles, this.parts.map((part) => this.tile(part)));
    this.more.hidden = this.end;
    if (!this.newest || this.only === "all") this.newest = this.parts[0] ?? null;
    this.drawBoard();
    this.drawCounts();
  }

  tile(part) {
    const inside = [look(part, 256, { lazy: true, silent: true }), verdict(part), chips(part), h("span", { class: "name" }, part.name), h("time", {}, clock(part.at))];
    const open = () => this.open(this.parts.find((p) => p.part === part.part) ?? part);
    const kind = `tile ${part.flaw ? "flaw" : "good"}`;
    return h("li", { "data-part": part.part }, h("button", { type: "button", class: kind, onclick: open }, inside));
  }

  open(part) {
    openDetail(part, (now, by) => this.parts[this.parts.findIndex((p) => p.part === now.part) + by]);
  }

  drawBoard() {
    const part = this.newest;
    if (!part) return replace(this.board, this.empty());
    this.board.className = `board ${part.flaw ? "flaw" : "good"}`;
    const large = h("button", { type: "button", class: "large", "aria-label": t("live.open", { name: part.name }), onclick: () => this.open(this.newest) }, look(part, 1024));
    const words = [verdict(part), h("p", { class: "name" }, part.name), h("p", { class: "quiet" }, `${clock(part.at)} · ${t("live.sure", { share: percent(part.probability) })}`), chips(part)];
    const warning = far(part) && h("p", { class: "warning" }, icon("warn"), t("look.far.short"));
    const held = this.board.contains(document.activeElement);
    replace(this.board, large, h("div", { class: "says" }, words, warning));
    if (held) large.focus();
    return this.board;
  }

  empty() {
    this.board.className = "board";
    const ready = summary(this.detector)?.state === "ready";
    const setup = !ready && h("a", { class: "button main", href: address(this.detector, "new") }, t("live.learn"));
    return h("div", { class: "empty" }, icon(ready ? "down" : "folder"), h("h2", {}, t(ready ? "live.empty" : "live.unready")), h("p", {}, t(ready ? "live.empty.how" : "live.unready.how")), setup);
  }

  drawCounts() {
    const { today, parts, stopped, doubtful } = this.counted;
    const row = (key, value, kind = "") => h("div", { class: kind }, h("dt", {}, t(key)), h("dd", {}, value));
    const share = today.parts > 0 && h("small", {}, ` ${percent(today.stopped / today.parts)}`);
    replace(this.counts, row("live.today.parts", number(today.parts)), row("live.today.stopped", [number(today.stopped), share], "bad"), row("live.doubtful", number(doubtful), "doubt"), row("live.all", `${number(stopped)} / ${number(parts)}`));
  }

  /** A part arrives as an answer and as an event: it is taken once. */
  take(part) {
    if (part.detector !== this.detector) return;
    if (this.parts.some((p) => p.part === part.part) || this.newest?.part === part.part) return this.change(part);
    this.counted.today.parts += 1;
    this.counted.parts += 1;
    if (part.flaw) this.counted.today.stopped += 1, (this.counted.stopped += 1);
    if (doubtful(part)) this.counted.doubtful += 1;
    if (!this.newest || part.part > this.newest.part) this.newest = part;
    if (this.only === "all" || part.flaw) this.insert(part);
    this.soon();
    return undefined;
  }

  insert(part) {
    const at = this.parts.findIndex((p) => p.part < part.part);
    const place = at < 0 ? this.parts.length : at;
    this.parts.splice(place, 0, part);
    const tile = this.tile(part);
    tile.classList.add("fresh");
    this.tiles.insertBefore(tile, this.tiles.children[place] ?? null);
    while (this.parts.length > MOST) this.parts.pop(), this.tiles.lastChild.remove();
  }

  change(part) {
    const at = this.parts.findIndex((p) => p.part === part.part);
    if (at >= 0) this.parts[at] = part;
    const old = this.tiles.querySelector(`[data-part="${part.part}"]`);
    const held = old?.contains(document.activeElement);
    const next = this.tile(part);
    old?.replaceWith(next);
    if (held) next.firstChild.focus();
    if (this.newest?.part === part.part) this.newest = part, this.soon();
  }

  /** Many parts may come between two frames: the board is drawn once. */
  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawBoard();
      this.drawCounts();
      say(`${t(this.newest.flaw ? "look.ng" : "look.ok")}: ${this.newest.name}`);
    });
    clearTimeout(this.recount);
    this.recount = setTimeout(() => this.count().catch(() => {}), 2000);
  }

  async count() {
    const found = await get(of(this.detector, `/parts${query({ order: "new", limit: 1 })}`), { signal: this.signal });
    this.counted = found.counts;
    this.drawCounts();
  }
}

export async function show(root, context) {
  const view = new Live(root, context);
  view.frame();
  await view.load();
  on("part", (part) => view.take(part), context.signal);
  on("judged", (part) => view.change(part), context.signal);
  on("line", guard((state) => view.line(state)), context.signal);
  const keys = (event) => event.key === "F" && !writing(event) && view.full();
  addEventListener("keydown", keys, { signal: context.signal });
}
