import type { Parameter } from '../autograd/parameter.js';
import { checkChoice, checkInteger } from '../errors.js';
import { type DecoderConfig, resolveDecoderConfig } from '../models/config.js';
import { Decoder } from '../models/decoder.js';
import { type Numerics, numerics } from '../numerics.js';
import { packedSize } from '../ops/packWeight.js';
import { KvCache } from '../rollout/kvCache.js';
import { RolloutMemory } from '../rollout/memory.js';
import { packableParameters } from '../rollout/packable.js';
import { info } from '../runtime.js';
import { AllocatorModel } from '../tensor/allocatorModel.js';
import { bytesPerElement, checkFloatDtype, type FloatDType } from '../tensor/dtype.js';
import { type Recompute, recomputeModes } from '../training/engine.js';
import { TrainingPassMemory } from '../training/memory.js';

/** The options of a training run that decide how much memory it takes; defaults are those of the engines. */
export interface MemoryOptions {
  readonly trainingPrecision: FloatDType;
  readonly rolloutPrecision: FloatDType;
  /** Default: the `rollout` preset. */
  readonly rolloutNumerics?: Numerics;
  /** Most tokens of one forward and backward pass; default 4096. */
  readonly microBatchTokens?: number;
  readonly recompute?: Recompute;
  /** Sequences decoded at once; default 256. */
  readonly maxBatch?: number;
  /** Longest sequence, prompt and response together; default the model's maxPositionEmbeddings. */
  readonly maxLength?: number;
  /** Longest prompt; default maxLength. */
  readonly maxPromptLength?: number;
  /** Pages of 16 positions in the KV cache; default enough for maxBatch sequences of maxLength. */
  readonly kvPages?: number;
  /** Most prompt tokens of one prefill pass; default 8192. */
  readonly maxPrefillTokens?: number;
}

export interface MemoryRow {
  readonly name: string;
  readonly bytes: number;
  /** What it is made of, in a few words. */
  readonly note: string;
}

export interface MemoryEstimate {
  readonly parameters: number;
  /** What is held from the first step to the last. */
  readonly rows: readonly MemoryRow[];
  /** What comes on top while a phase of a step runs, one after the other. */
  readonly phases: readonly MemoryRow[];
  /** Of all rows together. */
  readonly lastingBytes: number;
  /** The most that tensors hold at once: `memory().peakBytes`. */
  readonly peakBytes: number;
  /**
   * What the process takes for it: the allocator keeps blocks of a phase that the others have no use for. Beside it Node has
   * some 100 MiB and each thread some MB of scratch.
   */
  readonly residentBytes: number;
  /** As asked for, to be estimated again otherwise. */
  readonly config: DecoderConfig;
  readonly options: MemoryOptions;
}

const where = 'estimateMemory';

/**
 * What a training run takes in memory: a model, a rollout and a training engine at the same time, with batches as large as
 * the options allow. Nothing is allocated and no weight is read: a model of any size is answered at once.
 *
 * The engines' own allocations are followed one by one, so that lasting rows are exact and phases are those of a full
 * micro-batch whose sequences have prompts of one token. Scores by the rollout engine, whole distributions and gradients
 * read to JavaScript, which instruments ask for, are not counted.
 *
 * @throws InvalidArgumentError on a bad config or option
 */
export function estimateMemory(config: DecoderConfig, options: MemoryOptions): MemoryEstimate {
  const resolved = resolveDecoderConfig(config);
  const o = resolve(options, resolved.maxPositionEmbeddings);
  const model = new Decoder(config, { seed: null }); // its masters are never asked for
  const { parameters } = model;
  const memory = new AllocatorModel();
  const rows: MemoryRow[] = [];
  const held = (name: string, note: string, body: () => void) => {
    const before = memory.bytes;
    body();
    rows.push({ name, bytes: memory.bytes - before, note });
  };
  const each = (dtype: FloatDType) => () => {
    for (const { size } of parameters) memory.take(size * bytesPerElement(dtype));
  };

  held('master weights', 'fp32', each('fp32'));
  held('optimizer moments', 'fp32, two of each parameter', () => {
    for (let i = 0; i < 2; i++) each('fp32')();
  });
  held('gradients', 'fp32, added up over micro-batches', each('fp32'));
  held('training weights', o.trainingPrecision, each(o.trainingPrecision));
  const packed = new Set(packableParameters(model, o.rolloutNumerics));
  const snapshot = () => rolloutWeights(memory, model, packed, o.rolloutPrecision);
  held('rollout weights', `${o.rolloutPrecision}, packed for products`, snapshot);
  const rollout = new RolloutMemory(memory, resolved, {
    ...o,
    precision: o.rolloutPrecision,
    numerics: o.rolloutNumerics,
  });
  held('KV cache', `${o.rolloutPrecision}, ${o.kvPages} pages of 16 positions`, () => rollout.cache());
  held('position tables', 'rotary angles of both engines, orders of heads', () => {
    rollout.tables();
    memory.take(resolved.maxPositionEmbeddings * resolved.headDim * 4);
  });
  held('decode steps', `recorded, up to ${o.maxBatch} sequences`, () => rollout.decodeSteps());
  const steps = rows.pop()!;
  const logits = rollout.decodeLogits();
  rows.push({ ...steps, bytes: steps.bytes - logits });
  rows.push({ name: 'decode logits', bytes: logits, note: `${resolved.vocabSize} a sequence` });

  const lastingBytes = memory.bytes;
  const phases: MemoryRow[] = [];
  const phase = (name: string, note: string, body: () => void) => {
    memory.resetPeak();
    body();
    phases.push({ name, bytes: memory.peakBytes - lastingBytes, note });
  };
  const training = new TrainingPassMemory(memory, resolved, o.trainingPrecision);
  phase('weight sync', 'the largest weight before it is packed', () => {
    for (const parameter of packed)
      if (parameter !== model.embedding)
        memory.give(memory.take(parameter.size * bytesPerElement(o.rolloutPrecision)));
  });
  phase('prefill', `${o.prefillTokens} prompt tokens`, () => rollout.prefill(o.prefillTokens, o.maxBatch));
  phase('scoring', `${o.passTokens} tokens, one layer at a time`, () => training.score(o.passTokens));
  phase(
    'forward and backward',
    `${o.passTokens} tokens, ${o.recompute === 'layers' ? 'layers computed again' : 'all activations kept'}`,
    () => training.microBatch(o.passTokens, o.recompute),
  );
  return {
    parameters: model.parameterCount,
    rows,
    phases,
    lastingBytes,
    peakBytes: lastingBytes + Math.max(...phases.map(({ bytes }) => bytes)),
    residentBytes: memory.bytes + memory.cachedBytes,
    config,
    options,
  };
}

function rolloutWeights(
  memory: AllocatorModel,
  { parameters, embedding }: Decoder,
  packed: ReadonlySet<Parameter>,
  precision: FloatDType,
): void {
  const { vectorLevel } = info();
  const size = bytesPerElement(precision);
  for (const parameter of parameters) {
    const plain = memory.take(parameter.size * size);
    if (!packed.has(parameter)) continue;
    memory.take(packedSize(parameter.shape, precision, vectorLevel) * size);
    if (parameter !== embedding) memory.give(plain);
  }
}

function resolve(options: MemoryOptions, maxPositionEmbeddings: number) {
  const integer = (name: keyof MemoryOptions, fallback: number, min = 1, max?: number) =>
    checkInteger(where, name, options[name] ?? fallback, min, max);
  const maxBatch = integer('maxBatch', 256, 1, 65536);
  const maxLength = integer('maxLength', maxPositionEmbeddings, 1, maxPositionEmbeddings);
  const maxPromptLength = integer('maxPromptLength', maxLength, 1, maxLength);
  const perSequence = KvCache.pagesFor(maxLength);
  // A sequence that is longer than a pass may have a pass of its own.
  const prefill = Math.max(integer('maxPrefillTokens', 8192), maxPromptLength);
  return {
    trainingPrecision: checkFloatDtype(where, 'trainingPrecision', options.trainingPrecision),
    rolloutPrecision: checkFloatDtype(where, 'rolloutPrecision', options.rolloutPrecision),
    rolloutNumerics: options.rolloutNumerics ?? numerics('rollout'),
    recompute: checkChoice(where, 'recompute', options.recompute ?? 'none', recomputeModes),
    maxBatch,
    maxLength,
    kvPages: integer('kvPages', maxBatch * perSequence, perSequence),
    prefillTokens: Math.min(prefill, maxBatch * maxPromptLength),
    passTokens: Math.max(integer('microBatchTokens', 4096), maxLength - 1),
  };
}
