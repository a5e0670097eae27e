import { embedding } from '../autograd/functions.js';
import { type Initialization, Parameter } from '../autograd/parameter.js';
import { checkInteger } from '../errors.js';
import { DecoderLayer } from '../nn/decoderLayer.js';
import type { Forward } from '../nn/forward.js';
import { type Residual, RmsNorm } from '../nn/rmsNorm.js';
import { SelfAttention } from '../nn/selfAttention.js';
import { SwigluMlp } from '../nn/swigluMlp.js';
import type { Tensor } from '../tensor/tensor.js';
import { type DecoderConfig, type ResolvedDecoderConfig, resolveDecoderConfig } from './config.js';

/**
 * A Llama- or Qwen2-style decoder: embedding, pre-norm blocks of grouped-query attention and SwiGLU, a last norm
 * and a head (its own matrix, or the embedding).
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

  /** @throws InvalidArgumentError on a bad config or a seed that is not a uint32 */
  constructor(config: DecoderConfig, options: { seed: number }) {
    const resolved = resolveDecoderConfig(config);
    const seed = checkInteger('Decoder', 'seed', options.seed, 0, 2 ** 32 - 1);
    this.config = resolved;
    const { vocabSize, hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim } = resolved;
    const parameters: Parameter[] = [];
    const make = (name: string, shape: readonly number[], initialization: Initialization) => {
      const parameter = new Parameter(name, shape, initialization, seed, parameters.length);
      parameters.push(parameter);
      return parameter;
    };
    const normal = (std: number): Initialization => ({ kind: 'normal', std });
    const ones: Initialization = { kind: 'constant', value: 1 };
    const residualScale = 1 / Math.sqrt(2 * numLayers);

    this.embedding = make('model.embed_tokens.weight', [vocabSize, hiddenSize], normal(0.5));
    this.layers = Array.from({ length: numLayers }, (_, layer) => {
      const prefix = `model.layers.${layer}`;
      const qkvRows = (numHeads + 2 * numKvHeads) * headDim;
      const attentionNorm = make(`${prefix}.input_layernorm.weight`, [hiddenSize], ones);
      const qkv = make(
        `${prefix}.self_attn.qkv_proj.weight`,
        [qkvRows, hiddenSize],
        normal(1 / Math.sqrt(hiddenSize)),
      );
      const bias = resolved.attentionBias
        ? make(`${prefix}.self_attn.qkv_proj.bias`, [qkvRows], { kind: 'constant', value: 0 })
        : null;
      const out = make(
        `${prefix}.self_attn.o_proj.weight`,
        [hiddenSize, numHeads * headDim],
        normal(residualScale / Math.sqrt(numHeads * headDim)),
      );
      const mlpNorm = make(`${prefix}.post_attention_layernorm.weight`, [hiddenSize], ones);
      const gateUp = make(
        `${prefix}.mlp.gate_up_proj.weight`,
        [2 * intermediateSize, hiddenSize],
        normal(1 / Math.sqrt(hiddenSize)),
      );
      const down = make(
        `${prefix}.mlp.down_proj.weight`,
        [hiddenSize, intermediateSize],
        normal(residualScale / Math.sqrt(intermediateSize)),
      );
      return new DecoderLayer(
        new RmsNorm(attentionNorm, resolved.rmsNormEps),
        new SelfAttention({ numHeads, numKvHeads, headDim }, qkv, bias, out, layer),
        new RmsNorm(mlpNorm, resolved.rmsNormEps),
        new SwigluMlp(gateUp, down, layer),
      );
    });
    this.finalNorm = new RmsNorm(make('model.norm.weight', [hiddenSize], ones), resolved.rmsNormEps);
    this.head = resolved.tieWordEmbeddings
      ? this.embedding
      : make('lm_head.weight', [vocabSize, hiddenSize], normal(0.5 / Math.sqrt(hiddenSize)));
    this.parameters = parameters;
  }

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
    this.layers.forEach((layer, i) => {
      const numerics = pass.layerNumerics?.get(i);
      const selected = i === this.layers.length - 1 ? rows : null;
      residual = layer.forward(numerics ? { ...pass, numerics } : pass, residual, selected);
    });
    const { out } = this.finalNorm.forward(pass, residual);
    pass.observe?.('finalNorm', -1, out);
    return out;
  }

  /** Gives the parameters' memory back. */
  dispose(): void {
    for (const parameter of this.parameters) parameter.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
