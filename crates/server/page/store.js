// What the page knows of the server: who is logged in, which detectors there are.

import { get, post, setToken } from "./api.js";
import { bus } from "./bus.js";

export const store = { version: "", user: null, login: false, detectors: [] };

export function take(state) {
  Object.assign(store, state);
  setToken(state.csrf);
  bus.dispatchEvent(new CustomEvent("state", { detail: store }));
}

export async function refresh() {
  take(await get("/api/state"));
}

export async function logIn(name, password) {
  take(await post("/api/login", { name, password }));
}

export async function logOut() {
  await post("/api/logout");
  await refresh();
}

export const mustLogIn = () => store.login && !store.user;

/** On a machine where nobody logs in, whoever sits there may do all. */
export const isAdmin = () => !store.user || store.user.role === "admin";

/** Operators watch and judge; what changes a detector is left to engineers. */
export const mayChange = () => store.user?.role !== "operator";

export const summary = (name) => store.detectors.find((d) => d.name === name);

/** The address of a view: `#/<detector>/<view>`. */
export const address = (name, view) => `#/${encodeURIComponent(name)}/${view}`;
