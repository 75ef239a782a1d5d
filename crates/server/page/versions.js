// All versions of a detector, and the way back to one.

import { get, of, post } from "./api.js";
import { on } from "./bus.js";
import { busy, button, h, replace } from "./dom.js";
import { moment, score, t } from "./i18n.js";
import { guard, showNews } from "./notices.js";
import { tally } from "./learn.js";
import { mayChange, refresh } from "./store.js";

export async function rollBack(detector, version) {
  await post(of(detector, "/rollback"), { version });
  showNews(t("versions.rolled", { version }));
  await refresh();
}

function row(detector, version, current, reload) {
  const back = guard(async (event) => {
    await busy(event.currentTarget, () => rollBack(detector, version.version));
    await reload();
  });
  const label = t("versions.back.to", { version: version.version });
  const act = current ? h("strong", { class: "chip judged good" }, t("versions.current")) : mayChange() && button(t("versions.back"), back, { class: "small", "aria-label": label });
  const change = version.before && version.after ? h("small", { class: "quiet" }, tally(version.before, version.after).join(" ")) : null;
  const made = [t(`versions.${version.kind}`), version.note].filter(Boolean).join(" – ");
  return h("li", { class: current ? "current" : "", "data-version": version.version }, [
    h("b", { class: "nth" }, String(version.version)),
    h("div", { class: "grow" }, h("span", {}, made), h("small", { class: "quiet" }, [moment(version.at), version.by, t("versions.holds", { good: version.good, defects: version.defects, threshold: score(version.threshold) })].filter(Boolean).join(" · ")), change),
    act,
  ]);
}

/** The list, kept up to date. */
export function versionList(detector, signal) {
  const list = h("ol", { class: "versions" });
  const load = async () => {
    const { current, versions } = await get(of(detector, "/versions"), { signal });
    const newest = [...versions].sort((a, b) => b.version - a.version);
    replace(list, newest.map((v) => row(detector, v, v.version === current, load)));
    if (!newest.length) replace(list, h("li", { class: "quiet" }, t("versions.none")));
  };
  on("version", (event) => event.detector === detector && guard(load)(), signal);
  guard(load)();
  return h("details", { class: "card", open: true }, h("summary", {}, h("h2", {}, t("versions.title"))), list);
}
