/** Models and data that the engines are timed with. */
import { type DecoderConfig, resolveDecoderConfig } from '../lib/models/config.js';
import { Decoder } from '../lib/models/decoder.js';
import type { TokenLoss, TokenSequence } from '../lib/models/sequences.js';
import { CounterRandom } from '../lib/random.js';
import { RolloutEngine } from '../lib/rollout/engine.js';
import type { GenerationRequest } from '../lib/rollout/generation.js';
import type { NativeFloatDType } from '../lib/tensor/dtype.js';
import { type LossFunction, TrainingEngine } from '../lib/training/engine.js';

/** Layers, widths and vocabulary; the context is what the run needs. */
export interface ModelSize {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  /** Default: as many as heads. */
  readonly kvHeads?: number;
  readonly ffn: number;
  readonly vocabulary: number;
}

/** The small model that whole training runs use: 3.2 million parameters. */
export const referenceModel: ModelSize = { layers: 4, hidden: 256, heads: 4, ffn: 688, vocabulary: 64 };

/** 1.8 billion parameters: Qwen2.5-1.5B with a head of its own. */
export const largeModel: ModelSize = {
  layers: 28,
  hidden: 1536,
  heads: 12,
  kvHeads: 2,
  ffn: 8960,
  vocabulary: 151936,
};

/** To try whether all of it runs. */
export const tinyModel: ModelSize = { layers: 1, hidden: 64, heads: 2, ffn: 96, vocabulary: 64 };

export function decoderConfig(size: ModelSize, context: number): DecoderConfig {
  return {
    vocabSize: size.vocabulary,
    hiddenSize: size.hidden,
    intermediateSize: size.ffn,
    numLayers: size.layers,
    numHeads: size.heads,
    numKvHeads: size.kvHeads ?? size.heads,
    maxPositionEmbeddings: context,
  };
}

/** Weights that a token is multiplied with: all but the embedding, which is looked up, and the norms. */
export function matmulWeights({
  layers,
  hidden,
  heads,
  kvHeads = heads,
  ffn,
  vocabulary,
}: ModelSize): number {
  const attention = 2 * hidden * hidden * (1 + kvHeads / heads);
  return layers * (attention + 3 * hidden * ffn) + hidden * vocabulary;
}

/** Operations of a forward and backward pass: 6 a weight and token, 12 layers hidden T S of attention, causal or not. */
export function trainingFlops(size: ModelSize, batch: number, length: number): number {
  const attention = 12 * size.layers * size.hidden * length * length;
  return batch * (6 * matmulWeights(size) * length + attention);
}

/**
 * Operations of a pass over `tokens` tokens that see `keys` keys each. What is behind the last attention, the logits
 * among it, is for `predicting` of them alone.
 */
export function forwardFlops(size: ModelSize, tokens: number, keys: number, predicting: number): number {
  const { layers, hidden, ffn, vocabulary } = size;
  const behind = hidden * hidden + 3 * hidden * ffn + hidden * vocabulary;
  const body = matmulWeights(size) - behind;
  return 2 * body * tokens + 4 * layers * hidden * tokens * keys + 2 * behind * predicting;
}

function tokensOf(random: CounterRandom, count: number, vocabulary: number): Int32Array {
  return Int32Array.from({ length: count }, () => random.integer(vocabulary));
}

/** Random sequences of `length` predicted tokens each. */
export function randomSequences(size: ModelSize, batch: number, length: number): TokenSequence[] {
  const random = new CounterRandom(1);
  return Array.from({ length: batch }, () => ({
    prompt: tokensOf(random, 1, size.vocabulary),
    response: tokensOf(random, length, size.vocabulary),
  }));
}

export function randomPrompts(size: ModelSize, batch: number, length: number): GenerationRequest[] {
  const random = new CounterRandom(2);
  return Array.from({ length: batch }, (_, i) => ({
    prompt: tokensOf(random, length, size.vocabulary),
    promptId: i,
    sampleId: 0,
  }));
}

/** Cross-entropy, averaged over the `tokens` of the mini-batch. */
export function crossEntropy(tokens: number): LossFunction {
  return ({ logprobs }): TokenLoss => ({
    loss: -logprobs.reduce((sum, x) => sum + x, 0) / tokens,
    gradient: new Float64Array(logprobs.length).fill(-1 / tokens),
    metrics: {},
  });
}

export interface Trainee extends Disposable {
  readonly model: Decoder;
  readonly engine: TrainingEngine;
}

export function trainee(
  size: ModelSize,
  precision: NativeFloatDType,
  context: number,
  microBatchTokens?: number,
): Trainee {
  const model = new Decoder(resolveDecoderConfig(decoderConfig(size, context)), { seed: 1 });
  const engine = new TrainingEngine(model, {
    precision,
    schedule: { kind: 'constant', learningRate: 3e-4 },
    ...(microBatchTokens !== undefined && { microBatchTokens }),
  });
  return { model, engine, [Symbol.dispose]: () => disposeAll(engine, model) };
}

export interface Generator extends Disposable {
  readonly model: Decoder;
  readonly engine: RolloutEngine;
}

export function generator(
  size: ModelSize,
  precision: NativeFloatDType,
  batch: number,
  maxLength: number,
): Generator {
  const model = new Decoder(resolveDecoderConfig(decoderConfig(size, maxLength)), { seed: 1 });
  const engine = new RolloutEngine(model, { precision, maxBatch: batch, maxLength });
  return { model, engine, [Symbol.dispose]: () => disposeAll(engine, model) };
}

function disposeAll(...owners: readonly Disposable[]): void {
  for (const owner of owners) owner[Symbol.dispose]();
}
