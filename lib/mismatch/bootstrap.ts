import { checkInteger } from '../errors.js';
import { CounterRandom } from '../random.js';

/** An estimate with the interval that holds 95 % of the resampled ones. */
export interface Interval {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

const STREAM = 0x626f6f74;
const RESAMPLES = 1000;

/**
 * A bootstrap interval (Efron 1979): the statistic of `count` independent items, and its 2.5 % and 97.5 % quantiles over
 * 1,000 draws of as many items with replacement. `statistic` gets the indices of the items, some of them more than once.
 */
export function bootstrap(count: number, statistic: (indices: Int32Array) => number, seed: number): Interval {
  return bootstrapEach(count, (indices) => [statistic(indices)], seed)[0]!;
}

/** The same of several statistics, which are computed together of each draw. */
export function bootstrapEach(
  count: number,
  statistics: (indices: Int32Array) => readonly number[],
  seed: number,
): Interval[] {
  checkInteger('bootstrap', 'count', count, 1);
  const values = statistics(Int32Array.from({ length: count }, (_, i) => i));
  const drawn = values.map(() => new Float64Array(RESAMPLES));
  const indices = new Int32Array(count);
  for (let k = 0; k < RESAMPLES; k++) {
    const random = new CounterRandom(seed, STREAM, k);
    for (let i = 0; i < count; i++) indices[i] = random.integer(count);
    for (const [j, value] of statistics(indices).entries()) drawn[j]![k] = value;
  }
  return values.map((value, j) => {
    // A draw that leaves the statistic undefined says nothing.
    const defined = drawn[j]!.filter((other) => !Number.isNaN(other)).sort();
    const at = (q: number) =>
      defined.length === 0 ? Number.NaN : defined[Math.round(q * (defined.length - 1))]!;
    return { value, low: at(0.025), high: at(0.975) };
  });
}
