import { attention, gatherRows, linearLogprob } from '../autograd/functions.js';
import { Tape } from '../autograd/tape.js';
import { Weights } from '../autograd/weights.js';
import { checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';
import type { Decoder } from '../models/decoder.js';
import { type RoutesShape, routesShape } from '../models/routes.js';
import {
  checkSequences,
  concatenateScores,
  packSequences,
  type Scores,
  scoresOf,
  splitByTokens,
  splitRows,
  type TokenLoss,
  type TokenSequence,
} from '../models/sequences.js';
import type { ActivationPoint, Forward, Observer } from '../nn/forward.js';
import type { LoraAdapter } from '../nn/lora.js';
import { gemmFamilyOf, type Numerics, numerics as numericsOf } from '../numerics.js';
import { gradientStats } from '../ops/gradStats.js';
import { headOrder } from '../ops/headNorm.js';
import { linear } from '../ops/linear.js';
import { logSoftmax } from '../ops/logSoftmax.js';
import { ropeTable } from '../ops/rope.js';
import { checkFloatDtype, type FloatDType, floatBits } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { readTensors, type Tensor, tensor } from '../tensor/tensor.js';
import { Turns } from '../turns.js';
import { AdamW, type AdamWOptions } from './adamW.js';
import { createLossScaler, type LossScaler } from './lossScaler.js';
import { CallRouting, type PassRouting, type RoutingOptions, type RoutingRecord } from './routing.js';
import { createSchedule, type Schedule, type ScheduleSpec } from './schedule.js';

export interface TrainingOptions {
  /** Dtype of weights, activations and activation gradients; masters and optimizer state are fp32. */
  readonly precision: FloatDType;
  /** Default: the `training` preset. */
  readonly numerics?: Numerics;
  /** Choices of single layers (from 0) that differ from `numerics`. */
  readonly layerNumerics?: ReadonlyMap<number, Numerics>;
  readonly schedule: ScheduleSpec;
  readonly optimizer?: AdamWOptions;
  /** A spec of createLossScaler; default `verl` (the paper's) in fp16, `none` otherwise. */
  readonly lossScaler?: string;
  /** Largest norm of the gradient of all parameters together; default 1, the paper's. */
  readonly maxGradNorm?: number;
  /** Most tokens of one forward and backward pass; default 4096. Gradients of passes add up in fp32. */
  readonly microBatchTokens?: number;
  /**
   * What a forward pass keeps for the backward pass; default `none`, everything. With `layers` it keeps the inputs of each
   * layer alone and computes the layer again when its gradients are due (gradient checkpointing): the same bits for
   * about a third more time, and one layer's activations at a time instead of all of them.
   */
  readonly recompute?: Recompute;
  /** What logits are divided by; the rollout's. Default 1. */
  readonly temperature?: number;
  /** What becomes of a batch whose gradients overflow; default `skip`. */
  readonly overflow?: OverflowMode;
}

export const recomputeModes = ['none', 'layers'] as const;

/** Which activations the backward pass computes again. */
export type Recompute = (typeof recomputeModes)[number];

export const overflowModes = ['skip', 'retry'] as const;

/**
 * A batch whose gradients overflow is left out (`skip`), or run again at the lower scale that the loss scaler then has
 * (`retry`), so that its rollout is not thrown away.
 */
export type OverflowMode = (typeof overflowModes)[number];

/** Halving so often takes a scale through all of fp16's exponents. */
const MAX_RETRIES = 24;

/** Loss of the sequences `begin` to `end` of the batch given their scores. */
export type LossFunction = (scores: Scores, begin: number, end: number) => TokenLoss;

export interface StepResult {
  readonly loss: number;
  /** Norm of the unscaled gradient of all parameters, before clipping; not finite where it overflowed. */
  readonly gradNorm: number;
  /** Whether the step was left out because a gradient overflowed. */
  readonly skipped: boolean;
  /**
   * The first parameter with a gradient that is not finite, or `log-probs` where the forward pass overflowed; of the
   * first try, where a later one was finite.
   */
  readonly overflowed?: string;
  /** Times that the batch was run again at a lower loss scale. */
  readonly retries: number;
  /** The loss scale of this step, of its last try. */
  readonly lossScale: number;
  readonly learningRate: number;
  /** Means over the micro-batches, weighted by sequences, of the algorithm's own metrics. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Of the last try, where `recordRoutes` asked for it. */
  readonly routing?: RoutingRecord;
}

/** Scores, and what `recordRoutes` asked for. */
export interface RoutedScores extends Scores {
  readonly routing?: RoutingRecord;
}

/** `verl` (the paper's) where gradients may leave the range of the format: with 5 exponent bits or fewer; else `none`. */
export function defaultLossScaler(precision: FloatDType): string {
  return floatBits(precision)!.exponent <= 5 ? 'verl' : 'none';
}

/** Looks on while a gradient is taken; see {@link Observer}. */
export interface Watch {
  /** Activations of the forward pass. */
  readonly activation?: Observer;
  /** Gradients of these activations, scaled by the loss scale. */
  readonly gradient?: Observer;
}

/**
 * The pass with whoever watches it; gradients are known by the activations that they belong to. What is computed again
 * has been seen: its gradients alone are new.
 */
function watched(pass: Forward, tape: Tape | null, { activation, gradient }: Watch): Forward {
  if (!activation && !gradient) return pass;
  const places = new Map<Tensor, readonly [ActivationPoint, number]>();
  const seen = new Set<string>();
  if (tape && gradient) {
    tape.watch = (output, value) => {
      const place = places.get(output);
      if (place) gradient(...place, value);
    };
  }
  return {
    ...pass,
    observe: (point, layer, t) => {
      if (gradient) places.set(t, [point, layer]);
      const place = `${point} ${layer}`;
      if (!seen.has(place)) activation?.(point, layer, t);
      seen.add(place);
    },
  };
}

/** What {@link TrainingEngine.gradients} returns. */
export interface GradientResult extends Pick<StepResult, 'loss' | 'gradNorm' | 'overflowed' | 'routing'> {
  /** By parameter; not finite where it overflowed. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

/** What `overflowed` names where the forward pass did, which no loss scale mends. */
const LOGPROBS = 'log-probs';

/**
 * The engine that learns (policy pi): packed sequences, fused linear log-prob, a backward pass in the training
 * dtype with loss scaling, fp32 masters, gradient accumulation, clipping, AdamW.
 */
export class TrainingEngine implements Disposable {
  readonly precision: FloatDType;
  readonly numerics: Numerics;
  readonly layerNumerics: ReadonlyMap<number, Numerics>;
  readonly scaler: LossScaler;
  readonly optimizer: AdamW;
  /** What routes are made of; null for a dense model. */
  readonly routesShape: RoutesShape | null;
  readonly #model: Decoder;
  readonly #lora: LoraAdapter | null;
  readonly #weights: Weights;
  readonly #schedule: Schedule;
  readonly #maxGradNorm: number;
  readonly #microBatchTokens: number;
  readonly #recompute: boolean;
  readonly #temperature: number;
  readonly #overflow: OverflowMode;
  readonly #ropeTable: Tensor;
  readonly #turns = new Turns();

  /** @throws InvalidArgumentError on a bad option */
  constructor(model: Decoder, options: TrainingOptions) {
    const where = 'TrainingEngine';
    this.#model = model;
    this.routesShape = routesShape(model.config);
    this.precision = checkFloatDtype(where, 'precision', options.precision);
    this.numerics = options.numerics ?? numericsOf('training');
    this.layerNumerics = options.layerNumerics ?? new Map();
    this.#schedule = createSchedule(options.schedule);
    this.scaler = createLossScaler(options.lossScaler ?? defaultLossScaler(this.precision));
    this.#maxGradNorm = checkNumber(where, 'maxGradNorm', options.maxGradNorm ?? 1, 0);
    if (this.#maxGradNorm === 0) invalid(where, 'maxGradNorm above 0', 0);
    this.#microBatchTokens = checkInteger(where, 'microBatchTokens', options.microBatchTokens ?? 4096, 1);
    this.#recompute =
      checkChoice(where, 'recompute', options.recompute ?? 'none', recomputeModes) === 'layers';
    this.#temperature = checkNumber(where, 'temperature', options.temperature ?? 1, 0);
    if (this.#temperature === 0) invalid(where, 'temperature above 0', 0);
    this.#overflow = checkChoice(where, 'overflow', options.overflow ?? 'skip', overflowModes);
    this.#lora = model.lora;
    const dropout = this.#lora?.config.dropout ?? 0;
    if (dropout !== 0) invalid(where, 'an adapter without dropout (lora_dropout 0)', dropout);
    this.optimizer = new AdamW(model.trainable, options.optimizer);
    this.#weights = new Weights([...model.parameters, ...(this.#lora?.parameters ?? [])], this.precision);
    const { maxPositionEmbeddings, headDim, ropeTheta, ropeScaling } = model.config;
    this.#ropeTable = ropeTable(maxPositionEmbeddings, headDim, ropeTheta, 'fp32', ropeScaling);
  }

  /** Takes over masters that were changed from outside, such as by another engine; frozen ones stay as they were. */
  syncWeights(): void {
    this.#weights.sync(this.optimizer.parameters);
  }

  /**
   * log pi and entropy of every response token, without gradients.
   *
   * @throws InvalidArgumentError naming the sequence at fault, or what routing was asked of a dense model
   */
  async score(sequences: readonly TokenSequence[], routing: RoutingOptions = {}): Promise<RoutedScores> {
    const call = this.#check('score', sequences, routing);
    const parts: Scores[] = [];
    if (!this.numerics.weightsSnapshot) this.#weights.sync(this.optimizer.parameters);
    await this.#eachMicroBatch(sequences, async (begin, end) => {
      const part = sequences.slice(begin, end);
      using routes = call.pass(begin, end);
      const outputs = tidy(() => this.#forward(part, null, { routes }));
      try {
        const read = [outputs.logprobs, outputs.entropy, ...(routes?.noted ?? [])];
        const [logprobs, entropy, ...noted] = await readTensors(read);
        routes?.accept(noted);
        parts.push(scoresOf(part, logprobs!, entropy!));
      } finally {
        outputs.logprobs.dispose();
        outputs.entropy.dispose();
      }
    });
    return { ...concatenateScores(parts), ...call.record() };
  }

  /**
   * The whole distribution that each response token was drawn from: log-probs over the vocabulary, [tokens, vocabSize],
   * by the choices that {@link score} makes.
   *
   * @throws InvalidArgumentError naming the sequence at fault, or a replay that was asked of a dense model
   */
  async distributions(
    sequences: readonly TokenSequence[],
    { replay }: Pick<RoutingOptions, 'replay'> = {},
  ): Promise<Float32Array[]> {
    const call = this.#check('distributions', sequences, { ...(replay && { replay }) });
    const parts: Float32Array[] = [];
    if (!this.numerics.weightsSnapshot) this.#weights.sync(this.optimizer.parameters);
    await this.#eachMicroBatch(sequences, async (begin, end) => {
      const part = sequences.slice(begin, end);
      using routes = call.pass(begin, end);
      using logprobs = tidy(() => this.#logprobs(part, routes));
      const values = await logprobs.floats();
      parts.push(...splitRows(part, values, this.#model.config.vocabSize));
    });
    return parts;
  }

  /** Log-probs of every token of the vocabulary, which the fused product never has whole. */
  #logprobs(sequences: readonly TokenSequence[], routes: PassRouting | undefined): Tensor {
    const { numerics } = this;
    const packed = packSequences(sequences);
    const upload = (values: Int32Array) => tensor(values, [values.length], 'int32');
    const pass = this.#pass(null, upload(packed.positions), upload(packed.cuSeqlens), routes);
    const hidden = gatherRows(null, this.#model.hidden(pass, upload(packed.ids)), upload(packed.rows));
    const logits = linear(hidden, [this.#weights.of(this.#model.head).value], {
      family: gemmFamilyOf(numerics),
      splitK: numerics.gemmSplitK,
      outDtype: numerics.logits16 ? this.precision : 'fp32',
    });
    return logSoftmax(logits, { temperature: this.#temperature, chunk: numerics.logSoftmaxChunk });
  }

  /**
   * One optimizer step on one mini-batch: forward, loss and backward for each micro-batch, then unscale, check for
   * overflow, clip, AdamW. On overflow, of the gradients or already of the log-probs, nothing is learned and the loss
   * scaler is told; with `overflow: 'retry'` the batch is then run again, at the scale that the scaler has by then, until
   * its gradients are finite (at most 24 times; a scaler with hysteresis spends a try or two before its scale falls). A
   * static scale never falls, and log-probs that overflow do so at any scale: those are left out at once.
   * Steps take turns: their gradients share memory.
   *
   * @throws InvalidArgumentError naming the sequence at fault, before anything is queued
   */
  async step(
    sequences: readonly TokenSequence[],
    lossOf: LossFunction,
    routing: RoutingOptions = {},
  ): Promise<StepResult> {
    const call = this.#check('step', sequences, routing);
    return this.#turns.take(() => this.#step(sequences, lossOf, call));
  }

  /**
   * The gradient of every parameter by name, unscaled and before clipping, as a step would have it; nothing is learned
   * and the loss scaler is not told.
   *
   * @throws InvalidArgumentError naming the sequence at fault, before anything is queued
   */
  async gradients(
    sequences: readonly TokenSequence[],
    lossOf: LossFunction,
    options: Watch & RoutingOptions = {},
  ): Promise<GradientResult> {
    const call = this.#check('gradients', sequences, options);
    return this.#turns.take(async () => {
      const { loss, gradNorm, overflowed } = await this.#backward(sequences, lossOf, call, options);
      const { scale } = this.scaler;
      const gradients = new Map<string, Float32Array>();
      for (const { name, gradient } of this.optimizer.parameters) {
        const values = await gradient.floats();
        for (let i = 0; i < values.length; i++) values[i]! /= scale;
        gradients.set(name, values);
      }
      return { loss, gradNorm, gradients, ...(overflowed !== undefined && { overflowed }), ...call.record() };
    });
  }

  async #step(
    sequences: readonly TokenSequence[],
    lossOf: LossFunction,
    call: CallRouting,
  ): Promise<StepResult> {
    const mayRetry = this.#overflow === 'retry' && this.scaler.kind !== 'static';
    let firstOverflow: string | undefined;
    for (let retries = 0; ; retries++) {
      const lossScale = this.scaler.scale;
      const { loss, gradNorm, overflowed, metrics } = await this.#backward(sequences, lossOf, call);
      const overflow = overflowed !== undefined;
      firstOverflow ??= overflowed;
      const learningRate = this.#schedule(this.optimizer.step);
      this.scaler.update(overflow);
      if (overflow && mayRetry && overflowed !== LOGPROBS && retries < MAX_RETRIES) continue;
      if (!overflow) {
        const clip = Math.min(1, this.#maxGradNorm / (gradNorm + 1e-6));
        this.optimizer.update(learningRate, clip / lossScale);
        if (this.numerics.weightsSnapshot) this.#weights.sync(this.optimizer.parameters);
      }
      return {
        loss,
        gradNorm,
        skipped: overflow,
        ...(firstOverflow !== undefined && { overflowed: firstOverflow }),
        retries,
        lossScale,
        learningRate,
        metrics,
        ...call.record(),
      };
    }
  }

  /** Leaves the scaled gradient of the batch in the parameters. */
  async #backward(
    sequences: readonly TokenSequence[],
    lossOf: LossFunction,
    call: CallRouting,
    watch: Watch = {},
  ): Promise<Pick<StepResult, 'loss' | 'gradNorm' | 'overflowed' | 'metrics'>> {
    const lossScale = this.scaler.scale;
    const metrics: Record<string, number> = {};
    let loss = 0;
    let overflowed: string | undefined;
    if (!this.numerics.weightsSnapshot) this.#weights.sync(this.optimizer.parameters);
    for (const parameter of this.optimizer.parameters) parameter.zeroGradient();
    call.reset();
    await this.#eachMicroBatch(sequences, async (begin, end) => {
      const sequencesOfPart = sequences.slice(begin, end);
      using routes = call.pass(begin, end);
      const tape = new Tape();
      try {
        const { logprobs, entropy } = this.#forward(sequencesOfPart, tape, { watch, routes });
        const read = [logprobs, entropy, ...(routes?.noted ?? [])];
        const [logprobValues, entropyValues, ...noted] = await readTensors(read);
        routes?.accept(noted);
        const scores = scoresOf(sequencesOfPart, logprobValues!, entropyValues!);
        if (!scores.logprobs.every(Number.isFinite)) {
          overflowed = LOGPROBS;
          return;
        }
        const part = lossOf(scores, begin, end);
        loss += part.loss;
        const share = (end - begin) / sequences.length;
        for (const [name, value] of Object.entries(part.metrics))
          metrics[name] = (metrics[name] ?? 0) + share * value;
        const scaled = new Float32Array(part.gradient.length);
        for (let i = 0; i < scaled.length; i++) scaled[i] = part.gradient[i]! * lossScale;
        tape.backward(logprobs, tape.own(tensor(scaled)));
      } finally {
        tape.dispose();
      }
    });
    const stats = await gradientStats(this.optimizer.parameters.map((p) => [p.name, p.gradient]));
    overflowed ??= stats.firstNonFinite;
    return {
      loss,
      gradNorm: overflowed === undefined ? stats.norm / lossScale : Number.NaN,
      ...(overflowed !== undefined && { overflowed }),
      metrics,
    };
  }

  #check(where: string, sequences: readonly TokenSequence[], routing: RoutingOptions): CallRouting {
    if (this.#model.lora !== this.#lora)
      invalid(where, "an engine made after the model's adapter", 'one made before');
    const { vocabSize, maxPositionEmbeddings: maxLength } = this.#model.config;
    checkSequences(where, sequences, { vocabSize, maxLength });
    return new CallRouting(where, this.routesShape, sequences, routing);
  }

  async #eachMicroBatch(
    sequences: readonly TokenSequence[],
    body: (begin: number, end: number) => Promise<void>,
  ): Promise<void> {
    const bounds = splitByTokens(sequences, this.#microBatchTokens);
    for (let i = 1; i < bounds.length; i++) await body(bounds[i - 1]!, bounds[i]!);
  }

  /** Queues one pass. With a tape it owns what was made, without one the caller's tidy scope does. */
  #forward(
    sequences: readonly TokenSequence[],
    tape: Tape | null,
    { watch = {}, routes }: { watch?: Watch; routes: PassRouting | undefined },
  ): { logprobs: Tensor; entropy: Tensor } {
    const { numerics } = this;
    const packed = packSequences(sequences);
    const upload = (values: Int32Array) => {
      const t = tensor(values, [values.length], 'int32');
      return tape ? tape.own(t) : t;
    };
    const pass = this.#pass(tape, upload(packed.positions), upload(packed.cuSeqlens), routes);
    const hidden = this.#model.hidden(watched(pass, tape, watch), upload(packed.ids));
    const predicting = gatherRows(tape, hidden, upload(packed.rows));
    return linearLogprob(tape, predicting, this.#weights.of(this.#model.head), upload(packed.targets), {
      temperature: this.#temperature,
      chunk: numerics.logSoftmaxChunk,
      logits16: numerics.logits16 === 1,
      gemmFamily: gemmFamilyOf(numerics),
      gemmSplitK: numerics.gemmSplitK,
    });
  }

  #pass(tape: Tape | null, positions: Tensor, cuSeqlens: Tensor, routing?: PassRouting): Forward {
    const { numHeads, numKvHeads, qkNorm } = this.#model.config;
    const order = qkNorm ? headOrder(positions.size, { numHeads, numKvHeads }) : undefined;
    if (order) for (const t of [order.sorted, order.packed]) tape?.own(t);
    return {
      tape,
      recompute: this.#recompute,
      numerics: this.numerics,
      layerNumerics: this.layerNumerics,
      positions,
      ropeTable: this.#ropeTable,
      headOrder: order,
      lora: this.#lora,
      routing,
      weight: (parameter) => this.#weights.of(parameter),
      attend: (layer, qkv, tape) => {
        const { attentionChunk: chunk, attentionTile: tile } = this.layerNumerics.get(layer) ?? this.numerics;
        return attention(tape, qkv, cuSeqlens, { numHeads, numKvHeads, chunk, tile });
      },
    };
  }

  /** Gives weights and optimizer state back; the model stays. */
  dispose(): void {
    this.optimizer.dispose();
    this.#weights.dispose();
    this.#ropeTable.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
