/**
 * The least of some values such that the weights of all values up to it are at least `target`; the greatest where that is
 * more than all weights, NaN of no values. Reorders both arrays; expected time is linear (quickselect with pivots that
 * depend on nothing but the number of values).
 */
export function selectByWeight(values: Float64Array, weights: Float64Array, target: number): number {
  let [low, high] = [0, values.length];
  let below = 0;
  let found = Number.NaN;
  let random = high;
  while (low < high) {
    random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
    const pivot = values[low + (random % (high - low))]!;
    let [less, greater] = [low, high];
    let [lessWeight, equalWeight] = [0, 0];
    for (let i = low; i < greater; ) {
      const value = values[i]!;
      const weight = weights[i]!;
      if (value > pivot) {
        greater--;
        values[i] = values[greater]!;
        weights[i] = weights[greater]!;
        values[greater] = value;
        weights[greater] = weight;
        continue;
      }
      if (value < pivot) {
        lessWeight += weight;
        values[i] = values[less]!;
        weights[i] = weights[less]!;
        values[less] = value;
        weights[less] = weight;
        less++;
      } else {
        equalWeight += weight;
      }
      i++;
    }
    if (less > low && below + lessWeight >= target) {
      high = less;
    } else {
      found = pivot;
      below += lessWeight + equalWeight;
      if (below >= target) return found;
      low = greater;
    }
  }
  return found;
}

/** The value that halves the weights; NaN of none. Reorders both arrays. */
export function weightedMedian(values: Float64Array, weights: Float64Array): number {
  let total = 0;
  for (let i = 0; i < weights.length; i++) total += weights[i]!;
  return selectByWeight(values, weights, total / 2);
}

/** The value that stands at place `k`, from 0, once they are sorted. Reorders them. */
export function nth(values: Float64Array, k: number): number {
  return selectByWeight(values, new Float64Array(values.length).fill(1), k + 1);
}
