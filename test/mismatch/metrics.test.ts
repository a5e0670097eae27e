import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  MismatchAccumulator,
  type MismatchBatch,
  type MismatchMetrics,
  mismatchMetrics,
} from '../../lib/mismatch/metrics.js';
import { Quantiles } from '../../lib/mismatch/quantiles.js';

/** Sequences of [log mu, log pi] pairs; null is a masked token, poisoned. */
function toBatch(sequences: ([number, number] | null)[][]): MismatchBatch {
  const flat = sequences.flat();
  const offsets = [0];
  for (const sequence of sequences) offsets.push(offsets.at(-1)! + sequence.length);
  return {
    offsets: Int32Array.from(offsets),
    rolloutLogprobs: Float64Array.from(flat, (pair) => pair?.[0] ?? Number.NaN),
    logprobs: Float64Array.from(flat, (pair) => pair?.[1] ?? Number.NaN),
    mask: Uint8Array.from(flat, (pair) => (pair === null ? 0 : 1)),
  };
}

function close(actual: number, expected: number, tolerance = 1e-12): void {
  const limit = tolerance * Math.max(1, Math.abs(expected));
  assert.ok(Math.abs(actual - expected) <= limit, `${actual} is not near ${expected}`);
}

const logprob = fc.double({ min: -10, max: 0, noNaN: true });
const pairs = fc.array(fc.array(fc.option(fc.tuple(logprob, logprob), { freq: 4 }), { maxLength: 6 }), {
  minLength: 1,
  maxLength: 6,
});

describe('mismatchMetrics', () => {
  it('has a spread without bound where a ratio is beyond fp64', () => {
    const { tokenRatioStd, tokenRatioMean, essToken } = mismatchMetrics(
      toBatch([
        [
          [-800, -0.1],
          [-1, -1],
        ],
      ]),
    );
    assert.deepEqual([tokenRatioStd, tokenRatioMean, essToken], [Infinity, Infinity, 0.5]);
  });

  it('gives the values worked out by hand', () => {
    // Probabilities (mu, pi): (1/2, 1/4), (1/4, 1/2), (1/2, 1/2) | (1/8, 1/4).
    const [eighth, quarter, half] = [Math.log(1 / 8), Math.log(1 / 4), Math.log(1 / 2)];
    const metrics = mismatchMetrics(
      toBatch([[[half, quarter], null, [quarter, half], [half, half]], [], [[eighth, quarter]]]),
    );
    const ln2 = Math.LN2;
    assert.equal(metrics.tokens, 4);
    assert.equal(metrics.sequences, 2);
    assert.equal(metrics.nonFinite, 0);
    // d = ln 2, -ln 2, 0, -ln 2
    close(metrics.klMuPiK1, -ln2 / 4);
    close(metrics.klMuPiK2, (3 * ln2 * ln2) / 8);
    // pi/mu - 1 + d: -1/2 + ln 2, 1 - ln 2, 0, 1 - ln 2
    close(metrics.klMuPiK3, (1.5 - ln2) / 4);
    // pi - mu: -1/4, 1/4, 0, 1/8
    close(metrics.maxProbDiff, 0.25);
    close(metrics.minProbDiff, -0.25);
    close(metrics.meanProbDiff, 0.625 / 4);
    close(metrics.meanAbsLogRatio, (3 * ln2) / 4);
    close(metrics.maxAbsLogRatio, ln2);
    assert.equal(metrics.differingShare, 0.75);
    // L = 0 and ln 2; weights 1 and 2
    close(metrics.seqLogRatioMean, ln2 / 2);
    close(metrics.seqLogRatioStd, ln2 / Math.SQRT2);
    close(metrics.seqLogRatioPer1k, 250 * ln2);
    close(metrics.ess, 2.25 / 2.5);
    close(metrics.sequenceKlMuPi, -ln2 / 2);
  });

  it('is exactly 0, never -0, when the engines agree', () => {
    fc.assert(
      fc.property(pairs, (sequences) => {
        const equal = sequences.map((sequence) =>
          sequence.map((pair): [number, number] | null => (pair ? [pair[0], pair[0]] : null)),
        );
        const metrics = mismatchMetrics(toBatch(equal));
        const { tokens, sequences: count, trainingPpl, rolloutPpl, seqLogRatioSlopePer1k, ...gaps } = metrics;
        if (tokens === 0) return;
        assert.ok(count > 0);
        assert.equal(trainingPpl, rolloutPpl);
        const lengths = equal.map((sequence) => sequence.filter((pair) => pair !== null).length);
        const vary = new Set(lengths.filter((length) => length > 0)).size > 1;
        assert.ok(Object.is(seqLogRatioSlopePer1k, vary ? 0 : Number.NaN));
        const ones = ['ess', 'essToken', 'probCorrelation', 'tokenMultProbError', 'pplRatio'];
        ones.push('tokenRatioMean', 'tokenRatioMax');
        for (const [name, value] of Object.entries(gaps))
          assert.ok(Object.is(value, ones.includes(name) ? 1 : 0), `${name} = ${value}`);
      }),
    );
  });

  it('agrees with the definitions', () => {
    fc.assert(
      fc.property(pairs, (sequences) => {
        const metrics = mismatchMetrics(toBatch(sequences));
        const kept = sequences.map((sequence) => sequence.filter((pair) => pair !== null));
        const all = kept.flat();
        const used = kept.filter((sequence) => sequence.length > 0);
        assert.equal(metrics.tokens, all.length);
        assert.equal(metrics.sequences, used.length);
        if (all.length === 0) return;
        const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
        const ls = used.map((sequence) => sequence.reduce((sum, [mu, pi]) => sum + pi - mu, 0));
        const differences = all.map(([mu, pi]) => Math.exp(pi) - Math.exp(mu));
        close(metrics.klMuPiK1, mean(all.map(([mu, pi]) => mu - pi)));
        close(metrics.klMuPiK2, mean(all.map(([mu, pi]) => (mu - pi) ** 2 / 2)));
        close(metrics.klMuPiK3, mean(all.map(([mu, pi]) => Math.exp(pi - mu) - 1 - (pi - mu))));
        close(metrics.meanProbDiff, mean(differences.map(Math.abs)));
        close(metrics.maxProbDiff, Math.max(...differences));
        close(metrics.minProbDiff, Math.min(...differences));
        close(metrics.minAbsProbDiff, Math.min(...differences.map(Math.abs)));
        close(metrics.maxAbsProbDiff, Math.max(...differences.map(Math.abs)));
        close(metrics.minAbsLogRatio, Math.min(...all.map(([mu, pi]) => Math.abs(mu - pi))));
        close(metrics.meanAbsLogRatio, mean(all.map(([mu, pi]) => Math.abs(mu - pi))));
        close(metrics.maxAbsLogRatio, Math.max(...all.map(([mu, pi]) => Math.abs(mu - pi))));
        close(metrics.differingShare, mean(all.map(([mu, pi]) => (mu === pi ? 0 : 1))));
        close(metrics.sequenceKlMuPi, -mean(ls));
        close(metrics.seqLogRatioPer1k, -1000 * metrics.klMuPiK1, 1e-10);
        const variance = ls.reduce((sum, l) => sum + (l - mean(ls)) ** 2, 0) / Math.max(1, ls.length - 1);
        close(metrics.seqLogRatioStd, Math.sqrt(variance), 1e-10);
        const weights = ls.map(Math.exp);
        close(metrics.ess, mean(weights) ** 2 / mean(weights.map((w) => w * w)), 1e-10);

        const ratios = all.map(([mu, pi]) => Math.exp(pi - mu));
        close(metrics.chi2Token, mean(ratios.map((r) => r * r)) - 1, 1e-10);
        close(
          metrics.chi2Sequence,
          mean(ls.map((l) => Math.exp(2 * Math.min(Math.max(l, -20), 20)))) - 1,
          1e-10,
        );
        close(metrics.tokenMultProbError, mean(ratios.map((r) => Math.max(r, 1 / r))));
        close(metrics.tokenRatioMean, mean(ratios));
        const ratioVariance = mean(ratios.map((r) => (r - mean(ratios)) ** 2));
        close(metrics.tokenRatioStd ** 2, ratioVariance, 1e-9 * Math.max(1, metrics.tokenRatioMax));
        close(metrics.tokenRatioMax, Math.max(...ratios), 1e-11);
        close(metrics.tokenRatioHighShare, mean(ratios.map((r) => (Math.log(r) > Math.LN2 ? 1 : 0))));
        close(metrics.tokenRatioLowShare, mean(ratios.map((r) => (Math.log(r) < -Math.LN2 ? 1 : 0))));
        close(metrics.essToken, mean(ratios) ** 2 / mean(ratios.map((r) => r * r)), 1e-10);
        close(metrics.saturatedShare, mean(differences.map((p) => (Math.abs(p) > 0.5 ? 1 : 0))));
        close(metrics.seqLogRatioMin, Math.min(...ls));
        close(metrics.seqLogRatioMax, Math.max(...ls));
        const ppl = (engine: 0 | 1) =>
          mean(used.map((sequence) => Math.exp(-mean(sequence.map((pair) => pair[engine])))));
        close(metrics.rolloutPpl, ppl(0), 1e-10);
        close(metrics.trainingPpl, ppl(1), 1e-10);
        const gaps = used.map((sequence) => mean(sequence.map(([mu, pi]) => mu - pi)));
        close(metrics.logPplDiff, mean(gaps));
        close(metrics.pplRatio, mean(gaps.map(Math.exp)), 1e-10);
        const quantile = (values: number[], q: number) => {
          const sorted = [...values].sort((a, b) => a - b);
          const place = q * (sorted.length - 1);
          const [below, above] = [sorted[Math.floor(place)]!, sorted[Math.ceil(place)]!];
          return below + (above - below) * (place % 1);
        };
        close(metrics.probDiffP50, quantile(differences.map(Math.abs), 0.5));
        close(metrics.probDiffP95, quantile(differences.map(Math.abs), 0.95));
        close(
          metrics.absLogRatioP99,
          quantile(
            all.map(([mu, pi]) => Math.abs(mu - pi)),
            0.99,
          ),
        );
        close(
          metrics.absLogRatioP999,
          quantile(
            all.map(([mu, pi]) => Math.abs(mu - pi)),
            0.999,
          ),
        );
      }),
    );
  });

  it('estimates KL[mu || pi] when tokens come as often as mu says', () => {
    // mu = 3/4, 1/4; pi = 1/2, 1/2: one token of the rare kind for three of the common one.
    const common: [number, number] = [Math.log(3 / 4), Math.log(1 / 2)];
    const rare: [number, number] = [Math.log(1 / 4), Math.log(1 / 2)];
    const { klMuPiK1: k1, klMuPiK3: k3 } = mismatchMetrics(
      toBatch([
        [common, common],
        [common, rare],
      ]),
    );
    const kl = (3 / 4) * Math.log(1.5) + (1 / 4) * Math.log(0.5);
    close(k1, kl);
    close(k3, kl);
  });

  it('keeps the precision of tiny differences', () => {
    const d = 2 ** -40;
    const { klMuPiK2: k2, klMuPiK3: k3, maxProbDiff } = mismatchMetrics(toBatch([[[-1 - d, -1]]]));
    assert.equal(k2, d ** 2 / 2);
    // k3 = d^2/2 (1 + d/3 + ...) for log pi above log mu.
    assert.ok(Math.abs(k3 / k2 - 1 - d / 3) < 1e-15);
    assert.ok(Math.abs(maxProbDiff / (Math.exp(-1) * d) - 1) < 1e-12);
  });

  it('sees a token that only one engine finds possible', () => {
    const up = mismatchMetrics(toBatch([[[-900, 0]]]));
    assert.equal(up.maxProbDiff, 1);
    assert.equal(up.minProbDiff, 1);
    const down = mismatchMetrics(toBatch([[[0, -900]]]));
    assert.equal(down.minProbDiff, -1);
    assert.equal(down.klMuPiK3, 899);
  });

  it('counts non-finite pairs and leaves them out', () => {
    const clean = mismatchMetrics(toBatch([[[-1, -1.25]], [[-2, -1.5]]]));
    const dirty = mismatchMetrics(
      toBatch([
        [
          [-1, -1.25],
          [Number.NaN, -1],
        ],
        [
          [-2, -1.5],
          [-1, -Infinity],
        ],
        [[Infinity, Infinity]],
      ]),
    );
    assert.deepEqual(dirty, { ...clean, nonFinite: 3 });
  });

  it('has NaN and no zero to report when nothing was measured', () => {
    const { tokens, sequences, nonFinite, ...rest } = mismatchMetrics(toBatch([[null], [[Number.NaN, -1]]]));
    assert.deepEqual([tokens, sequences, nonFinite], [0, 0, 1]);
    for (const [name, value] of Object.entries(rest)) assert.ok(Number.isNaN(value), name);
  });

  it('reads fp32 dumps', () => {
    const batch = toBatch([
      [
        [-0.5, -0.75],
        [-2, -1.75],
      ],
    ]);
    const floats = {
      ...batch,
      rolloutLogprobs: Float32Array.from(batch.rolloutLogprobs),
      logprobs: Float32Array.from(batch.logprobs),
    };
    assert.deepEqual(mismatchMetrics(floats), mismatchMetrics(batch));
  });

  it('refuses a malformed batch', () => {
    const batch = toBatch([[[-1, -1]], [[-2, -2]]]);
    const fails = (change: Partial<MismatchBatch>, message: RegExp) =>
      assert.throws(() => mismatchMetrics({ ...batch, ...change }), message);
    fails({ logprobs: new Float64Array(3) }, /\[mismatchMetrics\] expected logprobs\.length to be 2/);
    fails({ offsets: Int32Array.of(0, 2, 1) }, /offsets\[2\] to be at least offsets\[1\] = 2, got 1/);
    fails({ mask: Uint8Array.of(1, 3) }, /mask\[1\] to be 0 or 1, got 3/);
    fails({ rolloutLogprobs: [-1, -2] as unknown as Float64Array }, /rolloutLogprobs to be a Float64Array/);
  });
});

describe('correlation and slope', () => {
  it('are those of the plain formulas', () => {
    fc.assert(
      fc.property(pairs, (sequences) => {
        const { probCorrelation, seqLogRatioSlopePer1k } = mismatchMetrics(toBatch(sequences));
        const kept = sequences.map((sequence) => sequence.filter((pair) => pair !== null));
        const moments = (points: [number, number][]) => {
          const mean = (k: 0 | 1) => points.reduce((sum, point) => sum + point[k], 0) / points.length;
          const sum = (i: 0 | 1, j: 0 | 1) =>
            points.reduce((total, point) => total + (point[i] - mean(i)) * (point[j] - mean(j)), 0);
          return { xx: sum(0, 0), xy: sum(0, 1), yy: sum(1, 1) };
        };
        const probs = moments(kept.flat().map(([mu, pi]) => [Math.exp(mu), Math.exp(pi)]));
        if (probs.xx > 1e-6 && probs.yy > 1e-6) {
          close(probCorrelation, probs.xy / Math.sqrt(probs.xx * probs.yy), 1e-8);
        }
        const drift = moments(
          kept
            .filter((sequence) => sequence.length > 0)
            .map((sequence) => [sequence.length, sequence.reduce((sum, [mu, pi]) => sum + pi - mu, 0)]),
        );
        if (drift.xx > 0) close(seqLogRatioSlopePer1k, (1000 * drift.xy) / drift.xx, 1e-9);
        else assert.ok(Number.isNaN(seqLogRatioSlopePer1k));
      }),
    );
  });
});

describe('Quantiles', () => {
  it('thins a long stream and stays close', () => {
    const quantiles = new Quantiles();
    const count = 3_000_000;
    // Every value once, in an order that has nothing to do with its size.
    for (let i = 0; i < count; i++) quantiles.add(((i * 1_000_003) % count) / count);
    for (const q of [0, 0.01, 0.5, 0.99, 0.999, 1]) assert.ok(Math.abs(quantiles.at(q) - q) < 1e-3, `${q}`);
    assert.ok(Number.isNaN(new Quantiles().at(0.5)));
  });
});

describe('MismatchAccumulator', () => {
  it('gives the same for micro-batches as for the whole', () => {
    fc.assert(
      fc.property(pairs, fc.nat(6), (sequences, at) => {
        const accumulator = new MismatchAccumulator();
        accumulator.add(toBatch(sequences.slice(0, at)));
        accumulator.add(toBatch(sequences.slice(at)));
        // The same additions in the same order: equal to the bit.
        assert.deepEqual(accumulator.result(), mismatchMetrics(toBatch(sequences)));
      }),
    );
  });

  it('adds nothing of a batch it refuses, and can be read more than once', () => {
    const accumulator = new MismatchAccumulator();
    accumulator.add(toBatch([[[-1, -1.5]]]));
    const before: MismatchMetrics = accumulator.result();
    assert.throws(() => accumulator.add({ ...toBatch([[[-1, -1]]]), mask: Uint8Array.of(2) }));
    assert.deepEqual(accumulator.result(), before);
    accumulator.add(toBatch([[[-1, -2]]]));
    assert.equal(accumulator.result().klMuPiK1, 0.75);
  });
});
