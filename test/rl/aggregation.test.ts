import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Aggregation, aggregations, resolveAggregation, tokenWeight } from '../../lib/rl/aggregation.js';
import { ppoClipLoss } from '../../lib/rl/losses/ppoClip.js';
import { reinforceLoss } from '../../lib/rl/losses/reinforce.js';
import { near, sequencesArbitrary, toBatch } from './batches.js';

describe('tokenWeight', () => {
  it('is the documented share of the mini-batch', () => {
    const totals = { sequences: 4, tokens: 40 };
    const weight = (aggregation: Aggregation) => tokenWeight({ aggregation, constantLength: 100 }, 5, totals);
    assert.equal(weight('seq-mean-token-sum-norm'), 1 / 400);
    assert.equal(weight('seq-mean-token-mean'), 1 / 20);
    assert.equal(weight('token-mean'), 1 / 40);
    assert.equal(weight('token-sum'), 1);
  });

  it('is 0 for a sequence without tokens, even with empty totals', () => {
    for (const aggregation of aggregations) {
      assert.equal(tokenWeight({ aggregation, constantLength: 1 }, 0, { sequences: 0, tokens: 0 }), 0);
    }
  });

  it('refuses bad options', () => {
    assert.throws(
      () => resolveAggregation('x', { aggregation: 'token-men' as 'token-mean' }, 'token-sum'),
      /\[x\] expected aggregation to be one of .*did you mean token-mean\?/,
    );
    assert.throws(() => resolveAggregation('x', { constantLength: 0 }, 'token-sum'), /constantLength/);
  });
});

describe('micro-batches', () => {
  const losses = { reinforceLoss, ppoClipLoss };
  for (const [name, loss] of Object.entries(losses)) {
    for (const aggregation of aggregations) {
      it(`of ${name} with ${aggregation} sum to the mini-batch, gradients to the bit`, () => {
        fc.assert(
          fc.property(sequencesArbitrary, fc.nat(6), (sequences, at) => {
            const options = { aggregation, constantLength: 16 };
            const whole = toBatch(sequences);
            const expected = loss(whole, options);
            const parts = [sequences.slice(0, at), sequences.slice(at)].map((part) =>
              loss(toBatch(part, whole.totals), options),
            );
            assert.deepEqual(
              parts.flatMap((part) => [...part.gradient]),
              [...expected.gradient],
            );
            assert.ok(
              near(
                parts.reduce((sum, part) => sum + part.loss, 0),
                expected.loss,
              ),
            );
          }),
          { numRuns: 50 },
        );
      });
    }
  }
});
