// Texts in the reader's language. Keys ending in `.one` serve a count of one.

const KNOWN = ["en", "de"];
let texts = {};
let spare = {};
let language = "en";
let plural = new Intl.PluralRules("en");

async function load(name) {
  const answer = await fetch(`/page/lang/${name}.json`);
  if (!answer.ok) throw new Error(`the texts of the language ${name} did not load (${answer.status})`);
  return answer.json();
}

function wanted() {
  const said = navigator.languages?.length ? navigator.languages : [navigator.language ?? "en"];
  return said.map((l) => l.toLowerCase().split("-")[0]).find((l) => KNOWN.includes(l)) ?? "en";
}

export async function chooseLanguage() {
  spare = await load("en");
  const name = wanted();
  try {
    texts = name === "en" ? spare : await load(name);
    language = name;
  } catch {
    texts = spare;
  }
  plural = new Intl.PluralRules(language);
  document.documentElement.lang = language;
}

/** The text of a key with `{name}` filled in; `count` picks the singular. */
export function t(key, values = {}) {
  const one = values.count !== undefined && plural.select(values.count) === "one";
  const full = one && (`${key}.one` in texts || `${key}.one` in spare) ? `${key}.one` : key;
  const text = texts[full] ?? spare[full] ?? full;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

export function number(value, digits = 0) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  return value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export function score(value) {
  return number(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) < 0.1 ? 4 : 3);
}

/** A share as percent: one digit after the point where it is small or nearly all. */
export function percent(share) {
  const value = share * 100;
  const near = (value > 0 && value < 10) || (value > 99 && value < 100);
  const rounded = near ? Math.round(value * 10) / 10 : Math.round(value);
  return `${rounded.toLocaleString(language)}\u00a0%`;
}

export function clock(at) {
  return new Date(at).toLocaleTimeString(language);
}

export function moment(at) {
  return new Date(at).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

export function duration(seconds) {
  if (seconds < 90) return t("time.seconds", { n: number(Math.max(0, Math.round(seconds))) });
  if (seconds < 5400) return t("time.minutes", { n: number(Math.round(seconds / 60)) });
  return t("time.hours", { n: number(seconds / 3600, 1) });
}
