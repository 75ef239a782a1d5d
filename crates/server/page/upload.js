// Files from the visitor: dropped folders, chosen files, so many at once.

import { h, icon } from "./dom.js";
import { t } from "./i18n.js";

const IMAGE = /\.(png|jpe?g|bmp|tiff?|webp|gif|ppm|pgm)$/i;

const isImage = (file) => IMAGE.test(file.name) || file.type.startsWith("image/");

function entriesIn(reader) {
  return new Promise((done, fail) => reader.readEntries(done, fail));
}

async function walk(entry) {
  if (entry.isFile) return [await new Promise((done, fail) => entry.file(done, fail))];
  const reader = entry.createReader();
  const found = [];
  // A reader hands out a hundred entries at most each time.
  for (let some = await entriesIn(reader); some.length; some = await entriesIn(reader)) {
    for (const inner of some) found.push(...(await walk(inner)));
  }
  return found;
}

/** All images in what was dropped, folders opened, in the order of their names. */
export async function dropped(transfer) {
  const entries = [...transfer.items].filter((i) => i.kind === "file").map((i) => i.webkitGetAsEntry?.() ?? null);
  const plain = [...transfer.files];
  if (!entries.length || entries.some((e) => e === null)) return plain.filter(isImage);
  const found = await Promise.all(entries.map(walk));
  return sorted(found.flat().filter(isImage));
}

const sorted = (files) => files.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));

/** Makes an element a place to drop images on. */
export function dropPlace(element, take, signal) {
  let deep = 0;
  const mark = (by) => element.classList.toggle("over", (deep = Math.max(0, deep + by)) > 0);
  const hear = (kind, call) => element.addEventListener(kind, call, { signal });
  hear("dragenter", () => mark(1));
  hear("dragleave", () => mark(-1));
  hear("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  hear("drop", async (event) => {
    event.preventDefault();
    mark(-deep);
    take(await dropped(event.dataTransfer));
  });
}

function chooser(label, symbol, take, folder) {
  const change = (event) => {
    const files = sorted([...event.target.files].filter(isImage));
    event.target.value = "";
    take(files);
  };
  const input = h("input", { type: "file", multiple: true, class: "unseen", webkitdirectory: folder, accept: folder ? null : "image/*,.tif,.tiff,.bmp", onchange: change });
  return h("label", { class: "button" }, input, icon(symbol), h("span", {}, label));
}

export const chooseFiles = (take) => chooser(t("upload.files"), "plus", take, false);
export const chooseFolder = (take) => chooser(t("upload.folder"), "folder", take, true);

/** Empties a queue, `limit` items at a time; what joins it meanwhile is worked on too. */
export async function drain(queue, limit, work) {
  const worker = async () => {
    while (queue.length) await work(queue.shift());
  };
  await Promise.all(Array.from({ length: limit }, worker));
}

export function groups(items, size) {
  const found = [];
  for (let at = 0; at < items.length; at += size) found.push(items.slice(at, at + size));
  return found;
}

/** Tells how long the rest takes at the pace so far. */
export class Pace {
  constructor(total) {
    this.total = total;
    this.done = 0;
    this.start = performance.now();
  }

  step(by = 1) {
    this.done += by;
  }

  left() {
    if (!this.done) return null;
    return ((performance.now() - this.start) / 1000 / this.done) * (this.total - this.done);
  }
}
