import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { nth, selectByWeight, weightedMedian } from '../../lib/diagnose/select.js';
import { CounterRandom } from '../../lib/random.js';

/** By sorting. Weights are small integers, so that sums are exact in any order. */
function selected(values: readonly number[], weights: readonly number[], target: number): number {
  const order = [...values.keys()].sort((a, b) => values[a]! - values[b]!);
  let below = 0;
  let found = Number.NaN;
  for (const i of order) {
    found = values[i]!;
    below += weights[i]!;
    if (below >= target) return found;
  }
  return found;
}

const entries = fc.array(
  fc.tuple(
    fc.oneof(
      fc.integer({ min: -3, max: 3 }),
      fc.double({ noNaN: true }).filter((x) => !Object.is(x, -0)),
    ),
    fc.integer({ min: 0, max: 5 }),
  ),
  { maxLength: 60 },
);

describe('selection', () => {
  it('gives what sorting does', () => {
    fc.assert(
      fc.property(entries, fc.integer({ min: 0, max: 400 }), (pairs, target) => {
        const values = pairs.map(([value]) => value);
        const weights = pairs.map(([, weight]) => weight);
        assert.equal(
          selectByWeight(Float64Array.from(values), Float64Array.from(weights), target),
          selected(values, weights, target),
        );
        const total = weights.reduce((a, b) => a + b, 0);
        assert.equal(
          weightedMedian(Float64Array.from(values), Float64Array.from(weights)),
          selected(values, weights, total / 2),
        );
        const sorted = Float64Array.from(values).sort();
        for (const k of [0, 1, Math.floor(values.length / 2), values.length - 1]) {
          if (k >= 0 && k < values.length) assert.equal(nth(Float64Array.from(values), k), sorted[k]);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('ends with values that are no numbers', () => {
    for (const values of [[Number.NaN], [Number.NaN, 1, Number.NaN, 2], []]) {
      weightedMedian(Float64Array.from(values), new Float64Array(values.length).fill(1));
    }
    assert.equal(weightedMedian(new Float64Array(), new Float64Array()), Number.NaN);
  });

  it('takes linear time in whatever order values come', () => {
    const n = 2 ** 20;
    const random = new CounterRandom(1);
    for (const values of [
      Float64Array.from({ length: n }, (_, i) => i),
      Float64Array.from({ length: n }, (_, i) => -i),
      new Float64Array(n).fill(7),
      Float64Array.from({ length: n }, (_, i) => Math.min(i, n - i)),
      Float64Array.from({ length: n }, () => random.uniform()),
    ]) {
      const middle = Float64Array.from(values).sort()[n / 2 - 1];
      const start = process.cpuUsage();
      assert.equal(weightedMedian(values, new Float64Array(n).fill(1)), middle);
      const { user, system } = process.cpuUsage(start);
      assert.ok(user + system < 3e6, `${(user + system) / 1e6} s`);
    }
  });
});
