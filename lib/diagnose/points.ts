import { eachCounted } from './counted.js';
import type { PlotBin, PlotPoints } from './diagnosis.js';
import type { Pair } from './record.js';

const MOST_TOKENS = 2000;
const MOST_RESPONSES = 400;
/** Multiples of this, modulo 1, are spread as evenly as can be. */
const GOLDEN = (Math.sqrt(5) - 1) / 2;

/**
 * At most `most` items of a stream of any length, evenly spread. Item i stays while the fraction of i times the golden
 * ratio is below a threshold, halved when there are too many: unlike every second, fourth, ... item, they don't fall on
 * the same positions of responses that are all cut at a power of 2.
 */
class EvenSample<T> {
  readonly #most: number;
  #kept: { readonly rank: number; readonly item: T }[] = [];
  #threshold = 1;
  #next = 0;

  constructor(most: number) {
    this.#most = most;
  }

  add(make: () => T): void {
    const rank = (this.#next++ * GOLDEN) % 1;
    if (rank >= this.#threshold) return;
    if (this.#kept.length === this.#most) {
      this.#threshold /= 2;
      this.#kept = this.#kept.filter((entry) => entry.rank < this.#threshold);
      if (rank >= this.#threshold) return;
    }
    this.#kept.push({ rank, item: make() });
  }

  get items(): T[] {
    return this.#kept.map(({ item }) => item);
  }
}

/** Mean |log pi - log mu| in bins that grow with what they are of. */
class Bins {
  readonly #tokens: number[] = [];
  readonly #sums: number[] = [];
  readonly #edges: readonly number[];

  /** @param edges ascending; what lies below the first counts in the first bin, beyond the last in the last */
  constructor(edges: readonly number[]) {
    this.#edges = edges;
  }

  add(value: number, distance: number): void {
    let [first, last] = [0, this.#edges.length - 2];
    while (first < last) {
      const middle = (first + last + 1) >> 1;
      if (value >= this.#edges[middle]!) first = middle;
      else last = middle - 1;
    }
    this.#tokens[first] = (this.#tokens[first] ?? 0) + 1;
    this.#sums[first] = (this.#sums[first] ?? 0) + distance;
  }

  result(): PlotBin[] {
    return this.#edges.slice(1).flatMap((to, b) => {
      const tokens = this.#tokens[b] ?? 0;
      return tokens === 0 ? [] : [{ from: this.#edges[b]!, to, tokens, meanAbs: this.#sums[b]! / tokens }];
    });
  }
}

/** 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, ... */
const positionEdges = [0, 1, ...Array.from({ length: 30 }, (_, k) => [2 ** (k + 1), 3 * 2 ** k]).flat()];
/** Powers of 2 of nats, from where a token is all but certain. */
const surpriseEdges = Array.from({ length: 28 }, (_, k) => 2 ** (k - 20));

/** Gathers what charts show from a stream of responses; the same stream gives the same points. */
export class PointCollector {
  readonly #tokens = new EvenSample<PlotPoints['tokens'][number]>(MOST_TOKENS);
  readonly #responses = new EvenSample<PlotPoints['responses'][number]>(MOST_RESPONSES);
  readonly #byPosition = new Bins(positionEdges);
  readonly #bySurprise = new Bins(surpriseEdges);

  add(pair: Pair): void {
    let tokens = 0;
    let logRatio = 0;
    eachCounted(pair, (logMu, logPi, position) => {
      const distance = Math.abs(logPi - logMu);
      this.#tokens.add(() => [logMu, logPi, position, pair.index]);
      this.#byPosition.add(position, distance);
      this.#bySurprise.add(-logMu, distance);
      tokens++;
      logRatio += logPi - logMu;
    });
    if (tokens > 0) this.#responses.add(() => [tokens, logRatio]);
  }

  result(): PlotPoints {
    return {
      tokens: this.#tokens.items,
      responses: this.#responses.items,
      byPosition: this.#byPosition.result(),
      bySurprise: this.#bySurprise.result(),
    };
  }
}
