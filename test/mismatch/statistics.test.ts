/** Least squares, bootstrap intervals, divergences over whole distributions, and the table of definitions. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { bootstrap } from '../../lib/mismatch/bootstrap.js';
import { isHealthy, metricDefinitions, rangeText } from '../../lib/mismatch/definitions.js';
import { meanDivergence } from '../../lib/mismatch/divergence.js';
import { LeastSquares } from '../../lib/mismatch/leastSquares.js';
import { mismatchMetrics } from '../../lib/mismatch/metrics.js';
import { normals } from '../support/compare.js';

describe('LeastSquares', () => {
  it('finds a line, far from the origin too', () => {
    const line = new LeastSquares();
    for (let i = 0; i < 50; i++) line.add(1e9 + i, 3 - 2 * i);
    assert.ok(Math.abs(line.slope + 2) < 1e-6);
    assert.ok(Math.abs(line.intercept - (3 + 2e9)) < 1);
    assert.ok(Math.abs(line.correlation + 1) < 1e-9);
    assert.ok(Number.isNaN(new LeastSquares().slope));
  });

  it('knows the spread of y', () => {
    const line = new LeastSquares();
    assert.ok(Number.isNaN(line.deviationOfY));
    line.add(0, 1e9 + 1);
    assert.equal(line.deviationOfY, 0);
    for (const y of [2, 4, 9]) line.add(y, 1e9 + y);
    assert.ok(Math.abs(line.deviationOfY - Math.sqrt(38 / 3)) < 1e-6);
  });
});

describe('bootstrap', () => {
  it('holds the mean of its population 19 times of 20', () => {
    let held = 0;
    for (let seed = 0; seed < 200; seed++) {
      const items = normals(60, seed);
      const mean = (indices: Int32Array) => indices.reduce((sum, i) => sum + items[i]!, 0) / indices.length;
      const { value, low, high } = bootstrap(60, mean, seed);
      assert.ok(low <= value && value <= high);
      if (low <= 0 && high >= 0) held++;
    }
    assert.ok(held > 175 && held < 200, `${held} of 200`);
  });

  it('leaves out draws without a value', () => {
    const some = (indices: Int32Array) => (indices[0] === 0 ? Number.NaN : indices[0]!);
    const { low, high } = bootstrap(4, some, 1);
    assert.ok(low === 1 && high === 3);
    assert.ok(Number.isNaN(bootstrap(3, () => Number.NaN, 1).low));
  });

  it('is a function of the seed', () => {
    const items = normals(20, 1);
    const max = (indices: Int32Array) => Math.max(...Array.from(indices, (i) => items[i]!));
    assert.deepEqual(bootstrap(20, max, 7), bootstrap(20, max, 7));
    assert.throws(() => bootstrap(0, max, 7), /count/);
  });
});

describe('meanDivergence', () => {
  const rows = (seed: number, tokens: number, vocabSize: number): number[][] => {
    const logits = normals(tokens * vocabSize, seed);
    return Array.from({ length: tokens }, (_, t) => {
      const row = [...logits.subarray(t * vocabSize, (t + 1) * vocabSize)];
      const lse = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      return row.map((x) => Math.fround(x - lse));
    });
  };

  it('is that of the definitions', () => {
    fc.assert(
      fc.property(
        fc.nat(1000),
        fc.integer({ min: 1, max: 6 }),
        fc.integer({ min: 2, max: 9 }),
        (seed, T, V) => {
          const [mu, pi] = [rows(seed, T, V), rows(seed + 1, T, V)];
          const found = meanDivergence([Float32Array.from(mu.flat())], [Float32Array.from(pi.flat())], V);
          const mean = (f: (p: number, q: number) => number) =>
            mu.reduce(
              (sum, row, t) => sum + row.reduce((s, x, v) => s + f(Math.exp(x), Math.exp(pi[t]![v]!)), 0),
              0,
            ) / T;
          const near = (a: number, b: number) => Math.abs(a - b) < 1e-6;
          assert.ok(
            near(
              found.klMuPi,
              mean((p, q) => p * Math.log(p / q)),
            ),
          );
          assert.ok(
            near(
              found.klPiMu,
              mean((p, q) => q * Math.log(q / p)),
            ),
          );
          const js = mean((p, q) => (p * Math.log((2 * p) / (p + q)) + q * Math.log((2 * q) / (p + q))) / 2);
          assert.ok(near(found.js, js));
          assert.ok(
            near(
              found.tv,
              mean((p, q) => Math.abs(p - q) / 2),
            ),
          );
        },
      ),
      { numRuns: 50 },
    );
  });

  it('is exactly 0 for equal rows, and finite for impossible tokens', () => {
    const same = [Float32Array.of(-1, -0.5, -Infinity)];
    assert.deepEqual(meanDivergence(same, same, 3), { klMuPi: 0, klPiMu: 0, js: 0, tv: 0 });
    const apart = meanDivergence([Float32Array.of(0, -2000)], [Float32Array.of(-2000, 0)], 2);
    assert.ok(Math.abs(apart.js - Math.LN2) < 1e-12 && apart.tv === 1);
    // exp(730) is beyond fp64, exp(-730) is not.
    const almost = meanDivergence([Float32Array.of(0, -730)], [Float32Array.of(-730, 0)], 2);
    assert.ok(Math.abs(almost.js - Math.LN2) < 1e-12, `${almost.js}`);
  });

  it('has the digits of engines that differ by little more than the rounding of fp32', () => {
    const V = 11;
    const [mu, noise] = [rows(5, 200, V), normals(200 * V, 6, 1e-6)];
    const pi = mu.map((row, t) => {
      const logits = row.map((x, v) => x + noise[t * V + v]!);
      const lse = Math.log(logits.reduce((sum, x) => sum + Math.exp(x), 0));
      return logits.map((x) => Math.fround(x - lse));
    });
    const exact = (from: number[][], to: number[][]) => {
      // Made to sum to 1 in fp64, which the fp32 log-probs do not.
      const shares = (row: number[]) => {
        const total = row.reduce((sum, x) => sum + Math.exp(x), 0);
        return row.map((x) => Math.exp(x) / total);
      };
      return from.reduce((sum, row, t) => {
        const [p, q] = [shares(row), shares(to[t]!)];
        return sum + p.reduce((s, x, v) => s + x * Math.log1p((x - q[v]!) / q[v]!), 0) / from.length;
      }, 0);
    };
    const found = meanDivergence([Float32Array.from(mu.flat())], [Float32Array.from(pi.flat())], V);
    const [muPi, piMu] = [exact(mu, pi), exact(pi, mu)];
    assert.ok(muPi > 0 && muPi < 1e-11, `${muPi}`);
    for (const [kl, expected] of [
      [found.klMuPi, muPi],
      [found.klPiMu, piMu],
    ] as const) {
      assert.ok(Math.abs(kl / expected - 1) < 0.05, `${kl}, not ${expected}`);
    }
  });

  it('takes exact zeros for what they are, and leaves out tokens with NaN', () => {
    const half = Math.fround(Math.log(0.5));
    const mu = [Float32Array.of(0, -Infinity, half, half, Number.NaN, 0)];
    const pi = [Float32Array.of(half, half, half, half, half, half)];
    const { klMuPi, klPiMu, js, tv } = meanDivergence(mu, pi, 2);
    assert.ok(Math.abs(klMuPi - Math.log(2) / 2) < 1e-6, `${klMuPi}`);
    assert.equal(klPiMu, Infinity);
    assert.ok(Math.abs(tv - 0.25) < 1e-6 && js > 0 && js < Math.log(2));
    assert.equal(meanDivergence(pi, mu, 2).klMuPi, Infinity);
  });
});

describe('metricDefinitions', () => {
  it('defines every metric, with sources for healthy ranges', () => {
    const metrics = mismatchMetrics({
      offsets: Int32Array.of(0, 1),
      rolloutLogprobs: Float64Array.of(-1),
      logprobs: Float64Array.of(-1),
      mask: Uint8Array.of(1),
    });
    assert.deepEqual(Object.keys(metricDefinitions).sort(), Object.keys(metrics).sort());
    for (const [name, { label, definition, healthy }] of Object.entries(metricDefinitions)) {
      assert.ok(label.length > 0 && label.length <= 24 && definition.length > 5, name);
      if (healthy) assert.ok(healthy.source.length > 3 && (healthy.low ?? healthy.high) !== undefined, name);
    }
    // What agrees is healthy by every standard.
    for (const [name, value] of Object.entries(metrics)) {
      assert.notEqual(isHealthy(name as keyof typeof metrics, value), false, name);
    }
    const text = (name: keyof typeof metricDefinitions) => rangeText(metricDefinitions[name].healthy!);
    assert.equal(text('klMuPiK3'), '<= 0.001');
    assert.equal(text('ess'), '>= 0.3');
    assert.equal(text('klMuPiK1'), '-0.1 to 0.1');
    assert.equal(text('saturatedShare'), '0');
    assert.equal(isHealthy('ess', 0.2), false);
    assert.equal(isHealthy('klMuPiK1', -0.2), false);
    assert.equal(isHealthy('seqLogRatioStd', 9), null);
  });
});
