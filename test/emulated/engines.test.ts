/** Both engines in emulated formats: where a format has a real twin, to its bits. */
import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import type { DecoderConfig } from '../../lib/models/config.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { type Numerics, numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { info, setThreads, setVectorLevel } from '../../lib/runtime.js';
import type { FloatDType } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertSameBits } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { mixtureFields, oddModel, randomTokens } from '../support/models.js';

const lengths = [
  [1, 15],
  [17, 47],
  [64, 1],
  [100, 157],
] as const;

function batch(vocabSize: number): TokenSequence[] {
  return lengths.map(([prompt, response], i) => ({
    prompt: randomTokens(prompt, vocabSize, 100 + i),
    response: randomTokens(response, vocabSize, 200 + i),
  }));
}

const lossOf = ({ logprobs }: { logprobs: Float64Array }, begin: number) => ({
  loss: 0,
  gradient: logprobs.map((_, t) => Math.sin(1 + begin + t) / 64),
  metrics: {},
});

/** What both engines make of a batch: log-probs, generated tokens, and the gradients of a step. */
async function outcome(
  precision: FloatDType,
  choices?: { rollout: Numerics; training: Numerics },
  overrides: Partial<DecoderConfig> = {},
) {
  using model = oddModel(overrides);
  const sequences = batch(model.config.vocabSize);
  using rollout = new RolloutEngine(model, { precision, ...(choices && { numerics: choices.rollout }) });
  using training = new TrainingEngine(model, {
    precision,
    lossScaler: 'static:16',
    schedule: { kind: 'constant', learningRate: 1e-3 },
    ...(choices && { numerics: choices.training }),
  });
  const mu = await rollout.score(sequences);
  const pi = await training.score(sequences);
  const { gradients } = await training.gradients(sequences, lossOf);
  const drawn = await rollout.generate(
    sequences.map(({ prompt }, i) => ({ prompt: Int32Array.from(prompt), promptId: i, sampleId: 0 })),
    { seed: 3, maxNewTokens: 20, stopTokens: [] },
  );
  return { mu: mu.logprobs, pi: pi.logprobs, gradients, drawn };
}

type Outcome = Awaited<ReturnType<typeof outcome>>;

function assertSame(a: Outcome, b: Outcome): void {
  assertSameBits(a.mu, b.mu, 'rollout');
  assertSameBits(a.pi, b.pi, 'training');
  for (const [name, gradient] of a.gradients) assertSameBits(gradient, b.gradients.get(name)!, name);
  assert.deepEqual(a.drawn, b.drawn);
}

const { vectorLevel, threads } = info();
afterEach(() => {
  setVectorLevel(vectorLevel);
  setThreads(threads);
});

describe('engines in emulated formats', () => {
  // Levels at which products of 16-bit numbers are fp32 multiply-adds, as those of emulated ones are everywhere.
  for (const level of vectorLevels().filter((name) => ['portable', 'avx2', 'avx512'].includes(name))) {
    for (const [format, real] of [
      ['e8m7', 'bf16'],
      ['e5m10', 'fp16'],
      ['e8m23', 'fp32'],
    ] as const) {
      it(`${format} has the bits of ${real}, forward, backward and sampled, at ${level}`, async () => {
        setVectorLevel(level);
        assertSame(await outcome(format), await outcome(real));
        const mixture = (precision: FloatDType) => outcome(precision, undefined, mixtureFields);
        assertSame(await mixture(format), await mixture(real));
      });
    }
  }

  it('have the same bits on any number of threads and at every level with fused multiply-adds', async () => {
    const levels = vectorLevels().filter((level) => level !== 'portable');
    setThreads(1);
    const expected = await outcome('e8m4');
    for (const level of levels) {
      setVectorLevel(level);
      setThreads(3);
      assertSame(await outcome('e8m4'), expected);
    }
  });

  it('agree to the bit with matched numerics, and differ more the fewer mantissa bits there are', async () => {
    const matched = { rollout: numerics('matched'), training: numerics('matched') };
    const gaps: number[] = [];
    for (const format of ['e8m10', 'e8m7', 'e8m4'] as const) {
      const same = await outcome(format, matched);
      assertSameBits(same.mu, same.pi, format);
      const { mu, pi } = await outcome(format);
      gaps.push(mu.reduce((sum, x, t) => sum + Math.abs(x - pi[t]!), 0) / mu.length);
    }
    assert.ok(gaps[0]! > 0 && gaps[1]! > 4 * gaps[0]! && gaps[2]! > 4 * gaps[1]!, gaps.join(', '));
  });

  it('take any pair of formats', async () => {
    using model = oddModel();
    const sequences = batch(model.config.vocabSize);
    using rollout = new RolloutEngine(model, { precision: 'e4m3' });
    using training = new TrainingEngine(model, {
      precision: 'bf16',
      schedule: { kind: 'constant', learningRate: 0 },
    });
    const [mu, pi] = [await rollout.score(sequences), await training.score(sequences)];
    assert.ok(mu.logprobs.every(Number.isFinite) && pi.logprobs.every(Number.isFinite));
    assert.throws(
      () => new RolloutEngine(model, { precision: 'e4m33' as FloatDType }),
      /precision to be fp16/,
    );
  });
});
