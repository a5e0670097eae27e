/** Bins for each factor of 2 in magnitude. */
const PER_OCTAVE = 64;
/** Magnitudes below 2^LOWEST count as 0, those above 2^HIGHEST as that. */
const LOWEST = -30;
const HIGHEST = 20;
const PER_SIGN = (HIGHEST - LOWEST) * PER_OCTAVE;
const BINS = 2 * PER_SIGN + 1;

/** [BINS + 1] where bins begin and end, ascending: negative numbers, a bin around 0, positive ones. */
const edges = Float64Array.from({ length: BINS + 1 }, (_, i) => {
  const magnitude = (n: number) => 2 ** (LOWEST + n / PER_OCTAVE);
  return i <= PER_SIGN ? -magnitude(PER_SIGN - i) : magnitude(i - PER_SIGN - 1);
});

/**
 * Counts of numbers by their size, a histogram for each group: 64 bins a factor of 2, so that a quantile is off by no
 * more than 1.1 % of its magnitude (2^(1/64) - 1), 1e-9 near 0. A group takes 26 kB.
 */
export class GroupedHistogram {
  readonly #counts: Uint32Array[] = [];

  add(group: number, value: number): void {
    this.#counts[group] ??= new Uint32Array(BINS);
    this.#counts[group][binOf(value)]!++;
  }

  /**
   * Quantiles of groups put together, some of them more than once, each between two neighbours by their distance: a function of
   * the groups' indices, each of which must have been added to. Later additions don't change it.
   */
  quantiles(qs: readonly number[]): (indices: ArrayLike<number>) => number[] {
    const used: number[] = [];
    for (let bin = 0; bin < BINS; bin++) if (this.#counts.some((counts) => counts[bin]! > 0)) used.push(bin);
    // Of most groups few bins are used.
    const groups = this.#counts.map((counts) => {
      const own = Int32Array.from(used.keys()).filter((b) => counts[used[b]!]! > 0);
      return { bins: own, counts: Float64Array.from(own, (b) => counts[used[b]!]!) };
    });
    const times = new Float64Array(groups.length);
    /** How many numbers of the groups together lie in used bins up to each. */
    const upTo = new Float64Array(used.length);
    // The number with as many smaller ones, as if those of a bin were evenly spread in it.
    const ranked = (rank: number): number => {
      let [first, last] = [0, used.length - 1];
      while (first < last) {
        const middle = (first + last) >> 1;
        if (upTo[middle]! > rank) last = middle;
        else first = middle + 1;
      }
      const bin = used[first]!;
      if (bin === PER_SIGN) return 0;
      const before = first === 0 ? 0 : upTo[first - 1]!;
      const within = (rank - before + 0.5) / (upTo[first]! - before);
      return edges[bin]! + (edges[bin + 1]! - edges[bin]!) * within;
    };
    return (indices) => {
      times.fill(0);
      for (let i = 0; i < indices.length; i++) times[indices[i]!]!++;
      upTo.fill(0);
      for (const [g, { bins, counts }] of groups.entries()) {
        const weight = times[g]!;
        if (weight === 0) continue;
        for (let i = 0; i < bins.length; i++) upTo[bins[i]!]! += weight * counts[i]!;
      }
      for (let b = 1; b < upTo.length; b++) upTo[b]! += upTo[b - 1]!;
      return qs.map((q) => {
        const place = q * (upTo.at(-1)! - 1);
        const lower = ranked(Math.floor(place));
        return place === Math.floor(place)
          ? lower
          : lower + (ranked(Math.ceil(place)) - lower) * (place - Math.floor(place));
      });
    };
  }
}

function binOf(value: number): number {
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** LOWEST) return PER_SIGN;
  const n = Math.min(PER_SIGN - 1, Math.floor((Math.log2(magnitude) - LOWEST) * PER_OCTAVE));
  return value < 0 ? PER_SIGN - 1 - n : PER_SIGN + 1 + n;
}
