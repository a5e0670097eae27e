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
   * The quantile `q` of groups put together, some of them more than once, between two neighbours by their distance: a
   * function of the groups' indices, each of which must have been added to. Later additions don't change it.
   */
  quantiles(): (indices: ArrayLike<number>, q: number) => number {
    const upTo = this.#counts.map((counts) => {
      let sum = 0;
      return counts.map((count) => {
        sum += count;
        return sum;
      });
    });
    return (indices, q) => {
      // How many numbers lie in bins up to this one.
      const below = (bin: number): number => {
        let sum = 0;
        if (bin >= 0) for (let i = 0; i < indices.length; i++) sum += upTo[indices[i]!]![bin]!;
        return sum;
      };
      // The number with as many smaller ones, as if those of a bin were evenly spread in it.
      const ranked = (rank: number): number => {
        let [first, last] = [0, BINS - 1];
        while (first < last) {
          const middle = (first + last) >> 1;
          if (below(middle) > rank) last = middle;
          else first = middle + 1;
        }
        if (first === PER_SIGN) return 0;
        const before = below(first - 1);
        const within = (rank - before + 0.5) / (below(first) - before);
        return edges[first]! + (edges[first + 1]! - edges[first]!) * within;
      };
      const place = q * (below(BINS - 1) - 1);
      const lower = ranked(Math.floor(place));
      return place === Math.floor(place)
        ? lower
        : lower + (ranked(Math.ceil(place)) - lower) * (place - Math.floor(place));
    };
  }
}

function binOf(value: number): number {
  const magnitude = Math.abs(value);
  if (magnitude < 2 ** LOWEST) return PER_SIGN;
  const n = Math.min(PER_SIGN - 1, Math.floor((Math.log2(magnitude) - LOWEST) * PER_OCTAVE));
  return value < 0 ? PER_SIGN - 1 - n : PER_SIGN + 1 + n;
}
