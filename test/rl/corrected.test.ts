/** Algorithms composed of any loss with any corrections, beyond those that presets name. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { aggregations } from '../../lib/rl/aggregation.js';
import { composeAlgorithm } from '../../lib/rl/algorithms.js';
import { type Algorithm, batchTotals, type PolicyBatch } from '../../lib/rl/batch.js';
import { type AlgorithmConfig, denominators, modes } from '../../lib/rl/config.js';
import { corrects } from '../../lib/rl/corrections/correct.js';
import { type ImportanceOptions, importanceLevels } from '../../lib/rl/corrections/importance.js';
import { type RejectionOptions, rejectionLevels } from '../../lib/rl/corrections/rejection.js';
import { losses, lossNames } from '../../lib/rl/losses/index.js';
import { difference, near, onPolicyArbitrary, sequencesArbitrary, toBatch, token } from './batches.js';

const low = fc.constantFrom(0.4, 0.7, 0.9, 1);
const high = fc.constantFrom(1, 1.2, 1.5, 3);
const batchNormalize = fc.boolean();

const importanceArbitrary: fc.Arbitrary<ImportanceOptions> = fc
  .constantFrom(...importanceLevels)
  .chain((level) =>
    fc.oneof(
      fc.record({ level: fc.constant(level), batchNormalize }),
      fc.record({ level: fc.constant(level), rule: fc.constant('truncate' as const), high, batchNormalize }),
      fc.record({ level: fc.constant(level), rule: fc.constant('mask' as const), high, batchNormalize }),
      fc.record({
        level: fc.constant(level),
        rule: fc.constantFrom('truncate' as const, 'mask' as const),
        low: fc.constantFrom(0.4, 0.9),
        high,
        batchNormalize,
      }),
    ),
  );

const rejectionArbitrary: fc.Arbitrary<RejectionOptions> = fc
  .constantFrom(...rejectionLevels)
  .chain((level) =>
    fc.oneof(
      fc.record({ level: fc.constant(level), measure: fc.constant('ratio' as const), high }),
      level === 'sequence-max'
        ? fc.record({
            level: fc.constant(level),
            measure: fc.constant('k2' as const),
            high: fc.constant(0.02),
          })
        : fc.record({ level: fc.constant(level), measure: fc.constant('ratio' as const), low }),
      fc.record({
        level: fc.constant(level),
        measure: fc.constantFrom('k2' as const, 'k3' as const),
        high: fc.constantFrom(0.01, 0.05),
      }),
    ),
  );

/** Every configuration here does some correction. */
const configArbitrary: fc.Arbitrary<AlgorithmConfig> = fc
  .record({
    loss: fc.constantFrom(...lossNames),
    aggregation: fc.constantFrom(...aggregations),
    constantLength: fc.constant(11),
    mode: fc.constantFrom(...modes),
    importance: fc.option(importanceArbitrary),
    rejections: fc.array(rejectionArbitrary, { maxLength: 2 }),
    vetoBelow: fc.option(fc.constantFrom(0.75, 1e-4)),
    logClamp: fc.option(fc.constantFrom(0.3, 20)),
    denominator: fc.constantFrom(...denominators),
  })
  .map((config) => ({
    ...config,
    // Refused, as it would count the ratio twice.
    importance: config.mode === 'bypass' && losses[config.loss].needsOld ? null : config.importance,
  }))
  .filter(corrects);

function without(config: AlgorithmConfig): AlgorithmConfig {
  const { importance, rejections, vetoBelow, logClamp, denominator, ...plain } = config;
  return plain;
}

/** The batch with its correction made once, so that it stays fixed when log-probs move. */
function held(algorithm: Algorithm, config: AlgorithmConfig, batch: PolicyBatch): PolicyBatch {
  const { metrics: _, ...made } = (
    algorithm.prepare ??
    // The same configuration with a denominator that has the mini-batch looked at as a whole, but for that denominator.
    ((whole) => {
      const { mask, totals, ...rest } = composeAlgorithm('kept', { ...config, denominator: 'kept' }).prepare!(
        whole,
      );
      return { ...rest, mask: whole.mask, totals: batchTotals(whole.offsets, whole.mask) };
    })
  )(batch);
  return { ...batch, ...made };
}

describe('any loss with any correction', () => {
  it('is the uncorrected one where mu = pi_old = pi, loss and gradient to the bit', () => {
    fc.assert(
      fc.property(configArbitrary, onPolicyArbitrary, (config, sequences) => {
        const batch = toBatch(sequences);
        const corrected = composeAlgorithm('corrected', config).loss(batch);
        const plain = composeAlgorithm('plain', without(config)).loss(batch);
        assert.equal(corrected.loss, plain.loss);
        assert.deepEqual(corrected.gradient, plain.gradient);
      }),
      { numRuns: 300 },
    );
  });

  it('has the gradient of its own loss by finite differences, the correction held fixed', () => {
    let moving = 0;
    fc.assert(
      fc.property(configArbitrary, sequencesArbitrary, (config, sequences) => {
        const algorithm = composeAlgorithm('x', config);
        const batch = toBatch(sequences);
        const { gradient } = algorithm.loss(batch);
        const fixed = held(algorithm, config, batch);
        assert.deepEqual(algorithm.loss(fixed).gradient, gradient);
        if (config.loss === 'gspo' || config.loss === 'cispo' || config.loss === 'dppo-tv') {
          // Part of these losses is held fixed, too: test/rl/losses writes their surrogates again.
          return;
        }
        const f = (logprobs: Float64Array) => algorithm.loss({ ...fixed, logprobs }).loss;
        for (let i = 0; i < gradient.length; i++) {
          if (batch.mask[i] === 0) {
            assert.ok(Object.is(gradient[i], 0), `masked token ${i}: ${gradient[i]}`);
            continue;
          }
          const near1 = difference(f, batch.logprobs, i, 1e-6);
          const near2 = difference(f, batch.logprobs, i, 3e-6);
          // At a kink there is no derivative: two step sizes disagree.
          if (Math.abs(near1 - near2) > 1e-6 * Math.max(1, Math.abs(near1))) continue;
          assert.ok(near(gradient[i]!, near1, 1e-5), `token ${i}: ${gradient[i]}, not ${near1}`);
          if (near1 !== 0) moving++;
        }
      }),
      { numRuns: 300 },
    );
    assert.ok(moving > 100, 'some tokens taught');
  });

  it('multiplies what the plain loss gives each token, where the denominator stays', () => {
    fc.assert(
      fc.property(configArbitrary, sequencesArbitrary, (any, sequences) => {
        const config: AlgorithmConfig = { ...any, denominator: 'fixed' };
        const algorithm = composeAlgorithm('x', config);
        const batch = toBatch(sequences);
        const { kept, weights } = held(algorithm, config, batch);
        const plain = composeAlgorithm('plain', without(config)).loss(batch).gradient;
        algorithm.loss(batch).gradient.forEach((g, t) => {
          const factor = kept![t] === 1 ? (weights?.[t] ?? 1) : 0;
          assert.ok(near(g, factor * plain[t]!), `token ${t}: ${g}, not ${factor} times ${plain[t]}`);
        });
      }),
      { numRuns: 200 },
    );
  });

  it('adds up from micro-batches to the mini-batch, gradients to the bit', () => {
    fc.assert(
      fc.property(configArbitrary, sequencesArbitrary, fc.nat(6), (config, sequences, at) => {
        const algorithm = composeAlgorithm('x', config);
        const whole = toBatch(sequences);
        const expected = algorithm.loss(whole);
        const prepared = algorithm.prepare?.(whole);
        const cut = Math.min(at, sequences.length);
        const parts = [
          [0, cut],
          [cut, sequences.length],
        ].map(([begin, end]) => {
          const part = toBatch(sequences.slice(begin, end), prepared?.totals ?? whole.totals);
          const of = <A extends Float64Array | Uint8Array>(values: A) =>
            values.subarray(whole.offsets[begin!]!, whole.offsets[end!]!) as A;
          if (!prepared) return algorithm.loss(part);
          return algorithm.loss({
            ...part,
            mask: of(prepared.mask),
            kept: of(prepared.kept),
            ...(prepared.weights && { weights: of(prepared.weights) }),
            preparedMetrics: prepared.metrics,
          });
        });
        assert.deepEqual(
          parts.flatMap(({ gradient }) => [...gradient]),
          [...expected.gradient],
        );
        assert.ok(near(parts[0]!.loss + parts[1]!.loss, expected.loss));
      }),
      { numRuns: 200 },
    );
  });

  it('prepares what depends on the mini-batch and nothing else', () => {
    const importance = { level: 'token', rule: 'truncate', high: 2 } as const;
    const of = (config: Partial<AlgorithmConfig>) => composeAlgorithm('x', { loss: 'ppo-clip', ...config });
    assert.equal(of({ importance }).prepare, undefined);
    assert.notEqual(of({ importance, denominator: 'kept' }).prepare, undefined);
    assert.notEqual(of({ importance: { ...importance, batchNormalize: true } }).prepare, undefined);
    assert.equal(of({ importance, denominator: 'kept' }).prepareNeedsLogprobs, false);
    // Of pi, which only a pass of its own can tell before the update.
    assert.equal(of({ loss: 'reinforce', importance, denominator: 'kept' }).prepareNeedsLogprobs, true);
  });

  it('normalises over the mini-batch by hand: 4 and 1 by their mean, in either micro-batch', () => {
    const two = toBatch([
      { tokens: [token(-3, -3 + Math.log(4), -3 + Math.log(4))], advantage: 1 },
      { tokens: [token(-1, -1, -1)], advantage: 1 },
    ]);
    const { gradient, metrics } = composeAlgorithm('x', {
      loss: 'ppo-clip',
      aggregation: 'token-sum',
      importance: { level: 'sequence', batchNormalize: true },
    }).loss(two);
    assert.ok(near(gradient[0]!, -4 / 2.5) && near(gradient[1]!, -1 / 2.5));
    assert.ok(near(metrics.batchNormFactor!, 2.5));
  });
});
