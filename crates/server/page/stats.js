// The counting behind the sentences.

const Z = 1.959964;

/** Wilson's 95 % interval of `hits` of `all`, as shares. */
export function wilson(hits, all) {
  if (all === 0) return [0, 1];
  const share = hits / all;
  const wide = (Z * Z) / all;
  const middle = (share + wide / 2) / (1 + wide);
  const half = (Z / (1 + wide)) * Math.sqrt((share * (1 - share)) / all + wide / (4 * all));
  return [hits === 0 ? 0 : Math.max(0, middle - half), hits === all ? 1 : Math.min(1, middle + half)];
}

/** How many scores a threshold stops: those from it on. */
export function stopped(scores, threshold) {
  return scores.filter((score) => score >= threshold).length;
}

/**
 * A scale that is even among good scores and ever denser far from them: a flaw may score fifty times as high, and the
 * place where a threshold belongs must still be wide enough to be seen.
 */
export function bent(good, all) {
  const sorted = [...(good.length > 3 ? good : all)].sort((a, b) => a - b);
  const at = (share) => sorted[Math.floor(share * (sorted.length - 1))];
  const middle = at(0.5);
  const spread = at(0.95) - at(0.05) || Math.abs(middle) || 1;
  return { to: (score) => Math.asinh((score - middle) / spread), from: (place) => middle + Math.sinh(place) * spread };
}

export function bins(scores, low, high, count) {
  const found = new Array(count).fill(0);
  const step = (high - low) / count || 1;
  for (const score of scores) {
    found[Math.min(count - 1, Math.max(0, Math.floor((score - low) / step)))] += 1;
  }
  return found;
}
