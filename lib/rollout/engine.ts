import { totalmem } from 'node:os';
import type { Parameter } from '../autograd/parameter.js';
import { Weights } from '../autograd/weights.js';
import { checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';
import type { ResolvedDecoderConfig } from '../models/config.js';
import type { Decoder } from '../models/decoder.js';
import { mergedMasters } from '../models/lora.js';
import { expectMixture, RoutesRecorder, type RoutesShape, routesShape } from '../models/routes.js';
import {
  checkSequences,
  checkTokens,
  concatenateScores,
  packSequences,
  passTokens,
  type Scores,
  scoresOf,
  splitRows,
  type TokenSequence,
} from '../models/sequences.js';
import type { Forward, Routing } from '../nn/forward.js';
import type { LoraAdapter } from '../nn/lora.js';
import { gemmFamilyOf, type Numerics, numerics as numericsOf } from '../numerics.js';
import { pagedAttention, writeKvCache } from '../ops/attention.js';
import { type HeadOrder, headOrder } from '../ops/headNorm.js';
import { linear } from '../ops/linear.js';
import { chosenLogprobs, logSoftmax } from '../ops/logSoftmax.js';
import { ropeTable } from '../ops/rope.js';
import { sample } from '../ops/sample.js';
import { checkFloatDtype, type FloatDType } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { readTensors, type Tensor, tensor } from '../tensor/tensor.js';
import { Turns } from '../turns.js';
import { DecodeStep } from './decodeStep.js';
import type { Draws, RolloutRows } from './draws.js';
import { type Completion, Generation, type GenerationRequest } from './generation.js';
import { KvCache } from './kvCache.js';
import { packableParameters } from './packable.js';
import { type ResolvedSampling, resolveSampling, type SamplingOptions } from './sampling.js';

export interface RolloutOptions {
  /** Dtype of weights, activations and cache. */
  readonly precision: FloatDType;
  /** Default: the `rollout` preset. */
  readonly numerics?: Numerics;
  /** Choices of single layers (from 0) that differ from `numerics`. */
  readonly layerNumerics?: ReadonlyMap<number, Numerics>;
  /** How an adapter of the model is computed with; default merged. A model without one has no use for it. */
  readonly lora?: LoraMode;
  /**
   * Sequences decoded at once; default 256, fewer where the KV cache of so many of maxLength would take more than a quarter of
   * the machine's memory.
   */
  readonly maxBatch?: number;
  /** Longest sequence, prompt and response together; default the model's maxPositionEmbeddings. */
  readonly maxLength?: number;
  /** Pages of 16 positions in the KV cache; default enough for maxBatch sequences of maxLength. */
  readonly kvPages?: number;
  /** Most prompt tokens of one prefill pass; default 8192. */
  readonly maxPrefillTokens?: number;
  /** @internal Makes the logits in place of the head, whose own `logits` makes: for what goes wrong there. */
  readonly head?: HeadOverride;
}

/** @internal From the last norm's output, [rows, hiddenSize] in the engine's dtype, to logits of any float dtype. */
export type HeadOverride = (hidden: Tensor, logits: () => Tensor) => Tensor;

export const loraModes = ['merged', 'factored'] as const;

/**
 * How a rollout engine computes with an adapter: `merged` rounds W + scaling B A to the rollout dtype at each sync, so that
 * a pass costs what it does without an adapter; `factored` keeps A and B apart and adds their product to that of W, as the
 * training engine does, and with matched numerics to the same bits.
 */
export type LoraMode = (typeof loraModes)[number];

/** Sequences that an engine decodes at once unless it is told how many. */
export function defaultMaxBatch(
  config: ResolvedDecoderConfig,
  maxLength: number,
  precision: FloatDType,
): number {
  return Math.min(256, KvCache.sequencesWithin(totalmem() / 4, config, maxLength, precision));
}

/** Most logits of one pass that scores, 1 GB in fp32. */
const MOST_LOGITS = 2 ** 28;

/**
 * The engine that generates (policy mu): paged KV cache, continuous batching, sampling on the device, rollout
 * kernels on a 16-bit snapshot of the weights.
 *
 * Weights are packed at the vector level in use when the engine is made, which has to stay.
 *
 * A response does not depend on what else is in the batch, on the order in which sequences finish, or on threads.
 */
export class RolloutEngine implements Disposable {
  readonly precision: FloatDType;
  readonly numerics: Numerics;
  readonly layerNumerics: ReadonlyMap<number, Numerics>;
  readonly maxBatch: number;
  readonly maxLength: number;
  /** What routes are made of; null for a dense model. */
  readonly routesShape: RoutesShape | null;
  readonly #model: Decoder;
  readonly #adapter: LoraAdapter | null;
  /** The adapter, where it is computed with beside the weights rather than merged into them. */
  readonly #lora: LoraAdapter | null;
  readonly #maxPrefillTokens: number;
  readonly #pages: number;
  readonly #weights: Weights;
  /** The parameters whose copies change: of a model with an adapter, those that it is merged into or its own. */
  readonly #changing: readonly Parameter[];
  readonly #cache: KvCache;
  readonly #ropeTable: Tensor;
  /** By the numbers of rows that decode steps have: nothing can be uploaded while one is recorded. */
  readonly #headOrders: ReadonlyMap<number, HeadOrder>;
  readonly #decodeStep: DecodeStep;
  /** One pass at a time: they share the cache. */
  readonly #head: HeadOverride | undefined;
  readonly #turns = new Turns();

  /** @throws InvalidArgumentError on a bad option */
  constructor(model: Decoder, options: RolloutOptions) {
    const where = 'RolloutEngine';
    const { config } = model;
    this.#model = model;
    this.routesShape = routesShape(config);
    this.precision = checkFloatDtype(where, 'precision', options.precision);
    this.numerics = options.numerics ?? numericsOf('rollout');
    this.layerNumerics = options.layerNumerics ?? new Map();
    this.maxLength = checkInteger(
      where,
      'maxLength',
      options.maxLength ?? config.maxPositionEmbeddings,
      1,
      config.maxPositionEmbeddings,
    );
    const perSequence = KvCache.pagesFor(this.maxLength);
    const batch = options.maxBatch ?? defaultMaxBatch(config, this.maxLength, this.precision);
    this.maxBatch = checkInteger(where, 'maxBatch', batch, 1, 65536);
    this.#pages = checkInteger(where, 'kvPages', options.kvPages ?? this.maxBatch * perSequence, perSequence);
    this.#maxPrefillTokens = checkInteger(where, 'maxPrefillTokens', options.maxPrefillTokens ?? 8192, 1);
    this.#head = options.head;
    const mode = checkChoice(where, 'lora', options.lora ?? 'merged', loraModes);
    this.#adapter = model.lora;
    this.#lora = mode === 'factored' ? model.lora : null;
    const merged = mode === 'merged' && model.lora ? mergedMasters(model.lora) : null;
    this.#changing = merged ? [...merged.keys()] : model.trainable;
    this.#weights = new Weights(
      [...model.parameters, ...(this.#lora?.parameters ?? [])],
      this.precision,
      packableParameters(model, this.#lora, this.numerics, this.layerNumerics),
      [model.embedding],
      merged ?? undefined,
    );
    this.#cache = new KvCache(config, {
      slots: this.maxBatch,
      maxLength: this.maxLength,
      pages: this.#pages,
      dtype: this.precision,
    });
    const { headDim, ropeTheta, ropeScaling } = config;
    this.#ropeTable = ropeTable(this.maxLength, headDim, ropeTheta, 'fp32', ropeScaling);
    const counts = config.qkNorm ? DecodeStep.rowCounts(this.maxBatch) : [];
    this.#headOrders = new Map(counts.map((count) => [count, headOrder(count, config)]));
    this.#decodeStep = new DecodeStep(this.maxBatch, (rows, keys, sampling) =>
      this.#step(rows, null, keys, sampling),
    );
  }

  #expectAdapter(): void {
    if (this.#model.lora !== this.#adapter)
      invalid('RolloutEngine', "an engine made after the model's adapter", 'one made before');
  }

  #numericsOf(layer: number): Numerics {
    return this.layerNumerics.get(layer) ?? this.numerics;
  }

  /** Takes over the model's masters, rounded to the rollout dtype; frozen ones stay as they were. */
  syncWeights(): void {
    this.#expectAdapter();
    this.#weights.sync(this.#changing);
  }

  /**
   * Generates one response for each request, in the order of the requests.
   *
   * @throws InvalidArgumentError naming the request at fault, before anything is generated
   */
  async generate(requests: readonly GenerationRequest[], options: SamplingOptions): Promise<Completion[]> {
    const sampling = resolveSampling('generate', options, this.#model.config.vocabSize);
    if (sampling.recordRoutes) expectMixture('generate', 'recordRoutes', this.routesShape);
    for (const [i, request] of requests.entries()) this.#checkRequest(request, i, sampling);
    return this.#turns.take(() => this.#generate(requests, sampling));
  }

  /**
   * log mu of given responses, computed by the rollout kernels from whole sequences. For a response that this engine
   * sampled at the same temperature without filters, the same bits as when it was sampled.
   *
   * @throws InvalidArgumentError naming the sequence at fault, before anything is queued
   */
  async score(sequences: readonly TokenSequence[], options: { temperature?: number } = {}): Promise<Scores> {
    const temperature = this.#checkScoring('score', sequences, options);
    return this.#turns.take(() => this.#score(sequences, temperature));
  }

  /**
   * The whole distribution that each response token was drawn from: log-probs over the vocabulary, [tokens, vocabSize],
   * by the choices that {@link score} makes.
   *
   * @throws InvalidArgumentError naming the sequence at fault
   */
  async distributions(
    sequences: readonly TokenSequence[],
    options: { temperature?: number } = {},
  ): Promise<Float32Array[]> {
    const { vocabSize } = this.#model.config;
    const temperature = this.#checkScoring('distributions', sequences, options);
    return this.#turns.take(async () => {
      const parts: Float32Array[] = [];
      await this.#eachPass(sequences, async (part, logits) => {
        const chunk = this.numerics.logSoftmaxChunk;
        using logprobs = tidy(() => logSoftmax(logits(), { temperature, chunk }));
        parts.push(...splitRows(part, await logprobs.floats(), vocabSize));
      });
      return parts;
    });
  }

  /** The temperature at which sequences are scored. */
  #checkScoring(
    where: string,
    sequences: readonly TokenSequence[],
    options: { temperature?: number },
  ): number {
    const { vocabSize } = this.#model.config;
    checkSequences(where, sequences, { vocabSize, maxLength: this.maxLength });
    const temperature = checkNumber(where, 'temperature', options.temperature ?? 1, 0);
    if (temperature === 0) invalid(where, 'temperature above 0', 0);
    return temperature;
  }

  #checkRequest(request: GenerationRequest, index: number, { maxNewTokens }: ResolvedSampling): void {
    const { prompt, promptId, sampleId } = request;
    const name = `requests[${index}]`;
    if (prompt.length === 0) invalid('generate', `${name}.prompt of at least one token`, 'an empty prompt');
    if (prompt.length + maxNewTokens > this.maxLength) {
      invalid(
        'generate',
        `${name}.prompt and maxNewTokens = ${maxNewTokens} within the context of ${this.maxLength} tokens`,
        `a prompt of ${prompt.length}`,
      );
    }
    checkTokens('generate', `${name}.prompt`, prompt, this.#model.config.vocabSize);
    checkInteger('generate', `${name}.promptId`, promptId, 0);
    checkInteger('generate', `${name}.sampleId`, sampleId, 0);
  }

  async #generate(requests: readonly GenerationRequest[], sampling: ResolvedSampling): Promise<Completion[]> {
    this.#expectAdapter();
    if (!this.numerics.weightsSnapshot) this.syncWeights();
    return new Generation(requests, sampling, {
      cache: this.#cache,
      decodeStep: this.#decodeStep,
      maxPrefillTokens: this.#maxPrefillTokens,
      routes: sampling.recordRoutes ? this.routesShape : null,
      prefill: (rows, lastRows, keys) => this.#step(rows, lastRows, keys, sampling),
    }).run();
  }

  async #score(sequences: readonly TokenSequence[], temperature: number): Promise<Scores> {
    const parts: Scores[] = [];
    await this.#eachPass(sequences, async (part, logits) => {
      const outputs = tidy(() => {
        const { targets } = packSequences(part);
        const ids = tensor(targets, [targets.length], 'int32');
        const chunk = this.numerics.logSoftmaxChunk;
        const { logprobs, entropy } = chosenLogprobs(logits(), ids, { temperature, chunk });
        return [logprobs, entropy] as const;
      });
      try {
        const [logprobs, entropy] = await readTensors(outputs);
        parts.push(scoresOf(part, logprobs!, entropy!));
      } finally {
        for (const t of outputs) t.dispose();
      }
    });
    return concatenateScores(parts);
  }

  /** Passes whole sequences through the model, as many at a time as the cache has room for. */
  async #eachPass(
    sequences: readonly TokenSequence[],
    body: (part: readonly TokenSequence[], logits: () => Tensor) => Promise<void>,
  ): Promise<void> {
    this.#expectAdapter();
    if (!this.numerics.weightsSnapshot) this.syncWeights();
    const mostTokens = Math.min(
      this.#maxPrefillTokens,
      Math.floor(MOST_LOGITS / this.#model.config.vocabSize),
    );
    let next = 0;
    while (next < sequences.length) {
      const part: TokenSequence[] = [];
      const slots: number[] = [];
      const slotOfToken: number[] = [];
      while (next < sequences.length) {
        const sequence = sequences[next]!;
        const length = passTokens(sequence);
        if (part.length > 0 && slotOfToken.length + length > mostTokens) break;
        const slot = this.#cache.reserve(length);
        if (slot === undefined) break;
        part.push(sequence);
        slots.push(slot);
        for (let i = 0; i < length; i++) slotOfToken.push(slot);
        next++;
      }
      this.#cache.uploadTable();
      const packed = packSequences(part);
      const vector = (values: ArrayLike<number>) => tensor(values, [values.length], 'int32');
      try {
        await body(part, () => {
          const rows = {
            ids: vector(packed.ids),
            positions: vector(packed.positions),
            slots: vector(slotOfToken),
          };
          return this.#logits(rows, vector(packed.rows));
        });
      } finally {
        for (const slot of slots) this.#cache.release(slot);
      }
    }
  }

  /** One pass and one draw a row (or for the rows that `lastRows` names), and the routes of every row. */
  #step(rows: RolloutRows, lastRows: Tensor | null, keys: Tensor, sampling: ResolvedSampling): Draws {
    const { seed, temperature, topK, topP } = sampling;
    const chunk = this.numerics.logSoftmaxChunk;
    const recorder = sampling.recordRoutes ? new RoutesRecorder(this.routesShape!, rows.ids.size) : undefined;
    const { ids, logprobs } = sample(this.#logits(rows, lastRows, recorder), keys, {
      seed,
      temperature,
      topK,
      topP,
      chunk,
    });
    return recorder ? [ids, logprobs, recorder.ids] : [ids, logprobs];
  }

  /** One pass: the logits of every row, or of the rows that `selected` names. */
  #logits(rows: RolloutRows, selected: Tensor | null, routing?: Routing): Tensor {
    const { numerics } = this;
    const hidden = this.#model.hidden(this.#pass(rows, routing), rows.ids, selected);
    const head = this.#weights.of(this.#model.head);
    const logits = () =>
      linear(hidden, [head.packed ?? head.value], {
        family: gemmFamilyOf(numerics),
        splitK: numerics.gemmSplitK,
        outDtype: numerics.logits16 ? this.precision : 'fp32',
      });
    return this.#head ? this.#head(hidden, logits) : logits();
  }

  #headOrder(rows: number): HeadOrder | undefined {
    if (!this.#model.config.qkNorm) return undefined;
    return this.#headOrders.get(rows) ?? headOrder(rows, this.#model.config);
  }

  #pass({ positions, slots }: RolloutRows, routing: Routing | undefined): Forward {
    const { numHeads, numKvHeads } = this.#model.config;
    const { keys, values, blockTable } = this.#cache;
    return {
      tape: null,
      numerics: this.numerics,
      layerNumerics: this.layerNumerics,
      positions,
      ropeTable: this.#ropeTable,
      headOrder: this.#headOrder(positions.size),
      lora: this.#lora,
      routing,
      weight: (parameter) => this.#weights.of(parameter),
      attend: (layer, qkv) => {
        const cache = { keyCache: keys[layer]!, valueCache: values[layer]!, blockTable, slots, positions };
        writeKvCache(qkv, cache, { numHeads, numKvHeads });
        const { attentionChunk: chunk, attentionTile: tile } = this.#numericsOf(layer);
        return pagedAttention(qkv, cache, { numHeads, numKvHeads, chunk, tile });
      },
    };
  }

  /** Gives weights, cache and recordings back. */
  dispose(): void {
    this.#decodeStep[Symbol.dispose]();
    this.#cache[Symbol.dispose]();
    this.#weights[Symbol.dispose]();
    this.#ropeTable.dispose();
    for (const { sorted, packed } of this.#headOrders.values()) for (const t of [sorted, packed]) t.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
