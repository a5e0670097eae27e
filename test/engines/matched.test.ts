import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { mismatchMetrics } from '../../lib/mismatch/metrics.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { info, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertSameBits } from '../support/compare.js';
import { onEmulator } from '../support/cuda.js';
import { vectorLevels } from '../support/levels.js';
import { mixtureFields, oddModel, randomTokens } from '../support/models.js';

const schedule = { kind: 'constant', learningRate: 0 } as const;

// Prompt and response lengths around the 16-key vectors, 64-key tiles and 256-key chunks.
const lengths = [
  [1, 1],
  [1, 15],
  [3, 14],
  [15, 2],
  [17, 47],
  [31, 33],
  [64, 1],
  [100, 157],
  // More chunks of 256 keys than one and a part, half of all tokens: on the emulator the tests of attention alone have those.
  ...(onEmulator() ? [] : [[250, 263] as const]),
] as const;

function sequences(vocabSize: number): TokenSequence[] {
  return lengths.map(([prompt, response], i) => ({
    prompt: randomTokens(prompt, vocabSize, 100 + i),
    response: randomTokens(response, vocabSize, 200 + i),
  }));
}

describe('matched numerics', () => {
  const { threads, vectorLevel } = info();
  afterEach(() => {
    setThreads(threads);
    setVectorLevel(vectorLevel);
  });

  for (const precision of floatDtypes) {
    for (const [level, experts] of vectorLevels().flatMap(
      (each) =>
        [
          [each, false],
          [each, true],
        ] as const,
    )) {
      const kind = experts ? 'a mixture of experts' : 'a dense model';
      it(`both engines agree to the bit on ${kind} in ${precision} at ${level}, whatever the batch and the threads`, async () => {
        setVectorLevel(level);
        using model = oddModel({
          tieWordEmbeddings: precision === 'bf16',
          attentionBias: precision !== 'fp32',
          qkNorm: precision !== 'fp16',
          ...(experts && mixtureFields),
        });
        const all = sequences(model.config.vocabSize);
        const matched = numerics('matched');
        using rollout = new RolloutEngine(model, { precision, numerics: matched, maxBatch: 4 });
        using training = new TrainingEngine(model, {
          precision,
          numerics: matched,
          schedule,
          microBatchTokens: 500,
        });
        setThreads(1);
        const mu = await rollout.score(all);
        const pi = await training.score(all);
        assertSameBits(mu.logprobs, pi.logprobs, 'log-probs');
        assertSameBits(mu.entropy, pi.entropy, 'entropies');
        const metrics = mismatchMetrics({
          offsets: mu.offsets,
          rolloutLogprobs: mu.logprobs,
          logprobs: pi.logprobs,
          mask: new Uint8Array(mu.logprobs.length).fill(1),
        });
        for (const name of [
          'klMuPiK1',
          'klMuPiK2',
          'klMuPiK3',
          'maxProbDiff',
          'meanAbsLogRatio',
          'seqLogRatioPer1k',
        ] as const) {
          assert.ok(Object.is(metrics[name], 0), `${name} is ${metrics[name]}`);
        }

        // Alone, reversed, and on three threads.
        setThreads(3);
        using smallBatches = new TrainingEngine(model, {
          precision,
          numerics: matched,
          schedule,
          microBatchTokens: 1,
        });
        assertSameBits((await smallBatches.score(all)).logprobs, pi.logprobs, 'one sequence a pass');
        const reversed = await rollout.score([...all].reverse());
        const last = all.length - 1;
        const parts = all.map((_, i) =>
          reversed.logprobs.subarray(reversed.offsets[last - i], reversed.offsets[last - i + 1]),
        );
        assertSameBits(Float64Array.from(parts.flatMap((p) => [...p])), mu.logprobs, 'reversed order');
      });
    }

    for (const experts of [false, true])
      it(`sampled log-probs of ${experts ? 'a mixture' : 'a dense model'} equal the training engine's in ${precision}`, async () => {
        using model = oddModel({ qkNorm: true, ...(experts && mixtureFields) });
        const matched = numerics('matched');
        using rollout = new RolloutEngine(model, { precision, numerics: matched, maxBatch: 5 });
        using training = new TrainingEngine(model, {
          precision,
          numerics: matched,
          schedule,
          temperature: 0.7,
        });
        const requests = Array.from({ length: onEmulator() ? 7 : 11 }, (_, i) => ({
          prompt: randomTokens(1 + 7 * i, model.config.vocabSize, i),
          promptId: i,
          sampleId: 3,
        }));
        const completions = await rollout.generate(requests, {
          seed: 5,
          temperature: 0.7,
          maxNewTokens: 40,
          stopTokens: [4],
        });
        assert.ok(completions.some(({ finishReason }) => finishReason === 'stop'));
        const pi = await training.score(
          completions.map(({ tokens }, i) => ({ prompt: requests[i]!.prompt, response: tokens })),
        );
        assertSameBits(
          Float64Array.from(completions.flatMap(({ logprobs }) => [...logprobs])),
          pi.logprobs,
          'log-probs',
        );
      });
  }

  it('without it the engines differ, about eight times more in bf16 than in fp16', async () => {
    using model = oddModel();
    const all = sequences(model.config.vocabSize);
    const measured: Partial<Record<NativeFloatDType, number>> = {};
    for (const precision of floatDtypes) {
      using rollout = new RolloutEngine(model, { precision });
      using training = new TrainingEngine(model, { precision, schedule });
      const mu = await rollout.score(all);
      const pi = await training.score(all);
      measured[precision] = mismatchMetrics({
        offsets: mu.offsets,
        rolloutLogprobs: mu.logprobs,
        logprobs: pi.logprobs,
        mask: new Uint8Array(mu.logprobs.length).fill(1),
      }).meanAbsLogRatio;
    }
    const ratio = measured.bf16! / measured.fp16!;
    assert.ok(ratio > 5 && ratio < 12, `bf16 / fp16 is ${ratio}`);
    assert.ok(measured.fp16! > 20 * measured.fp32!, `fp16 ${measured.fp16}, fp32 ${measured.fp32}`);
  });
});
