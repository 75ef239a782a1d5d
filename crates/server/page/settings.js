// For those who run the server: who may log in, and who did what.

import { get, post, remove } from "./api.js";
import { busy, button, field, h, replace } from "./dom.js";
import { moment, t } from "./i18n.js";
import { failed, guard, showNews } from "./notices.js";
import { store } from "./store.js";

const ROLES = ["operator", "engineer", "admin"];

function loaded(element, load) {
  const again = async () => {
    try {
      await load();
    } catch (fault) {
      if (fault.name !== "AbortError") replace(element, failed(fault, again));
    }
  };
  again();
  return again;
}

function audit(signal) {
  const box = h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-labelledby": "audit-title" });
  const row = (e) => h("tr", {}, h("td", {}, moment(e.at)), h("td", {}, e.by ?? "–"), h("th", { scope: "row" }, e.action), h("td", { class: "quiet" }, typeof e.detail === "string" ? e.detail : JSON.stringify(e.detail ?? "")));
  const load = async () => {
    const { entries } = await get("/api/audit?limit=200", { signal });
    const heads = ["at", "by", "action", "detail"].map((k) => h("th", { scope: "col" }, t(`audit.${k}`)));
    if (!entries.length) replace(box, h("p", { class: "quiet" }, t("audit.empty")));
    else replace(box, h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, entries.map(row))));
  };
  loaded(box, load);
  return h("section", { class: "card", "aria-labelledby": "audit-title" }, h("h2", { id: "audit-title" }, t("audit.title")), box);
}

function userRow(user, reload) {
  const act = guard(async (event) => {
    if (!confirm(t("users.sure", { name: user.name }))) return;
    await busy(event.currentTarget, () => remove(`/api/users/${encodeURIComponent(user.name)}`));
    showNews(t("users.removed", { name: user.name }));
    await reload();
  });
  const self = store.user?.name === user.name;
  return h("li", { class: "row between" }, h("span", {}, h("b", {}, user.name), " ", h("span", { class: "quiet" }, t(`role.${user.role}`))), button(t("users.remove"), act, { class: "small", disabled: self, "aria-label": t("users.remove.who", { name: user.name }) }));
}

function users(signal) {
  const list = h("ul", { class: "users" });
  const reload = loaded(list, async () => {
    const found = await get("/api/users", { signal });
    replace(list, found.users.map((u) => userRow(u, reload)));
    const open = !found.users.length;
    if (open) replace(list, h("li", { class: "quiet" }, t("users.none")));
    form.hidden = open;
  });
  const name = h("input", { required: true, autocomplete: "off", autocapitalize: "none", maxlength: 64 });
  const password = h("input", { type: "password", required: true, autocomplete: "new-password" });
  const role = h("select", {}, ROLES.map((r) => h("option", { value: r }, t(`role.${r}`))));
  const make = h("button", { class: "main" }, t("users.add"));
  const send = guard(async (event) => {
    event.preventDefault();
    await busy(make, () => post("/api/users", { name: name.value.trim(), password: password.value, role: role.value }));
    event.target.reset();
    await reload();
  });
  const form = h("form", { class: "row end", onsubmit: send }, field(t("login.name"), name), field(t("login.password"), password), field(t("users.role"), role), make);
  return h("section", { class: "card", "aria-labelledby": "users-title" }, h("h2", { id: "users-title" }, t("users.title")), h("p", { class: "quiet" }, t("users.how")), list, form);
}

export function settings(signal) {
  return h("div", {}, users(signal), audit(signal));
}
