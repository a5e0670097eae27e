import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type AdvantageOptions, groupAdvantages } from '../../lib/rl/advantages.js';
import { near } from './batches.js';

const run = (rewards: number[], groupSize: number, options?: AdvantageOptions) => [
  ...groupAdvantages(Float64Array.from(rewards), groupSize, options),
];

describe('groupAdvantages', () => {
  it('subtracts the mean of each contiguous group', () => {
    assert.deepEqual(run([1, 0, 0, 0, 1, 1, 0, 0], 4), [0.75, -0.25, -0.25, -0.25, 0.5, 0.5, -0.5, -0.5]);
  });

  it('subtracts the mean of the others with leave-one-out', () => {
    // Others of 3: (1 + 2) / 2; of 1: (3 + 2) / 2; of 2: (3 + 1) / 2.
    assert.deepEqual(run([3, 1, 2], 3, { baseline: 'leave-one-out' }), [1.5, -1.5, 0]);
  });

  it('divides by the Bessel-corrected std plus epsilon', () => {
    // Rewards 1 and 3: mean 2, squares 1 + 1 over ddof 1 gives std sqrt(2).
    const [a, b] = run([1, 3], 2, { normalizeStd: true });
    assert.equal(a, -1 / (Math.SQRT2 + 1e-8));
    assert.equal(b, 1 / (Math.SQRT2 + 1e-8));
    assert.equal(run([1, 3], 2, { normalizeStd: true, epsilon: 1e-6 })[1], 1 / (Math.SQRT2 + 1e-6));
    // Leave-one-out doubles the numerator of a pair, not the std.
    assert.equal(
      run([1, 3], 2, { normalizeStd: true, baseline: 'leave-one-out' })[1],
      2 / (Math.SQRT2 + 1e-8),
    );
  });

  it('gives the reward itself to a group of one', () => {
    assert.deepEqual(run([1, 0, 0.25], 1), [1, 0, 0.25]);
    assert.deepEqual(run([1, 0.25], 1, { baseline: 'leave-one-out' }), [1, 0.25]);
    assert.deepEqual(run([1, 0], 1, { normalizeStd: true, epsilon: 1e-6 }), [1 / (1 + 1e-6), 0]);
  });

  it('gives exactly 0 to equal rewards whose mean in fp64 is another number', () => {
    assert.notEqual((0.1 + 0.1 + 0.1) / 3, 0.1);
    for (const options of [{}, { normalizeStd: true }, { baseline: 'leave-one-out' as const }]) {
      for (const advantage of run([0.1, 0.1, 0.1], 3, options)) assert.ok(Object.is(advantage, 0));
    }
  });

  it('sums to 0 in each group, and leave-one-out is G / (G - 1) times the mean baseline', () => {
    const groups = fc.integer({ min: 2, max: 9 }).chain((size) =>
      fc.record({
        size: fc.constant(size),
        rewards: fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: size, maxLength: size }),
      }),
    );
    fc.assert(
      fc.property(groups, ({ size, rewards }) => {
        const mean = run(rewards, size);
        const others = run(rewards, size, { baseline: 'leave-one-out' });
        const total = rewards.reduce((a, b) => a + b, 0);
        assert.ok(
          near(
            mean.reduce((a, b) => a + b, 0),
            0,
          ),
        );
        rewards.forEach((reward, i) => {
          assert.ok(near(mean[i]!, reward - total / size));
          assert.ok(near(others[i]!, reward - (total - reward) / (size - 1)));
        });
      }),
    );
  });

  it('refuses what it cannot use', () => {
    assert.throws(() => run([1, 2, 3], 2), /rewards\.length to be a multiple of groupSize = 2, got 3/);
    assert.throws(() => run([1, Number.NaN], 2), /rewards\[1\] to be finite, got NaN/);
    assert.throws(() => run([1], 0), /groupSize to be an integer of at least 1, got 0/);
    assert.throws(() => run([1], 1, { epsilon: 0 }), /epsilon to be a finite number above 0, got 0/);
    assert.throws(() => run([1], 1, { baseline: 'mena' as 'mean' }), /did you mean mean\?/);
  });
});
