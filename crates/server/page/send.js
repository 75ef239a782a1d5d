// Images on their way to be judged: progress, what was refused, a way to stop.

import { predict } from "./api.js";
import { button, h, replace } from "./dom.js";
import { duration, number, t } from "./i18n.js";
import { explain, showError } from "./notices.js";
import { drain, Pace } from "./upload.js";

const AT_ONCE = 3;
const SHOWN = 20;

function refusedList(refused) {
  const rows = refused.slice(0, SHOWN).map((r) => h("li", {}, h("strong", {}, r.name), ` – ${r.error}`, r.hint && h("span", { class: "hint" }, r.hint)));
  const more = refused.length > SHOWN && h("li", {}, t("upload.more", { n: number(refused.length - SHOWN) }));
  return h("ul", { class: "refused" }, rows, more);
}

export function showRefused(refused) {
  if (refused.length) showError(new Error(t("upload.refused", { count: refused.length, n: number(refused.length) })), refusedList(refused));
}

export class Sender {
  constructor(detector, arrived, signal) {
    this.detector = detector;
    this.arrived = arrived;
    this.signal = signal;
    this.element = h("div", { class: "sending", role: "status", hidden: true });
    this.waiting = [];
    this.pace = null;
  }

  draw() {
    const { done, total } = this.pace;
    const left = this.pace.left();
    const text = [t("live.sent", { done: number(done), total: number(total) }), left !== null && t("job.left", { time: duration(left) })];
    if (!this.element.firstChild) {
      replace(this.element, h("span", {}), h("progress", { "aria-label": t("job.progress") }), button(t("stop"), () => this.stop.abort(), { class: "small" }));
    }
    const bar = this.element.querySelector("progress");
    bar.max = total;
    bar.value = done;
    this.element.querySelector("span").textContent = text.filter(Boolean).join(" · ");
  }

  async one(file) {
    if (this.stop.signal.aborted) return;
    try {
      const found = await predict(this.detector, file, this.stop.signal);
      if (found.error) this.refused.push(found);
      else this.arrived(found);
    } catch (fault) {
      if (fault.name === "AbortError") return;
      if (fault.status === 401 || fault.status === 403 || fault.status === 0) this.stop.abort();
      const { text, hint } = explain(fault);
      this.refused.push({ name: file.name, error: text, hint });
    }
    this.pace.step();
    this.draw();
  }

  /** More files may come while others are on their way: they join the queue. */
  async send(files) {
    if (!files.length) {
      showError(new Error(t("upload.none")));
      return;
    }
    if (this.pace) {
      this.pace.total += files.length;
      this.waiting.push(...files);
      this.draw();
      return;
    }
    this.stop = new AbortController();
    this.signal.addEventListener("abort", () => this.stop.abort());
    this.refused = [];
    this.waiting = [...files];
    this.pace = new Pace(files.length);
    this.element.hidden = false;
    this.draw();
    await drain(this.waiting, AT_ONCE, (file) => this.one(file));
    this.end();
  }

  end() {
    this.pace = null;
    this.element.hidden = true;
    showRefused(this.refused);
  }
}
