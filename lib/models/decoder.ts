import { embedding, gatherRows } from '../autograd/functions.js';
import { type Initialization, Parameter } from '../autograd/parameter.js';
import type { Tape } from '../autograd/tape.js';
import { checkInteger } from '../errors.js';
import { DecoderLayer } from '../nn/decoderLayer.js';
import type { Forward } from '../nn/forward.js';
import { HeadNorm } from '../nn/headNorm.js';
import type { LoraAdapter } from '../nn/lora.js';
import { MoeMlp } from '../nn/moeMlp.js';
import { type Residual, RmsNorm } from '../nn/rmsNorm.js';
import { SelfAttention } from '../nn/selfAttention.js';
import { SwigluMlp } from '../nn/swigluMlp.js';
import { tidy } from '../tensor/scope.js';
import type { Tensor } from '../tensor/tensor.js';
import {
  type DecoderConfig,
  isMixtureLayer,
  type ResolvedDecoderConfig,
  resolveDecoderConfig,
} from './config.js';

/**
 * A decoder as Llama, Qwen2, Qwen3, Qwen3-MoE and Mixtral have it: embedding, pre-norm blocks of grouped-query attention
 * and SwiGLU, dense or a mixture of experts, a last norm and a head (its own matrix, or the embedding).
 *
 * Weights begin as normal values, a pure function of the seed: std 1 / sqrt(fan-in), the two matrices that write
 * to the residual stream divided by sqrt(2 numLayers) more (GPT-2's rule), embedding and head 0.5 of unit scale.
 */
export class Decoder implements Disposable {
  readonly config: ResolvedDecoderConfig;
  readonly parameters: readonly Parameter[];
  /** [vocabSize, hiddenSize]. */
  readonly embedding: Parameter;
  /** [vocabSize, hiddenSize]; the embedding itself where tied. */
  readonly head: Parameter;
  readonly layers: readonly DecoderLayer[];
  readonly finalNorm: RmsNorm;
  #lora: LoraAdapter | null = null;

  /**
   * @param options.seed of the initial weights; null leaves them undefined, for a loader that writes them all
   * @throws InvalidArgumentError on a bad config or a seed that is not a uint32
   */
  constructor(config: DecoderConfig, options: { seed: number | null }) {
    const resolved = resolveDecoderConfig(config);
    const seed = options.seed === null ? null : checkInteger('Decoder', 'seed', options.seed, 0, 2 ** 32 - 1);
    this.config = resolved;
    const { vocabSize, hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim } = resolved;
    const parameters: Parameter[] = [];
    const make = (name: string, shape: readonly number[], begin: Initialization) => {
      const initialization: Initialization = seed === null ? { kind: 'none' } : begin;
      const parameter = new Parameter(name, shape, initialization, seed ?? 0, parameters.length);
      parameters.push(parameter);
      return parameter;
    };
    const normal = (std: number): Initialization => ({ kind: 'normal', std });
    const weights = (name: string, shape: readonly number[], gain = 1) =>
      make(name, shape, normal(gain / Math.sqrt(shape.at(-1)!)));
    const weight = (name: string, rows: number, columns: number, gain = 1) =>
      weights(name, [rows, columns], gain);
    const bias = (has: boolean, name: string, size: number) =>
      has ? make(name, [size], { kind: 'constant', value: 0 }) : null;
    const ones = (name: string, size: number) => make(name, [size], { kind: 'constant', value: 1 });
    const norm = (name: string) => new RmsNorm(ones(name, hiddenSize), resolved.rmsNormEps);
    const residualGain = 1 / Math.sqrt(2 * numLayers);

    const dense = (mlp: string, layer: number) =>
      new SwigluMlp(
        weight(`${mlp}.gate_up_proj.weight`, 2 * intermediateSize, hiddenSize),
        weight(`${mlp}.down_proj.weight`, hiddenSize, intermediateSize, residualGain),
        layer,
        bias(resolved.mlpBias, `${mlp}.gate_up_proj.bias`, 2 * intermediateSize),
        bias(resolved.mlpBias, `${mlp}.down_proj.bias`, hiddenSize),
      );
    const { numExperts, numExpertsPerToken, moeIntermediateSize, normalizeRouterWeights } = resolved;
    const mixture = (mlp: string, layer: number) =>
      new MoeMlp(
        { expertsPerToken: numExpertsPerToken, normalize: normalizeRouterWeights },
        weight(`${mlp}.gate.weight`, numExperts, hiddenSize),
        weights(`${mlp}.experts.gate_up_proj.weight`, [numExperts, 2 * moeIntermediateSize, hiddenSize]),
        weights(
          `${mlp}.experts.down_proj.weight`,
          [numExperts, hiddenSize, moeIntermediateSize],
          residualGain,
        ),
        layer,
      );

    this.embedding = make('model.embed_tokens.weight', [vocabSize, hiddenSize], normal(0.5));
    this.layers = Array.from({ length: numLayers }, (_, layer) => {
      const attention = `model.layers.${layer}.self_attn`;
      const mlp = `model.layers.${layer}.mlp`;
      const qkvRows = (numHeads + 2 * numKvHeads) * headDim;
      // Parameters are drawn from streams numbered in this order.
      return new DecoderLayer(
        norm(`model.layers.${layer}.input_layernorm.weight`),
        new SelfAttention(
          { numHeads, numKvHeads, headDim },
          weight(`${attention}.qkv_proj.weight`, qkvRows, hiddenSize),
          bias(resolved.attentionBias, `${attention}.qkv_proj.bias`, qkvRows),
          weight(`${attention}.o_proj.weight`, hiddenSize, numHeads * headDim, residualGain),
          layer,
          resolved.qkNorm
            ? new HeadNorm(
                ones(`${attention}.q_norm.weight`, headDim),
                ones(`${attention}.k_norm.weight`, headDim),
                resolved.rmsNormEps,
              )
            : null,
          bias(resolved.attentionOutBias, `${attention}.o_proj.bias`, hiddenSize),
        ),
        norm(`model.layers.${layer}.post_attention_layernorm.weight`),
        isMixtureLayer(resolved, layer) ? mixture(mlp, layer) : dense(mlp, layer),
      );
    });
    this.finalNorm = norm('model.norm.weight');
    this.head = resolved.tieWordEmbeddings
      ? this.embedding
      : weight('lm_head.weight', vocabSize, hiddenSize, 0.5);
    this.parameters = parameters;
  }

  /** What is trained in place of the weights, or null; see addLora. */
  get lora(): LoraAdapter | null {
    return this.#lora;
  }

  /** What training changes: all parameters, or the adapter's alone. */
  get trainable(): readonly Parameter[] {
    return this.#lora?.parameters ?? this.parameters;
  }

  /** @internal Takes over an adapter and freezes the parameters, or lets go of it. */
  adopt(lora: LoraAdapter | null): void {
    this.#lora = lora;
    for (const parameter of this.parameters) parameter.frozen = lora !== null;
  }

  /** Of the model itself, without an adapter. */
  get parameterCount(): number {
    return this.parameters.reduce((sum, p) => sum + p.size, 0);
  }

  /**
   * Token ids (int32 [tokens]) -> the last norm's output, [tokens, hiddenSize], which the head reads. With `rows`
   * (int32) that of these tokens alone: no other token needs what is behind the last attention.
   */
  hidden(pass: Forward, ids: Tensor, rows: Tensor | null = null): Tensor {
    const x = embedding(pass.tape, pass.weight(this.embedding), ids);
    pass.observe?.('embedding', -1, x);
    let residual: Residual = { x, delta: null };
    this.layers.forEach((_, i) => {
      const selected = i === this.layers.length - 1 && !pass.routing ? rows : null;
      residual = this.#layer(pass, i, residual, selected);
    });
    if (rows && pass.routing) {
      const { x, delta } = residual;
      residual = { x: gatherRows(pass.tape, x, rows), delta: delta && gatherRows(pass.tape, delta, rows) };
    }
    const { out } = this.finalNorm.forward(pass, residual);
    pass.observe?.('finalNorm', -1, out);
    return out;
  }

  /**
   * Runs a layer, of which a pass without a tape keeps the outputs alone and one that recomputes the inputs. From the same
   * inputs a router chooses the same experts; it is not seen to do so twice.
   */
  #layer(pass: Forward, i: number, residual: Residual, rows: Tensor | null): Residual {
    const numerics = pass.layerNumerics?.get(i) ?? pass.numerics;
    const { tape, routing } = pass;
    let seen = routing?.seen;
    const run = (own: Tape | null) => {
      const once = routing && { given: routing.given, seen };
      seen = undefined;
      return this.layers[i]!.forward({ ...pass, tape: own, numerics, routing: once }, residual, rows);
    };
    if (tape) return pass.recompute ? tape.checkpoint(run) : run(tape);
    const next = tidy(() => run(null));
    for (const t of [residual.x, residual.delta]) t?.dispose();
    return next;
  }

  /** Gives the parameters' memory back, an adapter's too. */
  dispose(): void {
    this.#lora?.dispose();
    for (const parameter of this.parameters) parameter.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
