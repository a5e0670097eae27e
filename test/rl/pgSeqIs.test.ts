import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { aggregations } from '../../lib/rl/aggregation.js';
import { type AlgorithmParameters, createAlgorithm } from '../../lib/rl/algorithms.js';
import type { PolicyBatch } from '../../lib/rl/batch.js';
import { difference, near, sequencesArbitrary, toBatch, token } from './batches.js';

const pgSeqIsLoss = (batch: PolicyBatch, parameters: AlgorithmParameters = {}) =>
  createAlgorithm('pg-seq-is', parameters).loss(batch);

/** Two sequences with log ratios ln 2 and -ln 2, the first with a masked token in the middle. */
function pair(): PolicyBatch {
  return toBatch([
    {
      tokens: [token(-2, 0, -2 + Math.LN2 / 2), token(0, 0, 0, false), token(-1.5, 0, -1.5 + Math.LN2 / 2)],
      advantage: 3,
    },
    { tokens: [token(-1, 0, -1 - Math.LN2)], advantage: -1 },
  ]);
}

describe('pg-seq-is', () => {
  it('is -W A sum log pi over N L, with gradient -W A / (N L)', () => {
    const { loss, gradient, metrics } = pgSeqIsLoss(pair(), { constantLength: 10 });
    // W = 2 and 1/2, so coefficients -2 * 3 / 20 and +1/2 / 20.
    const [a, masked, b, c] = gradient;
    assert.ok(near(a!, -0.3));
    assert.ok(Object.is(masked, 0));
    assert.equal(b, a);
    assert.ok(near(c!, 0.025));
    assert.ok(near(loss, -0.3 * (-3.5 + Math.LN2) + 0.025 * (-1 - Math.LN2)));
    assert.ok(near(metrics.weightMean!, 1.25));
    assert.ok(near(metrics.weightMax!, 2));
    // mean^2 / mean of squares = 1.5625 / 2.125
    assert.ok(near(metrics.ess!, 1.5625 / 2.125));
    assert.ok(near(metrics.seqLogRatioMean!, 0));
  });

  it('multiplies weight, advantage and norm before log pi, so that recorded losses keep their bits', () => {
    fc.assert(
      fc.property(sequencesArbitrary, (sequences) => {
        const batch = toBatch(sequences);
        const { loss, gradient } = pgSeqIsLoss(batch);
        let expected = 0;
        gradient.forEach((g, t) => {
          if (g !== 0) expected += g * batch.logprobs[t]!;
        });
        assert.equal(loss, expected);
      }),
    );
  });

  it('defaults to the constant length of the authors, 8192', () => {
    assert.ok(near(pgSeqIsLoss(pair()).gradient[0]!, (-2 * 3) / (2 * 8192), 1e-15));
  });

  it('has the gradient of -sg(W) A sum log pi by finite differences', () => {
    fc.assert(
      fc.property(sequencesArbitrary, fc.constantFrom(...aggregations), (sequences, aggregation) => {
        const batch = toBatch(sequences);
        const L = 12;
        const used = sequences.filter((sequence) => sequence.tokens.some((t) => t.counts)).length;
        const all = sequences.flatMap((sequence) => sequence.tokens).filter((t) => t.counts).length;
        // Written again from the formula, the weight taken once at the batch's own log-probs.
        const surrogate = (logprobs: Float64Array) => {
          let loss = 0;
          let position = 0;
          for (const { tokens, advantage } of sequences) {
            const counted = tokens.filter((t) => t.counts);
            const weight = counted.reduce((product, t) => product * Math.exp(t.now - t.rollout), 1);
            const norm = {
              'seq-mean-token-sum-norm': used * L,
              'seq-mean-token-mean': used * counted.length,
              'token-mean': all,
              'token-sum': 1,
            }[aggregation];
            for (const t of tokens) {
              if (t.counts) loss -= (weight * advantage * logprobs[position]!) / norm;
              position++;
            }
          }
          return loss;
        };
        const { loss, gradient } = pgSeqIsLoss(batch, { aggregation, constantLength: L });
        assert.ok(near(loss, surrogate(batch.logprobs), 1e-10));
        for (let i = 0; i < gradient.length; i++) {
          assert.ok(near(gradient[i]!, difference(surrogate, batch.logprobs, i), 1e-6), `token ${i}`);
        }
      }),
    );
  });

  it('is unbiased: samples from mu give the gradient of the reward expected under pi', () => {
    // Two tokens of a two-word vocabulary; the second token's logits depend on the first. Every one of the
    // four responses is enumerated with its probability under mu, so the expectation is exact.
    const logMu = (y: number[], logits: number[]) => responseLogprobs(y, logits);
    const theta = [0.3, -0.7, 1.1];
    const rollout = [-0.9, 0.4, 0.2];
    const reward = (y: number[]) => 1 + 2 * y[0]! - 3 * y[0]! * y[1]! + 0.5 * y[1]!;
    const responses = [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ];
    const J = (logits: Float64Array) =>
      responses.reduce((sum, y) => {
        const [a, b] = responseLogprobs(y, [...logits]);
        return sum + Math.exp(a! + b!) * reward(y);
      }, 0);
    const batch = toBatch(
      responses.map((y) => {
        const mu = logMu(y, rollout);
        const pi = responseLogprobs(y, theta);
        return {
          tokens: [token(mu[0]!, 0, pi[0]!), token(mu[1]!, 0, pi[1]!)],
          advantage: Math.exp(mu[0]! + mu[1]!) * reward(y),
        };
      }),
    );
    const { gradient } = pgSeqIsLoss(batch, { aggregation: 'token-sum' });
    for (let k = 0; k < theta.length; k++) {
      let chained = 0;
      responses.forEach((y, s) => {
        for (const t of [0, 1]) {
          const lp = (x: Float64Array) => responseLogprobs(y, [...x])[t]!;
          chained += gradient[2 * s + t]! * difference(lp, Float64Array.from(theta), k);
        }
      });
      assert.ok(near(chained, -difference(J, Float64Array.from(theta), k), 1e-8), `logit ${k}`);
    }
  });

  it('clamps the log weight only when asked', () => {
    const far = toBatch([{ tokens: [token(-31, 0, -1)], advantage: 1 }]);
    assert.equal(pgSeqIsLoss(far, { aggregation: 'token-sum' }).gradient[0], -Math.exp(30));
    const clamped = pgSeqIsLoss(far, { aggregation: 'token-sum', logClamp: 20 });
    assert.equal(clamped.gradient[0], -Math.exp(20));
    assert.equal(clamped.metrics.seqLogRatioMean, 30);
    const low = toBatch([{ tokens: [token(-1, 0, -31)], advantage: 1 }]);
    assert.equal(pgSeqIsLoss(low, { aggregation: 'token-sum', logClamp: 20 }).gradient[0], -Math.exp(-20));
  });

  it('keeps an infinite weight from poisoning a sequence without advantage', () => {
    const batch = toBatch([
      { tokens: [token(-2000, 0, -1)], advantage: 0 },
      { tokens: [token(-1, 0, -1)], advantage: 2 },
    ]);
    const { loss, gradient, metrics } = pgSeqIsLoss(batch, { aggregation: 'token-sum' });
    assert.deepEqual([...gradient], [0, -2]);
    assert.equal(loss, 2);
    assert.equal(metrics.weightMax, Infinity);
    assert.equal(metrics.ess, 0.5);
  });

  it('is 0 without metrics when nothing counts', () => {
    const batch = toBatch([{ tokens: [token(-1, -1, -1, false)], advantage: 1 }]);
    assert.deepEqual(pgSeqIsLoss(batch), { loss: 0, gradient: new Float64Array(1), metrics: {} });
  });

  it('refuses a bad batch or clamp', () => {
    const batch = pair();
    batch.logprobs[2] = Number.NaN;
    assert.throws(() => pgSeqIsLoss(batch), /\[pg-seq-is\] expected logprobs\[2\] to be finite/);
    assert.throws(
      () => pgSeqIsLoss(pair(), { logClamp: 0 }),
      /logClamp to be a finite number above 0 or null, got 0/,
    );
  });
});

/** log pi of both tokens: logits [first is 1, second is 1 after a 0, second is 1 after a 1]. */
function responseLogprobs(y: number[], logits: number[]): number[] {
  const logSigmoid = (x: number) => -Math.log1p(Math.exp(-x));
  const of = (word: number, logit: number) => logSigmoid(word === 1 ? logit : -logit);
  return [of(y[0]!, logits[0]!), of(y[1]!, logits[1 + y[0]!]!)];
}
