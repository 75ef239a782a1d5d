// A running job: stage, bar, time left.

import { get } from "./api.js";
import { bus } from "./bus.js";
import { h, replace } from "./dom.js";
import { duration, number, t } from "./i18n.js";

const POLL = 700;

/** Tells `update` of each step until the job is done or failed; the last state is the promise's value. */
export function follow(job, update, signal) {
  return new Promise((resolve, reject) => {
    let timer;
    const end = () => {
      clearTimeout(timer);
      bus.removeEventListener("job", heard);
    };
    const take = (next) => {
      update(next);
      if (next.state === "running") return false;
      end();
      resolve(next);
      return true;
    };
    const heard = (event) => event.detail.id === job.id && take(event.detail);
    const poll = async () => {
      try {
        if (!take(await get(`/api/jobs/${job.id}`, { signal }))) timer = setTimeout(poll, POLL);
      } catch (fault) {
        if (fault.status === 0) timer = setTimeout(poll, 2000);
        else end(), reject(fault);
      }
    };
    signal?.addEventListener("abort", () => (end(), reject(signal.reason)));
    bus.addEventListener("job", heard);
    if (!take(job)) timer = setTimeout(poll, POLL);
  });
}

function facts(job) {
  const all = [];
  if (job.total > 0) all.push(t("job.of", { done: number(job.done), total: number(job.total) }));
  if (job.eta !== null && job.eta !== undefined) all.push(t("job.left", { time: duration(job.eta) }));
  else all.push(t("job.since", { time: duration(job.seconds ?? 0) }));
  return all.join(" · ");
}

/** Draws the job into an element that stays. */
export function drawJob(element, job) {
  const stage = job.stage || t(job.kind === "fit" ? "job.fit" : "job.learn");
  let bar = element.querySelector("progress");
  if (!bar) {
    bar = h("progress", { "aria-label": t("job.progress") });
    replace(element, h("p", { class: "row", role: "status" }, h("strong", {}), h("span", { class: "quiet" })), bar);
  }
  if (job.total > 0) {
    bar.max = job.total;
    bar.value = job.done;
  } else bar.removeAttribute("value");
  element.querySelector("strong").textContent = stage;
  element.querySelector(".quiet").textContent = facts(job);
}
