import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { aggregations } from '../../../lib/rl/aggregation.js';
import { ppoClipLoss } from '../../../lib/rl/losses/ppoClip.js';
import { difference, near, sequencesArbitrary, toBatch, token } from '../batches.js';

/** A token whose ratio pi / pi_old is r. */
const ratio = (r: number, counts = true) => token(-9, -2, -2 + Math.log(r), counts);

describe('ppoClipLoss', () => {
  it('clips each side where the formula says', () => {
    const ratios = [0.5, 1, 1.1, 1.5];
    const batch = toBatch([
      { tokens: ratios.map((r) => ratio(r)), advantage: 2 },
      { tokens: ratios.map((r) => ratio(r)), advantage: -1 },
    ]);
    const { loss, gradient, metrics } = ppoClipLoss(batch, { aggregation: 'token-sum', clipHigh: 0.28 });
    // A > 0 clips above 1.28 alone, A < 0 below 0.8 alone.
    const expected = [-1, -2, -2.2, 0, 0, 1, 1.1, 1.5];
    gradient.forEach((g, i) => {
      assert.ok(near(g, expected[i]!), `token ${i}: ${g}`);
    });
    assert.ok(near(loss, -1 - 2 - 2.2 - 2 * 1.28 + 0.8 + 1 + 1.1 + 1.5));
    assert.equal(metrics.clipFraction, 2 / 8);
    assert.ok(near(metrics.ratioMean!, 4.1 / 4));
    const kl = ratios.reduce((sum, r) => sum + r - 1 - Math.log(r), 0) / 4;
    assert.ok(near(metrics.approxKl!, kl));
  });

  it('defaults to 0.2 on both sides and the constant length 8192', () => {
    const batch = toBatch([{ tokens: [ratio(1.19), ratio(1.21)], advantage: 1 }]);
    const { gradient, metrics } = ppoClipLoss(batch);
    assert.ok(near(gradient[0]!, -1.19 / 8192, 1e-15));
    assert.equal(gradient[1], 0);
    assert.equal(metrics.clipFraction, 0.5);
  });

  it('averages over each sequence with seq-mean-token-mean', () => {
    const batch = toBatch([
      { tokens: [ratio(1), ratio(1, false), ratio(1)], advantage: 1 },
      { tokens: [ratio(1)], advantage: -1 },
    ]);
    const { loss, gradient } = ppoClipLoss(batch, { aggregation: 'seq-mean-token-mean' });
    assert.deepEqual([...gradient], [-0.25, 0, -0.25, 0.5]);
    assert.equal(loss, 0);
  });

  it('has the gradient of its loss by finite differences', () => {
    fc.assert(
      fc.property(sequencesArbitrary, fc.constantFrom(...aggregations), (sequences, aggregation) => {
        const options = { aggregation, constantLength: 12, clipLow: 0.15, clipHigh: 0.25 };
        const batch = toBatch(sequences);
        const { gradient } = ppoClipLoss(batch, options);
        for (let i = 0; i < gradient.length; i++) {
          const r = Math.exp(batch.logprobs[i]! - batch.oldLogprobs![i]!);
          // Not at a kink, where there is no derivative.
          if (Math.abs(r - 0.85) < 1e-4 || Math.abs(r - 1.25) < 1e-4) continue;
          // A masked NaN stays NaN when moved, so the difference there is that of a constant.
          const f = (logprobs: Float64Array) => ppoClipLoss({ ...batch, logprobs }, options).loss;
          assert.ok(near(gradient[i]!, difference(f, batch.logprobs, i), 1e-6), `token ${i}`);
        }
      }),
    );
  });

  it('equals the larger of the clipped and the unclipped loss', () => {
    fc.assert(
      fc.property(sequencesArbitrary, (sequences) => {
        let expected = 0;
        for (const { tokens, advantage } of sequences) {
          for (const t of tokens) {
            if (!t.counts) continue;
            const r = Math.exp(t.now - t.old);
            expected += Math.max(-advantage * r, -advantage * Math.min(Math.max(r, 0.8), 1.2));
          }
        }
        assert.ok(near(ppoClipLoss(toBatch(sequences), { aggregation: 'token-sum' }).loss, expected, 1e-10));
      }),
    );
  });

  it('clips bad tokens a second time where asked', () => {
    const ratios = [0.5, 1, 2.9, 3.1, 9];
    const batch = toBatch([
      { tokens: ratios.map((r) => ratio(r)), advantage: -2 },
      { tokens: ratios.map((r) => ratio(r)), advantage: 1 },
    ]);
    const options = { aggregation: 'token-sum', dualClip: 3 } as const;
    const { loss, gradient, metrics } = ppoClipLoss(batch, options);
    const expected = [0, 2, 5.8, 0, 0, -0.5, -1, 0, 0, 0];
    gradient.forEach((g, i) => {
      assert.ok(near(g, expected[i]!), `token ${i}: ${g}`);
    });
    assert.ok(near(loss, 2 * (0.8 + 1 + 2.9 + 3 + 3) - (0.5 + 1 + 3 * 1.2)));
    assert.equal(metrics.clipFraction, 6 / 10);
    assert.throws(() => ppoClipLoss(batch, { dualClip: 1 }), /dualClip above 1, got 1/);
  });

  it('never reads mu', () => {
    const tokens = [token(-1, -2, -1.9), token(-3, -1, -1.05)];
    const other = tokens.map((t) => ({ ...t, rollout: t.rollout * 2 }));
    assert.deepEqual(
      ppoClipLoss(toBatch([{ tokens, advantage: 1 }])),
      ppoClipLoss(toBatch([{ tokens: other, advantage: 1 }])),
    );
  });

  it('is 0 without metrics when nothing counts, and keeps an infinite ratio without advantage out', () => {
    const nothing = toBatch([{ tokens: [ratio(2, false)], advantage: 1 }]);
    assert.deepEqual(ppoClipLoss(nothing), { loss: 0, gradient: new Float64Array(1), metrics: {} });
    const far = toBatch([{ tokens: [token(-1, -2000, -1)], advantage: 0 }]);
    assert.equal(ppoClipLoss(far).loss, 0);
    assert.deepEqual([...ppoClipLoss(far).gradient], [0]);
  });

  it('refuses a batch without pi_old and bad clips', () => {
    const { oldLogprobs: _, ...batch } = toBatch([{ tokens: [ratio(1)], advantage: 1 }]);
    assert.throws(() => ppoClipLoss(batch), /\[ppoClipLoss\] expected oldLogprobs/);
    assert.throws(() => ppoClipLoss({ ...batch, oldLogprobs: batch.logprobs }, { clipLow: 1.5 }), /clipLow/);
    assert.throws(
      () => ppoClipLoss({ ...batch, oldLogprobs: batch.logprobs }, { clipHigh: -0.1 }),
      /clipHigh/,
    );
  });
});
