/** GSPO, CISPO, DPPO-TV and REINFORCE: by hand, and by finite differences of each loss with its weights held fixed. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { aggregations } from '../../../lib/rl/aggregation.js';
import type { PolicyBatch } from '../../../lib/rl/batch.js';
import { cispoLoss } from '../../../lib/rl/losses/cispo.js';
import { dppoTvLoss } from '../../../lib/rl/losses/dppoTv.js';
import { gspoLoss } from '../../../lib/rl/losses/gspo.js';
import { reinforceLoss } from '../../../lib/rl/losses/reinforce.js';
import { difference, near, type Sequence, sequencesArbitrary, toBatch, token } from '../batches.js';

const sum = { aggregation: 'token-sum' } as const;
const ratio = (r: number, counts = true) => token(-9, -2, -2 + Math.log(r), counts);

function assertNear(actual: Float64Array, expected: readonly number[]): void {
  assert.equal(actual.length, expected.length);
  actual.forEach((value, i) => {
    assert.ok(near(value, expected[i]!), `token ${i}: ${value}, not ${expected[i]}`);
  });
}

/** The norm of each sequence, written again. */
function norms(
  sequences: readonly Sequence[],
  aggregation: (typeof aggregations)[number],
  L: number,
): number[] {
  const counts = sequences.map(({ tokens }) => tokens.filter((t) => t.counts).length);
  const used = counts.filter((count) => count > 0).length;
  const all = counts.reduce((a, b) => a + b, 0);
  return counts.map(
    (count) =>
      ({
        'seq-mean-token-sum-norm': 1 / (used * L),
        'seq-mean-token-mean': 1 / (used * count),
        'token-mean': 1 / all,
        'token-sum': 1,
      })[aggregation],
  );
}

/**
 * Compares loss and gradient with a surrogate written again from the formula: `value` gives each token's loss as a
 * function of log pi, with everything that is held fixed taken at the batch's own log-probs.
 */
function checkAgainst(
  run: (batch: PolicyBatch, options: object) => { loss: number; gradient: Float64Array },
  value: (at: { now: number; was: number; old: number; advantage: number; meanLog: number }) => number,
  atKink: (at: { was: number; old: number; meanLog: number }) => boolean = () => false,
): void {
  fc.assert(
    fc.property(sequencesArbitrary, fc.constantFrom(...aggregations), (sequences, aggregation) => {
      const L = 12;
      const batch = toBatch(sequences);
      const norm = norms(sequences, aggregation, L);
      const meanLogs = sequences.map(({ tokens }) => {
        const counted = tokens.filter((t) => t.counts);
        return counted.reduce((total, t) => total + (t.now - t.old), 0) / counted.length;
      });
      const places = sequences.flatMap(({ tokens, advantage }, s) =>
        tokens.map((t) => ({ ...t, advantage, s, was: t.now, meanLog: meanLogs[s]! })),
      );
      const surrogate = (logprobs: Float64Array) =>
        places.reduce(
          (total, at, i) => (at.counts ? total + norm[at.s]! * value({ ...at, now: logprobs[i]! }) : total),
          0,
        );
      const { loss, gradient } = run(batch, { aggregation, constantLength: L });
      assert.ok(near(loss, surrogate(batch.logprobs), 1e-10), `${loss}, not ${surrogate(batch.logprobs)}`);
      for (let i = 0; i < gradient.length; i++) {
        if (atKink(places[i]!)) continue;
        assert.ok(near(gradient[i]!, difference(surrogate, batch.logprobs, i), 1e-6), `token ${i}`);
      }
    }),
  );
}

describe('reinforceLoss', () => {
  it('is -A log pi, with the batch’s weights', () => {
    const batch = toBatch([
      { tokens: [token(-1, -1, -2), token(-1, -1, -3, false)], advantage: 2 },
      { tokens: [token(-1, -1, -5)], advantage: -1 },
    ]);
    assertNear(reinforceLoss(batch, sum).gradient, [-2, 0, 1]);
    assert.equal(reinforceLoss(batch, sum).loss, 4 - 5);
    const weighted = { ...batch, weights: Float64Array.of(0.5, 0, 3) };
    assertNear(reinforceLoss(weighted, sum).gradient, [-1, 0, 3]);
    const rejected = { ...weighted, kept: Uint8Array.of(1, 0, 0) };
    assertNear(reinforceLoss(rejected, sum).gradient, [-1, 0, 0]);
    // The denominator still counts what was rejected.
    assertNear(reinforceLoss(rejected, { aggregation: 'token-mean' }).gradient, [-0.5, 0, 0]);
    assert.throws(
      () => reinforceLoss({ ...batch, weights: new Float64Array(2) }),
      /weights to be a Float64Array of 3/,
    );
    assert.throws(() => reinforceLoss({ ...batch, kept: new Uint8Array(1) }), /kept to be a Uint8Array of 3/);
  });

  it('has the gradient of its loss', () => {
    checkAgainst(reinforceLoss, ({ now, advantage }) => -advantage * now);
  });
});

describe('gspoLoss', () => {
  it('clips the geometric mean of a sequence as a whole', () => {
    const batch = toBatch([
      // exp(mean log) = sqrt(2 * 8) = 4 and, with the masked token left out, sqrt(0.5 * 0.5) = 0.5.
      { tokens: [ratio(2), ratio(8)], advantage: 1 },
      { tokens: [ratio(0.5), ratio(7, false), ratio(0.5)], advantage: -1 },
      { tokens: [ratio(0.5), ratio(0.5)], advantage: 1 },
    ]);
    const { loss, gradient, metrics } = gspoLoss(batch, { ...sum, clipLow: 0.2, clipHigh: 0.3 });
    assertNear(gradient, [0, 0, 0, 0, 0, -0.5, -0.5]);
    assert.ok(near(loss, -1.3 * 2 + 0.8 * 2 - 0.5 * 2));
    assert.equal(metrics.clipFraction, 4 / 6);
    assert.ok(near(metrics.ratioMean!, (2 + 8 + 0.5 * 4) / 6));
  });

  it('defaults to 3e-4, 4e-4 and the mean over tokens', () => {
    const at = (r: number, advantage: number) =>
      gspoLoss(toBatch([{ tokens: [ratio(r), ratio(r)], advantage }])).gradient[0]!;
    assert.ok(near(at(1.00039, 1), -1.00039 / 2) && at(1.00041, 1) === 0);
    assert.ok(near(at(0.99971, -1), 0.99971 / 2) && at(0.99969, -1) === 0);
  });

  it('has the gradient of sg(s) pi / sg(pi), clipped', () => {
    const [low, high] = [0.9, 1.1];
    checkAgainst(
      (batch, options) => gspoLoss(batch, { ...options, clipLow: 0.1, clipHigh: 0.1 }),
      ({ now, was, advantage, meanLog }) => {
        const r = Math.exp(meanLog) * Math.exp(now - was);
        return Math.max(-advantage * r, -advantage * Math.min(Math.max(r, low), high));
      },
      ({ meanLog }) => [low, high].some((bound) => Math.abs(Math.exp(meanLog) - bound) < 1e-4),
    );
  });

  it('holds the log of the ratio at 10', () => {
    const far = toBatch([{ tokens: [token(-1, -40, -1)], advantage: -1 }]);
    assert.ok(near(gspoLoss(far).gradient[0]!, Math.exp(10)));
  });
});

describe('cispoLoss', () => {
  it('clips the weight and never the token', () => {
    const batch = toBatch([
      { tokens: [ratio(0.01), ratio(1), ratio(5)], advantage: 2 },
      { tokens: [ratio(5)], advantage: -1 },
    ]);
    const { loss, gradient, metrics } = cispoLoss(batch, { ...sum, clipHigh: 0.5 });
    assertNear(gradient, [-0.02, -2, -3, 1.5]);
    const now = (r: number) => -2 + Math.log(r);
    assert.ok(near(loss, -0.02 * now(0.01) - 2 * now(1) - 3 * now(5) + 1.5 * now(5)));
    assert.equal(metrics.clipFraction, 0.5);
    assertNear(cispoLoss(batch, { ...sum, clipHigh: 9, clipLow: 0.5 }).gradient, [-1, -2, -10, 5]);
  });

  it('has the gradient of -sg(clip(r)) A log pi', () => {
    checkAgainst(
      cispoLoss,
      ({ now, was, old, advantage }) => -advantage * Math.min(Math.exp(was - old), 1.2) * now,
    );
  });
});

describe('dppoTvLoss', () => {
  it('stops what has moved by more than delta in probability', () => {
    const p = (old: number, now: number) => token(-1, Math.log(old), Math.log(now));
    const tokens = [p(0.5, 0.69), p(0.5, 0.71), p(0.5, 0.31), p(0.5, 0.29), p(0.001, 0.1)];
    const batch = toBatch([
      { tokens, advantage: 1 },
      { tokens, advantage: -2 },
    ]);
    const { gradient, metrics } = dppoTvLoss(batch, sum);
    assertNear(gradient, [-1.38, 0, -0.62, -0.58, -20, 2.76, 2.84, 1.24, 0, 40]);
    assert.equal(metrics.clipFraction, 0.2);
  });

  it('has the gradient of its loss', () => {
    const stopped = (now: number, old: number, advantage: number) => {
      const moved = Math.exp(now) - Math.exp(old);
      return advantage > 0 ? moved > 0.05 : moved < -0.05;
    };
    checkAgainst(
      (batch, options) => dppoTvLoss(batch, { ...options, deltaLow: 0.05, deltaHigh: 0.05, maxRatio: 1.3 }),
      ({ now, was, old, advantage }) =>
        stopped(was, old, advantage) ? 0 : -advantage * Math.min(Math.exp(was - old), 1.3) * now,
    );
  });
});
