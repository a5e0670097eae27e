import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { groupAdvantages } from '../../lib/rl/advantages.js';
import { type AlgorithmName, algorithmNames, createAlgorithm } from '../../lib/rl/algorithms.js';
import { grpoLoss } from '../../lib/rl/grpo.js';
import { pgSeqIsLoss } from '../../lib/rl/pgSeqIs.js';
import { near, onPolicyArbitrary, sequencesArbitrary, toBatch } from './batches.js';

const rewards = Float64Array.of(1, 0, 0, 1, 1, 1);

describe('createAlgorithm', () => {
  it('knows three algorithms, under their own names', () => {
    assert.deepEqual(algorithmNames, ['pg-seq-is', 'dr-grpo', 'grpo']);
    for (const name of algorithmNames) assert.equal(createAlgorithm(name).name, name);
    assert.equal(createAlgorithm('pg-seq-is').needsOldLogprobs, false);
    assert.equal(createAlgorithm('dr-grpo').needsOldLogprobs, true);
    assert.equal(createAlgorithm('grpo').needsOldLogprobs, true);
  });

  it('refuses an unknown name with the known ones and the nearest', () => {
    assert.throws(
      () => createAlgorithm('dr-gpro' as AlgorithmName),
      (error: unknown) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.match(
          error.message,
          /one of pg-seq-is, dr-grpo, grpo, got "dr-gpro" \(did you mean dr-grpo\?\)/,
        );
        return true;
      },
    );
  });

  it('refuses a misspelt or foreign parameter, and a bad value, at creation', () => {
    assert.throws(
      () => createAlgorithm('grpo', { clipHihg: 0.28 } as object),
      /\[grpo\] .*clipHigh.*got "clipHihg" \(did you mean clipHigh\?\)/,
    );
    assert.throws(() => createAlgorithm('pg-seq-is', { clipLow: 0.2 } as object), /\[pg-seq-is\]/);
    assert.throws(() => createAlgorithm('dr-grpo', { normalizeStd: true } as object), /\[dr-grpo\]/);
    assert.throws(() => createAlgorithm('dr-grpo', { clipLow: 2 }), /\[dr-grpo\] expected clipLow/);
    assert.throws(() => createAlgorithm('pg-seq-is', { constantLength: 0.5 }), /constantLength/);
  });

  it('gives each its advantages', () => {
    const plain = groupAdvantages(rewards, 3);
    assert.deepEqual(createAlgorithm('pg-seq-is').advantages(rewards, 3), plain);
    assert.deepEqual(createAlgorithm('dr-grpo').advantages(rewards, 3), plain);
    const std = createAlgorithm('grpo', { epsilon: 1e-6 }).advantages(rewards, 3);
    // One of three is right: mean 1/3, std sqrt(1/3) with Bessel's correction.
    assert.ok(near(std[0]!, 2 / 3 / (Math.sqrt(1 / 3) + 1e-6)));
    assert.deepEqual([...std.subarray(3)], [0, 0, 0]);
    const others = createAlgorithm('dr-grpo', { baseline: 'leave-one-out' }).advantages(rewards, 3);
    assert.ok(near(others[0]!, 1));
    assert.ok(near(others[1]!, -0.5));
  });

  it('gives each its loss', () => {
    fc.assert(
      fc.property(sequencesArbitrary, (sequences) => {
        const batch = toBatch(sequences);
        const norm = { aggregation: 'seq-mean-token-sum-norm', constantLength: 7 } as const;
        assert.deepEqual(
          createAlgorithm('pg-seq-is', { constantLength: 7, logClamp: 0.5 }).loss(batch),
          pgSeqIsLoss(batch, { ...norm, logClamp: 0.5 }),
        );
        assert.deepEqual(
          createAlgorithm('dr-grpo', { constantLength: 7, clipHigh: 0.28 }).loss(batch),
          grpoLoss(batch, { ...norm, clipLow: 0.2, clipHigh: 0.28 }),
        );
        assert.deepEqual(
          createAlgorithm('grpo').loss(batch),
          grpoLoss(batch, { aggregation: 'seq-mean-token-mean' }),
        );
        assert.deepEqual(
          createAlgorithm('grpo', { aggregation: 'token-mean' }).loss(batch),
          grpoLoss(batch, { aggregation: 'token-mean' }),
        );
      }),
      { numRuns: 40 },
    );
  });
});

describe('on policy (mu = pi_old = pi)', () => {
  it('PG-Seq-IS and Dr.GRPO have the same gradient, that of REINFORCE', () => {
    fc.assert(
      fc.property(onPolicyArbitrary, (sequences) => {
        const batch = toBatch(sequences);
        const pg = createAlgorithm('pg-seq-is', { constantLength: 9 }).loss(batch);
        const ppo = createAlgorithm('dr-grpo', { constantLength: 9 }).loss(batch);
        assert.deepEqual(pg.gradient, ppo.gradient);
        let position = 0;
        for (const { tokens, advantage } of sequences) {
          for (const t of tokens) {
            const expected = t.counts ? -advantage / (batch.totals.sequences * 9) : 0;
            assert.ok(near(pg.gradient[position++]!, expected, 1e-15));
          }
        }
        if (batch.totals.tokens === 0) return;
        assert.equal(pg.metrics.weightMax, 1);
        assert.equal(pg.metrics.ess, 1);
        assert.equal(ppo.metrics.clipFraction, 0);
        assert.equal(ppo.metrics.approxKl, 0);
      }),
    );
  });
});

describe('masked positions', () => {
  it('may hold anything without changing a bit of the result', () => {
    const junk = fc.constantFrom(Number.NaN, Infinity, -Infinity, 1e308, 0);
    fc.assert(
      fc.property(sequencesArbitrary, junk, (sequences, value) => {
        const poisoned = toBatch(sequences);
        const batch = toBatch(sequences);
        batch.mask.forEach((counts, t) => {
          if (counts) return;
          batch.rolloutLogprobs[t] = value;
          batch.oldLogprobs![t] = -value;
          batch.logprobs[t] = value;
        });
        for (const name of algorithmNames) {
          const result = createAlgorithm(name).loss(batch);
          assert.deepEqual(result, createAlgorithm(name).loss(poisoned));
          assert.ok(Number.isFinite(result.loss));
          assert.ok(result.gradient.every(Number.isFinite));
          assert.ok(Object.values(result.metrics).every(Number.isFinite));
        }
      }),
    );
  });
});
