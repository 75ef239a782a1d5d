// The log-in form.

import { connect } from "./bus.js";
import { busy, field, h } from "./dom.js";
import { t } from "./i18n.js";
import { explain } from "./notices.js";
import { logIn } from "./store.js";

export async function show(root) {
  const name = h("input", { name: "name", autocomplete: "username", required: true, autocapitalize: "none" });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const enter = h("button", { class: "main wide" }, t("login.enter"));
  const wrong = h("p", { class: "wrong", role: "alert" });
  const send = async (event) => {
    event.preventDefault();
    wrong.textContent = "";
    try {
      await busy(enter, () => logIn(name.value.trim(), password.value));
      connect();
    } catch (fault) {
      const { text, hint } = explain(fault);
      wrong.textContent = [text, hint].filter(Boolean).join(" – ");
      password.select();
    }
  };
  const form = h("form", { class: "card narrow", onsubmit: send }, h("h1", {}, t("login.title")), field(t("login.name"), name), field(t("login.password"), password), wrong, enter);
  root.append(form);
  name.focus();
}
