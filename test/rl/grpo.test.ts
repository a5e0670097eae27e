import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { aggregations } from '../../lib/rl/aggregation.js';
import { grpoLoss, k3 } from '../../lib/rl/grpo.js';
import { difference, near, sequencesArbitrary, toBatch, token } from './batches.js';

/** A token whose ratio pi / pi_old is r. */
const ratio = (r: number, counts = true) => token(-9, -2, -2 + Math.log(r), counts);

describe('grpoLoss', () => {
  it('clips each side where the formula says', () => {
    const ratios = [0.5, 1, 1.1, 1.5];
    const batch = toBatch([
      { tokens: ratios.map((r) => ratio(r)), advantage: 2 },
      { tokens: ratios.map((r) => ratio(r)), advantage: -1 },
    ]);
    const { loss, gradient, metrics } = grpoLoss(batch, { aggregation: 'token-sum', clipHigh: 0.28 });
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
    const { gradient, metrics } = grpoLoss(batch);
    assert.ok(near(gradient[0]!, -1.19 / 8192, 1e-15));
    assert.equal(gradient[1], 0);
    assert.equal(metrics.clipFraction, 0.5);
  });

  it('averages over each sequence with seq-mean-token-mean', () => {
    const batch = toBatch([
      { tokens: [ratio(1), ratio(1, false), ratio(1)], advantage: 1 },
      { tokens: [ratio(1)], advantage: -1 },
    ]);
    const { loss, gradient } = grpoLoss(batch, { aggregation: 'seq-mean-token-mean' });
    assert.deepEqual([...gradient], [-0.25, 0, -0.25, 0.5]);
    assert.equal(loss, 0);
  });

  it('has the gradient of its loss by finite differences', () => {
    fc.assert(
      fc.property(sequencesArbitrary, fc.constantFrom(...aggregations), (sequences, aggregation) => {
        const options = { aggregation, constantLength: 12, clipLow: 0.15, clipHigh: 0.25 };
        const batch = toBatch(sequences);
        const { gradient } = grpoLoss(batch, options);
        for (let i = 0; i < gradient.length; i++) {
          const r = Math.exp(batch.logprobs[i]! - batch.oldLogprobs![i]!);
          // Not at a kink, where there is no derivative.
          if (Math.abs(r - 0.85) < 1e-4 || Math.abs(r - 1.25) < 1e-4) continue;
          // A masked NaN stays NaN when moved, so the difference there is that of a constant.
          const f = (logprobs: Float64Array) => grpoLoss({ ...batch, logprobs }, options).loss;
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
        assert.ok(near(grpoLoss(toBatch(sequences), { aggregation: 'token-sum' }).loss, expected, 1e-10));
      }),
    );
  });

  it('never reads mu', () => {
    const tokens = [token(-1, -2, -1.9), token(-3, -1, -1.05)];
    const other = tokens.map((t) => ({ ...t, rollout: t.rollout * 2 }));
    assert.deepEqual(
      grpoLoss(toBatch([{ tokens, advantage: 1 }])),
      grpoLoss(toBatch([{ tokens: other, advantage: 1 }])),
    );
  });

  it('is 0 without metrics when nothing counts, and keeps an infinite ratio without advantage out', () => {
    const nothing = toBatch([{ tokens: [ratio(2, false)], advantage: 1 }]);
    assert.deepEqual(grpoLoss(nothing), { loss: 0, gradient: new Float64Array(1), metrics: {} });
    const far = toBatch([{ tokens: [token(-1, -2000, -1)], advantage: 0 }]);
    assert.equal(grpoLoss(far).loss, 0);
    assert.deepEqual([...grpoLoss(far).gradient], [0]);
  });

  it('refuses a batch without pi_old and bad clips', () => {
    const { oldLogprobs: _, ...batch } = toBatch([{ tokens: [ratio(1)], advantage: 1 }]);
    assert.throws(() => grpoLoss(batch), /\[grpoLoss\] expected oldLogprobs/);
    assert.throws(() => grpoLoss({ ...batch, oldLogprobs: batch.logprobs }, { clipLow: 1.5 }), /clipLow/);
    assert.throws(() => grpoLoss({ ...batch, oldLogprobs: batch.logprobs }, { clipHigh: -0.1 }), /clipHigh/);
  });
});

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
