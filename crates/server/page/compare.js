// "This looks like there, but": the oddest place of a part beside the good place that it was compared with.

import { get, known, picture } from "./api.js";
import { button, busy, h, replace } from "./dom.js";
import { t } from "./i18n.js";
import { guard } from "./notices.js";

const SIDE = 240;
// patches to each side of the one that is compared
const AROUND = 2.5;
const DETAIL = 2048;

function loaded(address) {
  return new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(t("compare.gone")));
    image.src = address;
  });
}

/** A piece of a picture round a place, with a frame about the place itself. */
async function piece(address, size, place, text) {
  const image = await loaded(address);
  const scale = image.naturalWidth / size[1];
  const side = Math.max(place.width, place.height) * (1 + 2 * AROUND) * scale;
  const middle = [(place.left + place.width / 2) * scale, (place.top + place.height / 2) * scale];
  const density = window.devicePixelRatio || 1;
  const canvas = h("canvas", { width: SIDE * density, height: SIDE * density, role: "img", "aria-label": text });
  const pen = canvas.getContext("2d");
  const zoom = (SIDE * density) / side;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, SIDE * density / 2 - middle[0] * zoom, SIDE * density / 2 - middle[1] * zoom, image.naturalWidth * zoom, image.naturalHeight * zoom);
  const frame = [place.width * scale * zoom, place.height * scale * zoom];
  pen.lineWidth = 2 * density;
  for (const [colour, more] of [["#000", 2 * density], ["#fff", 0]]) {
    pen.strokeStyle = colour;
    pen.strokeRect((SIDE * density - frame[0]) / 2 - more, (SIDE * density - frame[1]) / 2 - more, frame[0] + 2 * more, frame[1] + 2 * more);
  }
  return h("figure", {}, canvas, h("figcaption", {}, text));
}

async function compared(part, place) {
  const found = await get(`/api/parts/${part.part}/nearest`);
  const here = await piece(picture(part, DETAIL), part.size, found.here, t("compare.here"));
  if (!found.kept) {
    replace(place, here, h("p", { class: "quiet" }, t("compare.away", { name: found.name })));
    return;
  }
  replace(place, here, await piece(known(found.content, DETAIL), found.size, found.there, t("compare.there")));
}

/** The button, and what it shows. */
export function comparison(part) {
  if (!part.kept) return null;
  const place = h("div", { class: "compared", "aria-live": "polite" });
  const ask = guard((event) => busy(event.currentTarget, () => compared(part, place)));
  return h("div", { class: "compare" }, button(t("compare"), ask, { symbol: "target", key: "c", class: "small comparing" }), place);
}
