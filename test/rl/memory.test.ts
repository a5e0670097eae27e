/** What a run is said to take in memory against what real engines take. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import os from 'node:os';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { formatBytes } from '../../lib/bytes.js';
import { InvalidArgumentError } from '../../lib/errors.js';
import type { DecoderConfig } from '../../lib/models/config.js';
import { availableMemory, checkMemory } from '../../lib/rl/checkMemory.js';
import { estimateMemory, type MemoryEstimate, type MemoryOptions } from '../../lib/rl/memory.js';
import { memory } from '../../lib/runtime.js';
import { blockBytes } from '../../lib/tensor/allocatorModel.js';
import { empty } from '../../lib/tensor/tensor.js';
import type { MemoryCase, MemoryTruth, Phase } from './memoryWorker.js';

async function measure(
  config: DecoderConfig,
  options: MemoryCase['options'],
  phase: Phase,
): Promise<MemoryTruth> {
  const worker = new Worker(new URL('./memoryWorker.js', import.meta.url), {
    workerData: { config, options, phase } satisfies MemoryCase,
  });
  const [truth] = await once(worker, 'message');
  await worker.terminate();
  return truth as MemoryTruth;
}

function named({ rows, phases }: MemoryEstimate): Record<string, number> {
  return Object.fromEntries([...rows, ...phases].map(({ name, bytes }) => [name, bytes]));
}

const small: DecoderConfig = {
  vocabSize: 301,
  hiddenSize: 96,
  intermediateSize: 200,
  numLayers: 3,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 20,
  maxPositionEmbeddings: 130,
};

const settings: MemoryCase['options'] = {
  trainingPrecision: 'fp32',
  rolloutPrecision: 'fp32',
  microBatchTokens: 4 * 96,
  recompute: 'none',
  lora: null,
  loraMode: 'merged',
  maxBatch: 5,
  maxLength: 97,
  maxPromptLength: 90,
  kvPages: 37,
  maxPrefillTokens: 500,
};

interface Case {
  readonly config: DecoderConfig;
  readonly options: Partial<MemoryOptions>;
}

const cases: Record<string, Case> = {
  'fp32, own head': { config: small, options: {} },
  'bf16, tied head, norms of heads': {
    config: { ...small, tieWordEmbeddings: true, qkNorm: true },
    options: { trainingPrecision: 'bf16', rolloutPrecision: 'bf16' },
  },
  'fp16 and fp32, biases, one wide layer': {
    config: {
      ...small,
      numLayers: 1,
      hiddenSize: 128,
      intermediateSize: 90,
      headDim: 64,
      attentionBias: true,
      mlpBias: true,
      attentionOutBias: true,
    },
    options: { trainingPrecision: 'fp16', maxBatch: 4, kvPages: 28 },
  },
  'bf16 and fp16, mixtures of experts, a dense layer, norms of heads': {
    config: {
      ...small,
      qkNorm: true,
      numExperts: 6,
      numExpertsPerToken: 2,
      moeIntermediateSize: 56,
      denseLayers: [1],
    },
    options: { trainingPrecision: 'bf16', rolloutPrecision: 'fp16' },
  },
  'fp16, merged adapter of everything': {
    config: { ...small, attentionBias: true, tieWordEmbeddings: true },
    options: { trainingPrecision: 'fp16', rolloutPrecision: 'fp16', lora: { rank: 12 } },
  },
  'bf16, adapter of some projections beside the weights': {
    config: small,
    options: {
      trainingPrecision: 'bf16',
      rolloutPrecision: 'bf16',
      lora: { rank: 24, targets: ['q_proj', 'v_proj', 'gate_proj', 'up_proj', 'down_proj'] },
      loraMode: 'factored',
    },
  },
  'fp32, mixtures of experts, adapter of the attention': {
    config: { ...small, numExperts: 4, numExpertsPerToken: 3, moeIntermediateSize: 60 },
    options: { lora: { rank: 8 } },
  },
};

// Under AddressSanitizer blocks are as large as what is asked for, so that a write past the end shows.
using line = empty([1]);
const exact = memory().bytes === blockBytes(line.bytes);
const skip = exact ? false : 'this build has no size classes';

describe('estimateMemory', () => {
  for (const [name, { config, options }] of Object.entries(cases)) {
    for (const recompute of ['none', 'layers'] as const) {
      it(`is the truth: ${name}, recompute ${recompute}`, { skip }, async () => {
        const own = { ...settings, ...options, recompute };
        const estimate = estimateMemory(config, own);
        const said = named(estimate);
        const phases: Exclude<Phase, 'all'>[] = ['forward and backward'];
        // What takes no gradients is measured with one of them.
        if (recompute === 'none') phases.push('prefill', 'scoring');
        else {
          const other = named(estimateMemory(config, { ...own, recompute: 'none' }));
          for (const name of ['prefill', 'scoring']) assert.equal(said[name], other[name], name);
        }
        for (const phase of phases) {
          const truth = await measure(config, own, phase);
          assert.equal(said['master weights'], truth.masters);
          assert.equal(said['optimizer moments'], truth.moments);
          assert.equal(said.gradients, truth.gradients);
          const { maxPositionEmbeddings, headDim } = config;
          const table = blockBytes(maxPositionEmbeddings * headDim! * 4);
          assert.equal(said['training weights'], truth.training - truth.moments - table);
          assert.equal(said['KV cache'], truth.cache);
          assert.equal(
            said['rollout weights']! + said['KV cache']! + said['position tables']! - table,
            truth.rollout,
          );
          assert.equal(said['decode steps']! + said['decode logits']!, truth.decodeSteps);
          assert.equal(estimate.lastingBytes, truth.lasting);
          // The bounds of sequences, [sequences + 1], count as many as there are tokens: nobody knows how many there will be.
          const over = said[phase]! - truth.phase;
          assert.ok(
            over >= 0 && over <= 4 * own.microBatchTokens,
            `${phase}: ${said[phase]}, ${truth.phase}`,
          );
        }
        // Which cached block is taken for what depends on the order of small things, too.
        const { resident } = await measure(config, own, 'all');
        const ratio = estimate.residentBytes / resident;
        assert.ok(ratio > 0.98 && ratio < 1.02, `${estimate.residentBytes}, ${resident}`);
      });
    }
  }

  it('takes no memory, whatever the model', () => {
    const before = memory();
    const qwen3: DecoderConfig = {
      vocabSize: 151936,
      hiddenSize: 5120,
      intermediateSize: 25600,
      numLayers: 64,
      numHeads: 64,
      numKvHeads: 8,
      headDim: 128,
      maxPositionEmbeddings: 40960,
      qkNorm: true,
    };
    const mixture = { hiddenSize: 2048, numLayers: 48, numHeads: 32, numKvHeads: 4, numExperts: 128 };
    const bf16 = {
      trainingPrecision: 'bf16',
      rolloutPrecision: 'bf16',
      maxLength: 4096,
      maxBatch: 64,
    } as const;
    const of32b = estimateMemory(qwen3, bf16);
    const adapted = estimateMemory(qwen3, { ...bf16, lora: { rank: 16 } });
    const of30b = estimateMemory(
      { ...qwen3, ...mixture, numExpertsPerToken: 8, moeIntermediateSize: 768 },
      bf16,
    );
    assert.deepEqual(memory(), before);
    assert.equal(of32b.parameters, 32_762_123_264, 'as published');
    assert.equal(of30b.parameters, 30_532_122_624, 'as published');
    assert.equal(of32b.trainableParameters, of32b.parameters);
    const inputsAndOutputs = 5120 + 8192 + 2 * (5120 + 1024) + 8192 + 5120 + 3 * (5120 + 25600);
    assert.equal(adapted.trainableParameters, 64 * 16 * inputsAndOutputs);

    // Blocks are up to an eighth larger than what is in them.
    const near = (estimate: MemoryEstimate, name: string, bytes: number) => {
      const said = named(estimate)[name]!;
      assert.ok(said >= bytes && said < 1.125 * bytes, `${name}: ${said}, ${bytes}`);
    };
    for (const estimate of [of32b, of30b]) {
      near(estimate, 'master weights', 4 * estimate.parameters);
      near(estimate, 'optimizer moments', 8 * estimate.parameters);
      near(estimate, 'rollout weights', 2 * estimate.parameters);
      const { lastingBytes, peakBytes, residentBytes, rows } = estimate;
      assert.equal(
        lastingBytes,
        rows.reduce((sum, { bytes }) => sum + bytes, 0),
      );
      assert.equal(peakBytes, lastingBytes + named(estimate)['forward and backward']!);
      assert.ok(residentBytes >= peakBytes);
    }
    near(of32b, 'KV cache', 2 * 2 * 64 * 8 * 128 * 64 * 4096);
    near(of30b, 'KV cache', 2 * 2 * 48 * 4 * 128 * 64 * 4096);
    near(adapted, 'optimizer moments', 8 * adapted.trainableParameters);
    near(adapted, 'gradients', 4 * adapted.trainableParameters);
  });

  it('grows with sequences that do not fit into a micro-batch or a prefill pass', () => {
    const phase = (name: string, options: Partial<MemoryOptions>) =>
      named(estimateMemory(small, { ...settings, ...options }))[name]!;
    const alone = phase('forward and backward', { microBatchTokens: 1 });
    assert.equal(alone, phase('forward and backward', { microBatchTokens: 96 }));
    assert.ok(alone < phase('forward and backward', { microBatchTokens: 97 }));
    assert.equal(phase('prefill', { maxPrefillTokens: 1 }), phase('prefill', { maxPrefillTokens: 90 }));
    assert.equal(phase('prefill', { maxPrefillTokens: 450 }), phase('prefill', { maxPrefillTokens: 9000 }));
  });

  it('has the engines’ defaults and checks', () => {
    const { trainingPrecision, rolloutPrecision } = settings;
    const short = { trainingPrecision, rolloutPrecision };
    const all = {
      ...short,
      recompute: 'none',
      microBatchTokens: 4096,
      maxBatch: 256,
      maxLength: 130,
    } as const;
    const pages = { maxPromptLength: 130, kvPages: 256 * 9, maxPrefillTokens: 8192 };
    const [a, b] = [estimateMemory(small, short), estimateMemory(small, { ...all, ...pages })];
    assert.deepEqual([a.rows, a.phases, a.residentBytes], [b.rows, b.phases, b.residentBytes]);
    const wrong = (options: Partial<MemoryOptions>, message: RegExp) =>
      assert.throws(() => estimateMemory(small, { ...settings, ...options }), message);
    wrong(
      { maxLength: 131 },
      /\[estimateMemory\] expected maxLength to be an integer .* at most 130, got 131/,
    );
    wrong({ kvPages: 6 }, /expected kvPages to be an integer of at least 7, got 6/);
    wrong({ maxBatch: 0 }, /expected maxBatch/);
    wrong({ recompute: 'all' as 'layers' }, /expected recompute to be one of none, layers/);
    wrong({ rolloutPrecision: 'float16' as 'fp16' }, /expected rolloutPrecision .* \(did you mean fp16\?\)/);
  });
});

describe('checkMemory', () => {
  const estimate = estimateMemory(small, { trainingPrecision: 'bf16', rolloutPrecision: 'fp16' });

  it('lets a run pass that fits', () => {
    checkMemory(estimate, estimate.residentBytes);
    checkMemory(estimate);
  });

  it('tells the total, the largest parts and what would help', () => {
    const total = formatBytes(estimate.residentBytes).replaceAll('.', '\\.');
    const withOptions = (options: Partial<MemoryOptions>) =>
      formatBytes(estimateMemory(small, { ...estimate.options, ...options }).residentBytes);
    const recomputed = withOptions({ recompute: 'layers' });
    assert.throws(
      () => checkMemory(estimate, estimate.residentBytes - 1),
      (error: Error) => {
        assert.ok(error instanceof InvalidArgumentError);
        assert.match(
          error.message,
          /^\[memory\] expected a run within the [\d.]+ MiB of memory that are available, /,
        );
        assert.match(
          error.message,
          new RegExp(`got one that takes ${total} \\(most of it: forward and backward `),
        );
        assert.ok(error.message.includes(`recomputation of layers (${recomputed})`));
        assert.ok(error.message.includes('micro-batches of 1024 tokens ('));
        // An adapter would save little where activations are most of it.
        assert.ok(!error.message.includes('LoRA'));
        const all = {
          recompute: 'layers',
          microBatchTokens: 1024,
          maxBatch: 64,
        } as const;
        assert.ok(error.message.endsWith(`all of these (${withOptions(all)}), a smaller model`));
        assert.ok(error.message.includes(`64 sequences at once (${withOptions({ maxBatch: 64 })})`));
        return true;
      },
    );
  });

  it('names no option that would not help', () => {
    const least = { microBatchTokens: 96, maxBatch: 1, kvPages: 7, lora: { rank: 1 } };
    const lean = estimateMemory(small, { ...settings, recompute: 'layers', ...least });
    assert.throws(() => checkMemory(lean, 1000), /what would help: a smaller model$/);
  });

  it('takes what the system has available, within the limit of the process', () => {
    const available = availableMemory();
    assert.ok(available > 0 && available <= os.totalmem());
  });
});
