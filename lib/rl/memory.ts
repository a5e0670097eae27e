import type { Parameter } from '../autograd/parameter.js';
import { checkChoice, checkInteger } from '../errors.js';
import { type DecoderConfig, type ResolvedDecoderConfig, resolveDecoderConfig } from '../models/config.js';
import { Decoder } from '../models/decoder.js';
import { addLora } from '../models/lora.js';
import { loraColumns } from '../models/passMemory.js';
import type { LoraConfig } from '../nn/lora.js';
import { type Numerics, numerics } from '../numerics.js';
import { defaultMaxBatch, type LoraMode, loraModes } from '../rollout/engine.js';
import { KvCache } from '../rollout/kvCache.js';
import { RolloutMemory } from '../rollout/memory.js';
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
  /** The adapter that is trained in place of the weights; default null, none. Targets: default all that the model has. */
  readonly lora?: Pick<LoraConfig, 'rank' | 'targets'> | null;
  /** How the rollout engine computes with it; default merged. */
  readonly loraMode?: LoraMode;
  /** Sequences decoded at once; default 256, or as many as the engine finds memory for. */
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
  /** Of the model and its adapter. */
  readonly parameters: number;
  readonly trainableParameters: number;
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
   * some 70 MiB and each thread some MB of scratch.
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
 * micro-batch whose sequences have prompts of one token. Scores by the rollout engine, whole distributions, recorded routes
 * and gradients read to JavaScript, which some runs ask for, are not counted.
 *
 * @throws InvalidArgumentError on a bad config or option
 */
export function estimateMemory(config: DecoderConfig, options: MemoryOptions): MemoryEstimate {
  const resolved = resolveDecoderConfig(config);
  const o = resolve(options, resolved);
  const model = new Decoder(config, { seed: null }); // its masters are never asked for
  if (o.lora) addLora(model, { ...o.lora, alpha: o.lora.rank }, { seed: null });
  const { trainable, lora } = model;
  const parameters = [...model.parameters, ...(lora?.parameters ?? [])];
  const memory = new AllocatorModel();
  const rows: MemoryRow[] = [];
  const held = (name: string, note: string, body: () => void) => {
    const before = memory.bytes;
    body();
    rows.push({ name, bytes: memory.bytes - before, note });
  };
  const copies = (of: readonly Parameter[], dtype: FloatDType) => {
    for (const { size } of of) memory.take(size * bytesPerElement(dtype));
  };
  const what = lora ? ' of the adapter' : '';

  held('master weights', `fp32${lora ? ', frozen, and the adapter' : ''}`, () => copies(parameters, 'fp32'));
  held('optimizer moments', `fp32, two of each parameter${what}`, () => {
    copies([...trainable, ...trainable], 'fp32');
  });
  held('gradients', `fp32${what}, added up over micro-batches`, () => copies(trainable, 'fp32'));
  held('training weights', o.trainingPrecision, () => copies(parameters, o.trainingPrecision));
  const { rolloutPrecision: precision, rolloutNumerics } = o;
  const rollout = new RolloutMemory(memory, model, { ...o, precision, numerics: rolloutNumerics });
  held('rollout weights', `${precision}, packed for products`, () => rollout.weights());
  held('KV cache', `${precision}, ${o.kvPages} pages of 16 positions`, () => rollout.cache());
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
  const columns = loraColumns(model, numerics('training').loraScaleFirst);
  const training = new TrainingPassMemory(memory, resolved, o.trainingPrecision, columns);
  phase('weight sync', 'the largest weight before it is packed', () => rollout.sync());
  phase('prefill', `${o.prefillTokens} prompt tokens`, () => rollout.prefill(o.prefillTokens, o.maxBatch));
  phase('scoring', `${o.passTokens} tokens, one layer at a time`, () => training.score(o.passTokens));
  phase(
    'forward and backward',
    `${o.passTokens} tokens, ${o.recompute === 'layers' ? 'layers computed again' : 'all activations kept'}`,
    () => training.microBatch(o.passTokens, o.recompute),
  );
  return {
    parameters: count(parameters),
    trainableParameters: count(trainable),
    rows,
    phases,
    lastingBytes,
    peakBytes: lastingBytes + Math.max(...phases.map(({ bytes }) => bytes)),
    residentBytes: memory.bytes + memory.cachedBytes,
    config,
    options,
  };
}

function count(parameters: readonly Parameter[]): number {
  return parameters.reduce((sum, { size }) => sum + size, 0);
}

function resolve(options: MemoryOptions, config: ResolvedDecoderConfig) {
  const { maxPositionEmbeddings } = config;
  const integer = (name: keyof MemoryOptions, fallback: number, min = 1, max?: number) =>
    checkInteger(where, name, options[name] ?? fallback, min, max);
  const maxLength = integer('maxLength', maxPositionEmbeddings, 1, maxPositionEmbeddings);
  const maxPromptLength = integer('maxPromptLength', maxLength, 1, maxLength);
  const rolloutPrecision = checkFloatDtype(where, 'rolloutPrecision', options.rolloutPrecision);
  const usual = defaultMaxBatch(config, maxLength, rolloutPrecision);
  const maxBatch = integer('maxBatch', usual, 1, 65536);
  const perSequence = KvCache.pagesFor(maxLength);
  // A sequence that is longer than a pass may have a pass of its own.
  const prefill = Math.max(integer('maxPrefillTokens', 8192), maxPromptLength);
  return {
    trainingPrecision: checkFloatDtype(where, 'trainingPrecision', options.trainingPrecision),
    rolloutPrecision,
    rolloutNumerics: options.rolloutNumerics ?? numerics('rollout'),
    recompute: checkChoice(where, 'recompute', options.recompute ?? 'none', recomputeModes),
    lora: options.lora ?? null,
    loraMode: checkChoice(where, 'loraMode', options.loraMode ?? 'merged', loraModes),
    maxBatch,
    maxLength,
    kvPages: integer('kvPages', maxBatch * perSequence, perSequence),
    prefillTokens: Math.min(prefill, maxBatch * maxPromptLength),
    passTokens: Math.max(integer('microBatchTokens', 4096), maxLength - 1),
  };
}
