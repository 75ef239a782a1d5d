// Small drawings in SVG. Every chart stands beside its numbers in words or a table.

import { s } from "./dom.js";
import { bins } from "./stats.js";

const COUNT = 48;
const WIDE = 960;
const HALF = 110;

function bars(counts, most, up) {
  const width = WIDE / COUNT;
  return counts.map((count, at) => {
    const height = count ? Math.max(3, (Math.sqrt(count) / Math.sqrt(most)) * (HALF - 6)) : 0;
    return s("rect", { class: up ? "good" : "flaw", x: at * width + 1, width: width - 2, y: up ? HALF - height : HALF, height });
  });
}

/** Good scores upwards, those of flaws downwards, and a line that moves. Heights grow with the root of the count. */
export function histogram(good, flaw, low, high, label) {
  const above = bins(good, low, high, COUNT);
  const below = bins(flaw, low, high, COUNT);
  const most = Math.max(1, ...above, ...below);
  const line = s("line", { class: "cut", y1: 0, y2: HALF * 2 });
  const past = s("rect", { class: "past", y: 0, height: HALF * 2 });
  const axis = s("line", { class: "axis", x1: 0, x2: WIDE, y1: HALF, y2: HALF });
  const drawing = s("svg", { class: "histogram", viewBox: `0 0 ${WIDE} ${HALF * 2}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, past, bars(above, most, true), bars(below, most, false), axis, line);
  const move = (value) => {
    const x = Math.max(0, Math.min(WIDE, ((value - low) / (high - low || 1)) * WIDE));
    for (const [name, at] of [["x1", x], ["x2", x]]) line.setAttribute(name, at);
    past.setAttribute("x", x);
    past.setAttribute("width", WIDE - x);
  };
  return { drawing, move };
}

/** Columns over time; each is a list of `{class, value}` from the bottom up;
 * a line may mark a limit. */
export function columns(data, most, label, title, limit) {
  const height = 160;
  const width = 1000 / Math.max(data.length, 1);
  const marks = data.map((column, at) => {
    let y = height;
    const parts = column.map(({ kind, value }) => {
      const tall = (value / (most || 1)) * (height - 4);
      y -= tall;
      return s("rect", { class: kind, x: at * width + width * 0.08, width: Math.max(0.5, width * 0.84), y, height: tall });
    });
    return s("g", {}, s("title", {}, title(at)), s("rect", { class: "catch", x: at * width, width, y: 0, height }), parts);
  });
  const level = height - (limit / (most || 1)) * (height - 4);
  const mark = limit !== undefined && s("line", { class: "limit", x1: 0, x2: 1000, y1: level, y2: level });
  return s("svg", { class: "columns", viewBox: `0 0 1000 ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, marks, mark, s("line", { class: "axis", x1: 0, x2: 1000, y1: height, y2: height }));
}
