import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { CounterRandom } from '../../lib/random.js';
import { EffectiveSampleSize, effectiveSampleSize, k3 } from '../../lib/rl/ratios.js';
import { near } from './batches.js';

describe('k3', () => {
  it('is d^2 / 2 to full precision where the plain formula has none left', () => {
    // d^2/2 - d^3/6, the rest being below fp64 here.
    assert.ok(Math.abs(k3(1e-9) / 5e-19 - (1 - 1e-9 / 3)) < 1e-15);
    assert.ok(Math.abs(k3(-1e-9) / 5e-19 - (1 + 1e-9 / 3)) < 1e-15);
    assert.ok(Object.is(k3(0), 0));
    assert.ok(Object.is(k3(-0), 0));
  });

  it('agrees with the plain formula, also on both sides of the switch to the series', () => {
    for (const d of [-3, -0.5, -0.031, -0.03, -0.029, 0.029, 0.03, 0.031, 0.5, 3, 40]) {
      assert.ok(Math.abs(k3(d) - (Math.exp(-d) - 1 + d)) < 1e-15 * Math.max(1, Math.exp(-d), d), `${d}`);
    }
    const below = k3(0.03);
    const above = k3(0.03 + 1e-12);
    // Slope 1 - exp(-0.03) across the switch.
    assert.ok(Math.abs(above - below - 1e-12 * (1 - Math.exp(-0.03))) < 1e-17);
  });

  it('is never negative', () => {
    fc.assert(fc.property(fc.double({ min: -50, max: 50, noNaN: true }), (d) => k3(d) >= 0));
  });
});

describe('effectiveSampleSize', () => {
  it('is 1 for equal weights, 1 / n for a single one that counts, NaN for none', () => {
    assert.equal(effectiveSampleSize([5, 5, 5]), 1);
    assert.equal(effectiveSampleSize([900, 0, 0, 0]), 0.25);
    assert.ok(Number.isNaN(effectiveSampleSize([])));
  });

  it('is 1 / mean((w / mean w)^2)', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: -3, max: 3, noNaN: true }), { minLength: 1 }), (logs) => {
        const weights = logs.map(Math.exp);
        const mean = weights.reduce((a, b) => a + b, 0) / weights.length;
        const spread = weights.reduce((a, w) => a + (w / mean) ** 2, 0) / weights.length;
        assert.ok(near(effectiveSampleSize(logs), 1 / spread));
      }),
    );
  });

  it('of rising, falling and impossible weights is that of all at once', () => {
    const rising = Array.from({ length: 5000 }, (_, i) => i / 100 + 700);
    const logs = [Number.NEGATIVE_INFINITY, ...rising, Number.NEGATIVE_INFINITY, -1e6];
    const top = Math.max(...logs);
    const weights = logs.map((log) => Math.exp(log - top));
    const sum = weights.reduce((a, b) => a + b, 0);
    const expected = sum ** 2 / weights.length / weights.reduce((a, w) => a + w * w, 0);
    for (const some of [logs, logs.toReversed()]) {
      assert.ok(Math.abs(effectiveSampleSize(some) / expected - 1) < 1e-11);
    }
    assert.ok(Number.isNaN(effectiveSampleSize([Number.NEGATIVE_INFINITY])));
    assert.ok(Number.isNaN(effectiveSampleSize([1, Number.NaN, 2])));
  });

  it('is the same of parts that are put together', () => {
    const random = new CounterRandom(1);
    for (const [count, spread] of [
      [1, 1],
      [7, 0.01],
      [500, 3],
      [500, 2000],
    ] as const) {
      const logs = Array.from({ length: count }, () => spread * (random.uniform() - 0.5));
      const whole = new EffectiveSampleSize();
      for (let i = 0; i < count; i += 3) {
        const part = new EffectiveSampleSize();
        for (const log of logs.slice(i, i + 3)) part.add(log);
        whole.merge(part);
      }
      whole.merge(new EffectiveSampleSize());
      assert.ok(Math.abs(whole.share / effectiveSampleSize(logs) - 1) < 1e-12, `${count}, ${spread}`);
      const impossible = new EffectiveSampleSize();
      impossible.add(Number.NEGATIVE_INFINITY);
      const before = whole.share;
      whole.merge(impossible);
      assert.ok(Math.abs(whole.share / before - count / (count + 1)) < 1e-12);
    }
  });
});
