/** Real engines in an environment of its own, whose peak is that of one phase: the truth that estimates are compared with. */
import { parentPort, workerData } from 'node:worker_threads';
import type { DecoderConfig } from '../../lib/models/config.js';
import { Decoder } from '../../lib/models/decoder.js';
import { addLora } from '../../lib/models/lora.js';
import type { MemoryOptions } from '../../lib/rl/memory.js';
import { DecodeStep } from '../../lib/rollout/decodeStep.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { KvCache } from '../../lib/rollout/kvCache.js';
import { memory } from '../../lib/runtime.js';
import { AdamW } from '../../lib/training/adamW.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { randomTokens } from '../support/models.js';

export type Phase = 'prefill' | 'scoring' | 'forward and backward' | 'all';

export interface MemoryCase {
  readonly config: DecoderConfig;
  readonly options: Required<Omit<MemoryOptions, 'rolloutNumerics'>>;
  readonly phase: Phase;
}

/** Bytes: what each part took, all that lasts, what the phase took beyond it, and what the allocator then has in all. */
export interface MemoryTruth {
  readonly masters: number;
  readonly moments: number;
  readonly training: number;
  readonly cache: number;
  readonly rollout: number;
  readonly decodeSteps: number;
  readonly gradients: number;
  readonly lasting: number;
  readonly phase: number;
  readonly resident: number;
}

const { config, options, phase } = workerData as MemoryCase;
const { maxBatch, maxLength, kvPages, maxPromptLength, microBatchTokens, recompute } = options;

let before = memory().bytes;
function taken(): number {
  const { bytes } = memory();
  const delta = bytes - before;
  before = bytes;
  return delta;
}

const model = new Decoder(config, { seed: 3 });
if (options.lora) addLora(model, { ...options.lora, alpha: 8 }, { seed: 4 });
const masters = taken();
const optimizer = new AdamW(model.trainable);
for (const parameter of optimizer.parameters) optimizer.moments(parameter);
const moments = taken();
optimizer.dispose();
const slots = { slots: maxBatch, maxLength, pages: kvPages, dtype: options.rolloutPrecision };
const kvCache = new KvCache(model.config, slots);
before = masters;
const cache = taken();
kvCache[Symbol.dispose]();
before = masters;

const training = new TrainingEngine(model, {
  precision: options.trainingPrecision,
  schedule: { kind: 'constant', learningRate: 1e-4 },
  lossScaler: 'static:1',
  microBatchTokens,
  recompute,
});
for (const parameter of training.optimizer.parameters) training.optimizer.moments(parameter);
const trainingBytes = taken();
const rollout = new RolloutEngine(model, {
  precision: options.rolloutPrecision,
  lora: options.loraMode,
  maxBatch,
  maxLength,
  kvPages,
  maxPrefillTokens: options.maxPrefillTokens,
});
const rolloutBytes = taken();

const prompts = (count: number, length: number) =>
  Array.from({ length: count }, (_, i) => ({
    prompt: randomTokens(length, config.vocabSize, i),
    promptId: i,
    sampleId: 0,
  }));
const generate = (count: number, length: number, maxNewTokens: number) =>
  rollout.generate(prompts(count, length), { seed: 1, maxNewTokens, stopTokens: [] });
const sequences = (count: number, length: number) =>
  Array.from({ length: count }, (_, i) => ({
    prompt: [i],
    response: randomTokens(length, config.vocabSize, i),
  }));
const update = (count: number, length: number) =>
  training.step(sequences(count, length), ({ logprobs }) => ({
    loss: 0,
    gradient: logprobs.map(() => 1e-3),
    metrics: {},
  }));

for (const count of DecodeStep.rowCounts(maxBatch)) await generate(count, 1, 3);
const decodeSteps = taken();
const { skipped } = await update(1, 2);
if (skipped) throw new Error('a step was skipped');
const gradients = taken();
const lasting = memory().bytes;

const longest = maxLength - 1;
const full = microBatchTokens / longest;
rollout.syncWeights();
if (phase === 'prefill' || phase === 'all') await generate(maxBatch, maxPromptLength, 1);
if (phase === 'scoring' || phase === 'all') await training.score(sequences(full, longest));
if (phase === 'forward and backward' || phase === 'all') await update(full, longest);

const after = memory();
if (after.bytes !== lasting) throw new Error(`${after.bytes - lasting} bytes left behind`);
const truth: MemoryTruth = {
  masters,
  moments,
  training: trainingBytes,
  cache,
  rollout: rolloutBytes,
  decodeSteps,
  gradients,
  lasting,
  phase: after.peakBytes - lasting,
  resident: after.bytes + after.cachedBytes,
};
parentPort!.postMessage(truth);
