// Starts the page, draws its head and shows the view that the address names.

import { whenLoginNeeded } from "./api.js";
import { bus, connect, connected, disconnect } from "./bus.js";
import { button, h, icon, replace, writing } from "./dom.js";
import { chooseLanguage, t } from "./i18n.js";
import { clearNews, failed, guard, showError } from "./notices.js";
import { address, logOut, mayChange, mustLogIn, refresh, store, summary } from "./store.js";
import { toggleMaps } from "./look.js";
import * as home from "./home.js";
import * as setup from "./new.js";
import * as live from "./live.js";
import * as review from "./review.js";
import * as threshold from "./threshold.js";
import * as history from "./history.js";
import * as login from "./login.js";

const VIEWS = { live, review, threshold, history, new: setup };
let ending = null;
let shown = "";
let broken = false;

/** `#/<detector>/<view>` */
function place() {
  const [name, view] = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return { name: name || null, view: view && view in VIEWS ? view : null };
}

function choose() {
  if (mustLogIn()) return { module: login, key: "login" };
  const { name, view } = place();
  if (!name) return { module: home, key: "home" };
  const found = summary(name);
  if (!found) return { module: home, key: "home", lost: name };
  const wanted = view ?? (found.state === "ready" ? "live" : "new");
  return { module: VIEWS[wanted], key: wanted, name };
}

async function show(force = false) {
  const chosen = choose();
  const key = `${chosen.name ?? chosen.lost ?? ""}/${chosen.key}`;
  if (key === shown && !force && !broken) return;
  broken = false;
  ending?.abort();
  ending = new AbortController();
  const { signal } = ending;
  const moved = shown !== "" && shown !== key;
  shown = key;
  if (moved) clearNews();
  drawHead();
  const root = replace(document.getElementById("view"));
  root.className = `view-${chosen.key}`;
  title(chosen);
  const slow = setTimeout(() => root.childElementCount || root.append(h("p", { class: "quiet loading", role: "status" }, t("loading"))), 400);
  const context = { detector: chosen.name, lost: chosen.lost, signal, again: () => show(true) };
  try {
    await chosen.module.show(root, context);
    if (moved && !signal.aborted && !root.contains(document.activeElement)) root.focus({ preventScroll: true });
  } catch (fault) {
    if (signal.aborted || fault.status === 401) return;
    // Where only the server was away, the view comes when it is back.
    broken = fault.status === 0;
    replace(root, failed(fault, () => show(true)));
  } finally {
    clearTimeout(slow);
    root.querySelector(":scope > .loading")?.remove();
  }
}

function title({ name, key }) {
  const words = [name, t(`view.${key}`), "flawtune"].filter(Boolean);
  document.title = words.join(" · ");
}

function picker(current) {
  const all = store.detectors.map((d) => h("option", { value: d.name, selected: d.name === current }, d.name));
  const change = (event) => {
    const { view } = place();
    const next = summary(event.target.value);
    location.hash = address(next.name, next.state === "ready" ? (view ?? "live") : "new");
  };
  return h("select", { "aria-label": t("head.detector"), onchange: change }, all);
}

function links(name, current) {
  const of = summary(name);
  const link = (view) => {
    const count = view === "review" && of.pending > 0 && h("span", { class: "badge", title: t("review.pending", { count: of.pending }) }, of.pending);
    const here = view === current ? "page" : null;
    return h("li", {}, h("a", { href: address(name, view), "aria-current": here }, t(`view.${view}`), count));
  };
  return h("nav", { "aria-label": t("head.views") }, h("ul", {}, Object.keys(VIEWS).filter((v) => v !== "new" || mayChange()).map(link)));
}

function who() {
  if (!store.user) return null;
  const leave = guard(async () => {
    disconnect();
    await logOut();
    await show(true);
  });
  return h("div", { class: "who" }, icon("user"), h("span", {}, store.user.name), button(t("head.logout"), leave, { class: "small" }));
}

function lineState() {
  const up = connected() || mustLogIn();
  const text = h("span", {}, t(up ? "head.up" : "head.lost"));
  return h("p", { id: "line", class: up ? "line up" : "line", role: "status" }, h("span", { class: "dot", "aria-hidden": "true" }), text);
}

function drawHead() {
  const chosen = choose();
  const brand = h("a", { class: "brand", href: "#/", title: t("head.home") }, icon("check"), h("span", {}, "flawtune"));
  const plain = mustLogIn() || !chosen.name;
  const focus = document.activeElement?.closest?.("#top select, #top a")?.getAttribute("href");
  replace(document.getElementById("top"), brand, !plain && picker(chosen.name), !plain && links(chosen.name, chosen.key), h("div", { class: "end" }, lineState(), who()));
  if (focus) document.querySelector(`#top a[href="${CSS.escape(focus)}"]`)?.focus();
}

/** The head and, where a detector came, went or was learned, the view follow the state. */
function followState() {
  bus.addEventListener("state", () => {
    if (mustLogIn()) disconnect();
    drawHead();
    show();
  });
  bus.addEventListener("line", (event) => {
    drawHead();
    if (event.detail.again) refreshSoon();
  });
  for (const kind of ["detectors", "version"]) bus.addEventListener(kind, refreshSoon);
  bus.addEventListener("job", (event) => event.detail.state !== "running" && refreshSoon());
}

let timer = null;
function refreshSoon() {
  clearTimeout(timer);
  timer = setTimeout(() => refresh().catch(() => {}), 250);
}

function keys(event) {
  if (event.key !== "m" || writing(event)) return;
  toggleMaps();
}

async function start() {
  await chooseLanguage();
  document.getElementById("skip").textContent = t("head.skip");
  document.getElementById("skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("view").focus();
  });
  whenLoginNeeded(refreshSoon);
  addEventListener("keydown", keys);
  addEventListener("hashchange", () => show());
  // A file dropped beside the place for it must not replace the page.
  for (const kind of ["dragover", "drop"]) addEventListener(kind, (event) => event.preventDefault());
  addEventListener("unhandledrejection", (event) => showError(event.reason));
  await refresh();
  followState();
  if (!mustLogIn()) connect();
  await show();
}

async function begin() {
  try {
    await start();
  } catch (fault) {
    replace(document.getElementById("view"), failed(fault, () => location.reload()));
  }
}

begin();
