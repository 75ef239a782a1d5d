// A detector from good parts: hand them in, learn, look at the five oddest.

import { addGood, get, known, of, post, remove } from "./api.js";
import { on } from "./bus.js";
import { busy, button, field, h, icon, replace, say } from "./dom.js";
import { duration, number, t } from "./i18n.js";
import { drawJob, follow } from "./job.js";
import { failed, guard, showError, showNews } from "./notices.js";
import { showRefused } from "./send.js";
import { address, isAdmin, refresh } from "./store.js";
import { chooseFiles, chooseFolder, dropPlace, groups, Pace } from "./upload.js";

const GROUP = 8;
const FEW = 10;
const SHOWN = 60;

class Setup {
  constructor(root, context) {
    Object.assign(this, context);
    this.root = root;
    this.hand = h("section", { class: "card step", "aria-labelledby": "step-hand" });
    this.learn = h("section", { class: "card step", "aria-labelledby": "step-learn" });
    this.check = h("section", { class: "card step", "aria-labelledby": "step-check", hidden: true });
    this.about = h("section", { class: "card step", "aria-labelledby": "step-about", hidden: true });
    this.progress = h("div", { class: "sending", role: "status", hidden: true });
    this.job = h("div", { class: "job", hidden: true });
    this.grid = h("ul", { class: "goods" });
    this.shown = SHOWN;
  }

  async load() {
    const [detail, good] = await Promise.all([get(of(this.detector), { signal: this.signal }), get(of(this.detector, "/good"), { signal: this.signal })]);
    this.detail = detail;
    this.images = good.images;
  }

  async reload() {
    await this.load();
    this.draw();
  }

  frame() {
    this.root.append(h("h1", {}, this.detector), this.hand, this.learn, this.check, this.about, this.removal());
    this.drawHand();
    dropPlace(this.hand, guard((files) => this.send(files)), this.signal);
    this.draw();
    if (this.detail.job?.state === "running") guard(() => this.watch(this.detail.job))();
  }

  draw() {
    this.drawGoods();
    this.drawLearn();
    this.drawCheck();
    this.drawAbout();
  }

  drawHand() {
    const give = guard((files) => this.send(files));
    this.total = h("strong", {});
    const place = h("div", { class: "drop" }, icon("folder"), h("p", { class: "big" }, t("new.drop")), h("p", { class: "quiet" }, t("new.drop.how")), h("p", { class: "row middle" }, chooseFolder(give), chooseFiles(give)));
    const all = h("details", {}, h("summary", {}, this.total), this.grid);
    replace(this.hand, h("h2", { id: "step-hand" }, h("span", { class: "nth" }, "1"), t("new.hand")), place, this.progress, all);
  }

  async send(files) {
    if (!files.length) throw new Error(t("upload.none"));
    if (this.sending) throw new Error(t("new.wait"));
    this.sending = new AbortController();
    this.signal.addEventListener("abort", () => this.sending?.abort());
    const sum = { added: 0, known: 0, refused: [] };
    try {
      await this.sendGroups(files, sum);
    } catch (fault) {
      showError(fault);
    }
    this.sending = null;
    this.progress.hidden = true;
    showRefused(sum.refused);
    if (sum.added + sum.known > 0) showNews([t("new.added", { count: sum.added, n: number(sum.added) }), sum.known > 0 && t("new.known", { count: sum.known, n: number(sum.known) })].filter(Boolean).join(" "));
    await refresh();
    await this.reload();
  }

  async sendGroups(files, sum) {
    const pace = new Pace(files.length);
    this.drawProgress(pace);
    for (const some of groups(files, GROUP)) {
      const answer = await addGood(this.detector, some, this.sending.signal);
      sum.added += answer.added;
      sum.known += answer.known;
      sum.refused.push(...answer.refused);
      pace.step(some.length);
      this.drawProgress(pace);
    }
  }

  drawProgress(pace) {
    this.progress.hidden = false;
    if (!this.progress.firstChild) {
      replace(this.progress, h("span", {}), h("progress", { "aria-label": t("job.progress") }), button(t("stop"), () => this.sending?.abort(), { class: "small" }));
    }
    const left = pace.left();
    const words = [t("new.sent", { done: number(pace.done), total: number(pace.total) }), left !== null && t("job.left", { time: duration(left) })];
    this.progress.querySelector("span").textContent = words.filter(Boolean).join(" · ");
    Object.assign(this.progress.querySelector("progress"), { max: pace.total, value: pace.done });
  }

  goodTile(image) {
    const word = t(image.excluded ? "new.back" : "new.leave");
    const act = guard(async (event) => {
      await busy(event.currentTarget, () => this.exclude(image.content, !image.excluded));
      await this.reload();
    });
    const inside = [h("img", { src: known(image.content, 256), alt: "", loading: "lazy" }), h("span", { class: "name" }, image.name), h("span", { class: "act" }, word)];
    return h("li", {}, h("button", { type: "button", class: image.excluded ? "tile out" : "tile", "aria-pressed": String(image.excluded), onclick: act }, inside));
  }

  async exclude(content, excluded) {
    await post(of(this.detector, "/good/exclude"), { content, excluded });
    this.changed = true;
    say(t(excluded ? "new.left" : "new.again"));
  }

  drawGoods() {
    const used = this.images.filter((i) => !i.excluded).length;
    const out = this.images.length - used;
    this.total.textContent = t("new.total", { count: used, n: number(used) }) + (out ? ` ${t("new.out", { n: number(out) })}` : "");
    this.hand.querySelector("details").hidden = !this.images.length;
    const more = this.images.length > this.shown && h("li", { class: "wide" }, button(t("new.more"), () => ((this.shown += 240), this.drawGoods())));
    replace(this.grid, this.images.slice(0, this.shown).map((i) => this.goodTile(i)), more);
  }

  drawLearn() {
    const used = this.images.filter((i) => !i.excluded).length;
    const few = used < FEW;
    const options = this.detail.backbones.map((b) => h("option", { value: b.name }, b.ready ? b.title : t("new.fetch", { title: b.title })));
    const pick = h("select", {}, h("option", { value: "" }, t("new.choose")), options);
    pick.value = this.picked ?? "";
    pick.addEventListener("change", () => (this.picked = pick.value));
    this.start = button(t(this.detail.version ? "new.fit.again" : "new.fit"), guard(() => this.fit()), { class: "main", disabled: !used || this.running });
    const advice = few && h("p", { class: "quiet" }, t(used ? "new.few" : "new.none", { n: number(used), count: used }));
    const hint = this.changed && !this.running && h("p", { class: "notice warn" }, icon("warn"), h("span", {}, t("new.stale")));
    replace(this.learn, h("h2", { id: "step-learn" }, h("span", { class: "nth" }, "2"), t("new.learn")), hint, h("div", { class: "row end" }, field(t("new.backbone"), pick), this.start), h("p", { class: "quiet" }, t("new.backbone.note")), advice, this.job);
  }

  async fit() {
    const job = await busy(this.start, () => post(of(this.detector, "/fit"), { backbone: this.picked || null }));
    await this.watch(job);
  }

  async watch(job) {
    // The event of a job may be here before the answer that began it.
    if (this.running) return;
    this.running = true;
    this.start.disabled = true;
    this.job.hidden = false;
    replace(this.job);
    const end = await follow(job, (now) => now.state === "running" && drawJob(this.job, now), this.signal);
    this.running = false;
    if (end.state === "failed") this.drawFailure(end.error);
    else await this.fitted(end.result);
  }

  drawFailure(error) {
    replace(this.job, failed({ message: error.error, hint: error.hint }, guard(() => this.fit())));
    this.start.disabled = false;
  }

  async fitted(result) {
    this.changed = false;
    this.job.hidden = true;
    await refresh();
    await this.reload();
    const seconds = duration(result?.seconds ?? 0);
    showNews(t("new.done", { n: number(result?.good ?? this.detail.good), time: seconds }));
    this.check.scrollIntoView({ block: "nearest" });
  }

  drawCheck() {
    this.check.hidden = !this.detail.version;
    if (this.check.hidden) return;
    const odd = this.detail.oddest.slice(0, 5).map((o) => this.oddTile(o));
    const go = h("a", { class: "button main huge", href: address(this.detector, "live") }, t("new.live"), icon("right"));
    const none = !odd.length && h("p", { class: "quiet" }, t("new.odd.none"));
    replace(this.check, h("h2", { id: "step-check" }, h("span", { class: "nth" }, "3"), t("new.odd")), h("p", { class: "quiet" }, t("new.odd.how")), none, h("ul", { class: "odd" }, odd), h("p", { class: "row" }, go));
  }

  oddTile(odd) {
    const image = this.images.find((i) => i.content === odd.content) ?? { ...odd, excluded: false };
    const item = this.goodTile(image);
    const note = t(odd.stands_out ? "new.odd.out" : "new.odd.usual", { n: number(odd.deviations, 1) });
    item.querySelector(".name").after(h("small", { class: odd.stands_out ? "stands" : "quiet" }, note));
    return item;
  }

  drawAbout() {
    const rows = this.detail.about;
    this.about.hidden = !rows.length;
    const table = h("table", {}, h("thead", {}, h("tr", {}, ["what", "value", "why"].map((k) => h("th", { scope: "col" }, t(`new.about.${k}`))))), h("tbody", {}, rows.map((r) => h("tr", {}, h("th", { scope: "row" }, r.what), h("td", {}, r.value), h("td", { class: "quiet" }, r.why)))));
    replace(this.about, h("h2", { id: "step-about" }, t("new.about")), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "step-about" }, table));
  }

  removal() {
    if (!isAdmin()) return null;
    const typed = h("input", { autocomplete: "off", required: true });
    const go = h("button", { class: "flaw" }, t("new.delete"));
    const send = guard(async (event) => {
      event.preventDefault();
      if (typed.value !== this.detector) throw new Error(t("new.delete.differs"));
      await busy(go, () => remove(of(this.detector)));
      location.hash = "#/";
      await refresh();
    });
    return h("details", { class: "card" }, h("summary", {}, t("new.delete")), h("form", { class: "row end", onsubmit: send }, field(t("new.delete.type", { name: this.detector }), typed), go));
  }
}

export async function show(root, context) {
  const view = new Setup(root, context);
  await view.load();
  view.frame();
  on("job", (job) => job.detector === context.detector && job.kind === "fit" && job.state === "running" && !view.running && guard(() => view.watch(job))(), context.signal);
}
