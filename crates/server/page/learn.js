// What was judged and not learned yet; learning it; what it changed, in counts.

import { of, post } from "./api.js";
import { on } from "./bus.js";
import { busy, button, h, icon, replace, say } from "./dom.js";
import { number, t } from "./i18n.js";
import { drawJob, follow } from "./job.js";
import { explain, guard } from "./notices.js";
import { mayChange, refresh, summary } from "./store.js";

export function tally(before, after) {
  const goods = t("learn.goods", { before: number(before.stopped), good: number(after.good), after: number(after.stopped) });
  if (!after.defects) return [goods];
  return [goods, t("learn.flaws", { before: number(before.found), defects: number(after.defects), after: number(after.found) })];
}

export class LearnBar {
  constructor(detector, signal, learned) {
    this.detector = detector;
    this.signal = signal;
    this.learned = learned;
    this.words = h("strong", { role: "status" });
    this.start = button(t("learn.start"), guard(() => this.learn(false)), { class: "main" });
    this.job = h("div", { class: "job", hidden: true });
    this.result = h("div", { class: "result", role: "status" });
    this.element = h("section", { class: "learn", "aria-label": t("learn.title") }, h("div", { class: "row between" }, this.words, this.start), this.job, this.result);
    this.draw();
    on("state", () => this.draw(), signal);
    const running = summary(detector)?.job;
    if (running?.state === "running") guard(() => this.watch(running))();
  }

  draw() {
    const pending = summary(this.detector)?.pending ?? 0;
    this.words.textContent = t(pending ? "review.pending" : "learn.nothing", { count: pending, n: number(pending) });
    this.start.disabled = !pending || this.running;
    this.start.hidden = !mayChange();
    this.element.classList.toggle("waits", pending > 0);
  }

  async learn(force) {
    const job = await busy(this.start, () => post(of(this.detector, "/learn"), { force }));
    await this.watch(job);
  }

  async watch(job) {
    if (this.running) return;
    this.running = true;
    this.start.disabled = true;
    this.job.hidden = false;
    replace(this.job);
    replace(this.result);
    try {
      this.drawEnd(await follow(job, (now) => now.state === "running" && drawJob(this.job, now), this.signal));
    } finally {
      this.running = false;
      this.job.hidden = true;
      await refresh();
    }
    this.learned();
  }

  drawEnd(job) {
    if (job.state === "failed") this.drawFailure(job.error);
    else if (job.kind === "learn") this.drawResult(job.result);
  }

  drawResult({ version, before, after }) {
    const lines = tally(before, after).map((line) => h("li", {}, line));
    replace(this.result, h("div", { class: "notice fine" }, icon("check"), h("div", {}, h("strong", {}, t("learn.done", { version })), h("ul", {}, lines))));
    say(`${t("learn.done", { version })} ${tally(before, after).join(" ")}`);
  }

  drawFailure(error) {
    const { text, hint } = explain({ message: error.error, hint: error.hint });
    const force = error.worse && mayChange() && button(t("learn.force"), guard(() => this.learn(true)));
    const again = !error.worse && button(t("again"), guard(() => this.learn(false)));
    const words = h("div", {}, h("strong", {}, error.worse ? t("learn.worse") : text), error.worse && h("p", {}, text), hint && h("p", { class: "hint" }, hint), h("p", { class: "row" }, force, again));
    replace(this.result, h("div", { class: `notice ${error.worse ? "warn" : "bad"}`, role: "alert" }, icon("warn"), words));
  }
}
