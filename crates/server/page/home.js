// All detectors, and a new one.

import { post } from "./api.js";
import { busy, field, h, icon } from "./dom.js";
import { number, t } from "./i18n.js";
import { guard } from "./notices.js";
import { on } from "./bus.js";
import { address, mayChange, refresh, store } from "./store.js";

function tile(detector) {
  const state = h("span", { class: `state ${detector.state}` }, t(`state.${detector.state}`));
  const rows = [
    t("home.good", { count: detector.good, n: number(detector.good) }),
    t("home.defects", { count: detector.defects, n: number(detector.defects) }),
    t("home.stopped", { stopped: number(detector.stopped), parts: number(detector.parts) }),
  ];
  const view = detector.state === "ready" ? "live" : "new";
  const pending = detector.pending > 0 && h("p", { class: "badge" }, t("review.pending", { count: detector.pending, n: detector.pending }));
  const inside = [h("h2", {}, detector.name), state, h("ul", {}, rows.map((row) => h("li", {}, row))), pending];
  return h("li", {}, h("a", { class: "card detector", href: address(detector.name, view) }, inside));
}

function creation() {
  const name = h("input", { name: "name", required: true, maxlength: 64, autocomplete: "off", placeholder: t("home.example") });
  const make = h("button", { class: "main" }, icon("plus"), t("home.make"));
  const send = guard(async (event) => {
    event.preventDefault();
    const made = await busy(make, () => post("/api/detectors", { name: name.value.trim() }));
    await refresh();
    location.hash = address(made.name, "new");
  });
  return h("form", { class: "card make", onsubmit: send }, h("h2", {}, t("home.new")), h("p", { class: "quiet" }, t("home.how")), h("div", { class: "row" }, field(t("home.name"), name), make));
}

export async function show(root, { lost, signal }) {
  const list = h("ul", { class: "detectors" });
  const draw = () => list.replaceChildren(...store.detectors.map(tile));
  const gone = lost && h("p", { class: "notice bad", role: "alert" }, icon("warn"), h("span", {}, t("home.gone", { name: lost })));
  root.append(h("h1", { class: store.detectors.length ? "" : "hero" }, t(store.detectors.length ? "home.title" : "home.first")));
  if (gone) root.append(gone);
  root.append(list, mayChange() ? creation() : "");
  draw();
  on("state", draw, signal);
  if (!store.detectors.length) root.querySelector("input")?.focus();
}
