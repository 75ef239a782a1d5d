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

export function bins(scores, low, high, count) {
  const found = new Array(count).fill(0);
  const step = (high - low) / count || 1;
  for (const score of scores) {
    found[Math.min(count - 1, Math.max(0, Math.floor((score - low) / step)))] += 1;
  }
  return found;
}
