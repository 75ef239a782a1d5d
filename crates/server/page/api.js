// Calls to the server. An error carries what to do about it.

export class Trouble extends Error {
  constructor(status, text, hint) {
    super(text);
    this.status = status;
    this.hint = hint ?? null;
  }
}

/** Called when the server asks for a log-in. */
let onLogin = () => {};
let token = "local";

export function whenLoginNeeded(call) {
  onLogin = call;
}

export function setToken(csrf) {
  token = csrf;
}

async function trouble(answer) {
  let said = {};
  try {
    said = await answer.json();
  } catch {
    said = { error: `${answer.status} ${answer.statusText}` };
  }
  const found = new Trouble(answer.status, said.error ?? `${answer.status} ${answer.statusText}`, said.hint);
  const wait = Number(answer.headers.get("Retry-After"));
  found.after = Number.isFinite(wait) && wait > 0 ? wait : 1;
  return found;
}

async function send(method, path, { body, type, signal } = {}) {
  const headers = {};
  if (method !== "GET") headers["X-Flawtune"] = token;
  if (type) headers["Content-Type"] = type;
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, cache: "no-store" });
  } catch (fault) {
    if (fault.name === "AbortError") throw fault;
    throw new Trouble(0, "offline", null);
  }
  if (answer.status === 401 && path !== "/api/login") onLogin();
  if (!answer.ok) throw await trouble(answer);
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

const json = (value) => ({ body: JSON.stringify(value ?? {}), type: "application/json" });

export function query(values) {
  const given = Object.entries(values).filter(([, value]) => value !== undefined && value !== null);
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

export const get = (path, options) => send("GET", path, options);
export const post = (path, value, options) => send("POST", path, { ...json(value), ...options });
export const remove = (path) => send("DELETE", path);

/** The address of a detector's part of the interface. */
export const of = (detector, rest = "") => `/api/detectors/${encodeURIComponent(detector)}${rest}`;

export const picture = (part, max) => `/api/parts/${part.part}/picture?max=${max}`;
export const map = (part, max) => `/api/parts/${part.part}/map?max=${max}`;
export const known = (content, max) => `/api/images/${content}/picture?max=${max}`;

export function addGood(detector, files, signal) {
  const form = new FormData();
  for (const file of files) form.append("image", file, file.name);
  return send("POST", of(detector, "/good"), { body: form, signal });
}

export const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

/** Has one image judged; waits and tries again where the server has too much to do. */
export async function predict(detector, file, signal) {
  const path = of(detector, `/predict${query({ name: file.name })}`);
  for (;;) {
    try {
      const type = file.type && !file.type.startsWith("multipart") ? file.type : "application/octet-stream";
      const answer = await send("POST", path, { body: file, type, signal });
      return answer.results[0];
    } catch (fault) {
      if (fault.status !== 429) throw fault;
      await sleep(fault.after);
      signal?.throwIfAborted();
    }
  }
}
