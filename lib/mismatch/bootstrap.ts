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
  checkInteger('bootstrap', 'count', count, 1);
  const value = statistic(allOf(count));
  const drawn = new Float64Array(RESAMPLES);
  const indices = new Int32Array(count);
  for (let k = 0; k < RESAMPLES; k++) drawn[k] = statistic(draw(indices, seed, k));
  return intervalOf(value, drawn);
}

/** The same of several statistics, which are computed together of each draw; `pause` is awaited between draws. */
export async function bootstrapEach(
  count: number,
  statistics: (indices: Int32Array) => readonly number[],
  seed: number,
  pause: () => Promise<void>,
): Promise<Interval[]> {
  checkInteger('bootstrapEach', 'count', count, 1);
  const values = statistics(allOf(count));
  const drawn = values.map(() => new Float64Array(RESAMPLES));
  const indices = new Int32Array(count);
  for (let k = 0; k < RESAMPLES; k++) {
    await pause();
    for (const [j, value] of statistics(draw(indices, seed, k)).entries()) drawn[j]![k] = value;
  }
  return values.map((value, j) => intervalOf(value, drawn[j]!));
}

function allOf(count: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => i);
}

function draw(indices: Int32Array, seed: number, k: number): Int32Array {
  const random = new CounterRandom(seed, STREAM, k);
  for (let i = 0; i < indices.length; i++) indices[i] = random.integer(indices.length);
  return indices;
}

function intervalOf(value: number, drawn: Float64Array): Interval {
  // A draw that leaves the statistic undefined says nothing.
  const defined = drawn.filter((other) => !Number.isNaN(other)).sort();
  const at = (q: number) =>
    defined.length === 0 ? Number.NaN : defined[Math.round(q * (defined.length - 1))]!;
  return { value, low: at(0.025), high: at(0.975) };
}
