import type { Parameter } from '../autograd/parameter.js';
import type { AllocatorModel, Block } from '../tensor/allocatorModel.js';
import { bytesPerElement, type DType, type FloatDType } from '../tensor/dtype.js';
import { isMixtureLayer, type ResolvedDecoderConfig } from './config.js';
import type { Decoder } from './decoder.js';

/** What a norm puts out: the sum that the residual stream goes on with, null where nothing was pending, and the normed one. */
interface NormBlocks {
  readonly sum: Block | null;
  readonly out: Block;
}

/** What a layer's projections put out, low-rank branches of an adapter included. */
export interface Projected {
  readonly y: Block;
  /** x A^T of each branch, kept for its gradient. */
  readonly inner: readonly Block[];
}

/** The outputs of the low-rank branches beside each weight of a layer. */
export interface LoraColumns extends Readonly<Record<LoraWeight, readonly number[]>> {
  readonly rank: number;
  /** The knob `loraScaleFirst`. */
  readonly scaleFirst: boolean;
}

/** Of a model's adapter, with the knob `loraScaleFirst`; null for a model without one. */
export function loraColumns({ layers, lora }: Decoder, scaleFirst: number): LoraColumns | null {
  if (lora === null) return null;
  const { attention, mlp } = layers[0]!;
  const outputs = (base: Parameter) => lora.of(base).map(({ b }) => b.shape[0]!);
  return {
    rank: lora.config.rank,
    scaleFirst: scaleFirst === 1,
    qkv: outputs(attention.qkvWeight),
    out: outputs(attention.outWeight),
    gateUp: outputs(mlp.gateUpWeight),
    down: outputs(mlp.downWeight),
  };
}

export type LoraWeight = 'qkv' | 'out' | 'gateUp' | 'down';

/** The tensors of a feed-forward block. */
export interface MlpBlocks {
  readonly gateUp: Projected;
  readonly gated: Block;
  readonly out: Projected;
  /** Of a mixture of experts. */
  readonly mixture: {
    readonly logits: Block;
    readonly ids: Block;
    readonly weights: Block;
    /** Integers that tell which row is whose. */
    readonly groups: readonly Block[];
    readonly sorted: Block;
    readonly down: Block;
  } | null;
}

/** The tensors that a layer of a decoder makes (`DecoderLayer`), in that order. */
export interface LayerBlocks {
  readonly attentionNorm: NormBlocks;
  readonly qkv: Projected;
  /** After the norms of heads, where there are some. The rotary positions take the memory of what they turn. */
  readonly headNorm: Block | null;
  readonly attended: Block;
  /** Log-sum-exp of the attention, kept for its gradient. */
  readonly lse: Block | null;
  readonly attentionOut: Projected;
  readonly mlpNorm: NormBlocks;
  readonly mlp: MlpBlocks;
  /** Copies of the selected rows, where some were. */
  readonly selected: readonly Block[];
}

/**
 * The memory of passes through a decoder, in numbers alone: it takes and gives back what `Decoder.hidden` and the modules
 * of lib/nn do. Scratch of kernels (some MB a thread) is not counted, as `memory()` does not.
 */
export class PassMemory {
  constructor(
    readonly memory: AllocatorModel,
    readonly config: ResolvedDecoderConfig,
    readonly dtype: FloatDType,
    /** The adapter that is computed with, which all layers have alike. */
    readonly lora: LoraColumns | null = null,
  ) {}

  /** Columns of the packed queries, keys and values. */
  get qkvColumns(): number {
    const { numHeads, numKvHeads, headDim } = this.config;
    return (numHeads + 2 * numKvHeads) * headDim;
  }

  get attentionColumns(): number {
    return this.config.numHeads * this.config.headDim;
  }

  take(rows: number, columns = 1, dtype: DType = this.dtype): Block {
    return this.memory.take(rows * columns * bytesPerElement(dtype));
  }

  /** The two orders of heads (`headOrder`), or nothing where heads have no norms. */
  headOrder(tokens: number): Block[] {
    const { numHeads, numKvHeads, qkNorm } = this.config;
    const heads = tokens * (numHeads + 2 * numKvHeads);
    return qkNorm ? [this.take(heads, 1, 'int32'), this.take(heads, 1, 'int32')] : [];
  }

  norm(rows: number, pending: boolean): NormBlocks {
    const { hiddenSize } = this.config;
    return { sum: pending ? this.take(rows, hiddenSize) : null, out: this.take(rows, hiddenSize) };
  }

  /**
   * One layer. `attention` is the kernel: over packed sequences, which gives a log-sum-exp (to be kept or not), or over
   * the pages of a cache. With `selected` as many rows go on behind it.
   */
  layer(
    layer: number,
    tokens: number,
    attention: 'kept' | 'packed' | 'paged',
    selected: number | null = null,
  ): LayerBlocks {
    const { numHeads, hiddenSize, qkNorm } = this.config;
    const attentionNorm = this.norm(tokens, layer > 0);
    const taped = attention === 'kept';
    const qkv = this.project(tokens, this.qkvColumns, 'qkv', taped);
    const headNorm = qkNorm ? this.headNorm(tokens) : null;
    const attended = this.take(tokens, this.attentionColumns);
    const lse = attention === 'paged' ? null : this.take(numHeads, tokens, 'fp32');
    if (!taped) this.memory.give(lse);
    const rows = selected ?? tokens;
    const copies = selected === null ? [] : [this.take(rows, this.attentionColumns)];
    const attentionOut = this.project(rows, hiddenSize, 'out', taped);
    if (selected !== null) copies.push(this.take(rows, hiddenSize));
    return {
      attentionNorm,
      qkv,
      headNorm,
      attended,
      lse: taped ? lse : null,
      attentionOut,
      mlpNorm: this.norm(rows, true),
      mlp: isMixtureLayer(this.config, layer) ? this.mixture(rows) : this.mlp(rows, taped),
      selected: copies,
    };
  }

  /** A product, and what an adapter adds to it in its memory. */
  project(tokens: number, columns: number, weight: LoraWeight, taped: boolean): Projected {
    const y = this.take(tokens, columns);
    const inner: Block[] = [];
    for (const outputs of this.lora?.[weight] ?? []) {
      const { rank, scaleFirst } = this.lora!;
      const wide = scaleFirst ? [this.take(tokens, rank, 'fp32'), this.take(tokens, rank, 'fp32')] : [];
      const product = this.take(tokens, rank);
      this.memory.give(...wide);
      this.memory.give(this.take(tokens, outputs));
      if (taped) inner.push(product);
      else this.memory.give(product);
    }
    return { y, inner };
  }

  mlp(tokens: number, taped: boolean): MlpBlocks {
    const { hiddenSize, intermediateSize } = this.config;
    return {
      gateUp: this.project(tokens, 2 * intermediateSize, 'gateUp', taped),
      gated: this.take(tokens, intermediateSize),
      out: this.project(tokens, hiddenSize, 'down', taped),
      mixture: null,
    };
  }

  mixture(tokens: number): MlpBlocks {
    const { hiddenSize, numExperts, numExpertsPerToken: k, moeIntermediateSize } = this.config;
    const mixture = {
      logits: this.take(tokens, numExperts),
      ids: this.take(tokens, k, 'int32'),
      weights: this.take(tokens, k, 'fp32'),
      groups: [tokens * k, tokens * k, numExperts + 1].map((n) => this.take(n, 1, 'int32')),
      sorted: this.take(tokens * k, hiddenSize),
    };
    const product = (rows: number, columns: number) => ({ y: this.take(rows, columns), inner: [] });
    const gateUp = product(tokens * k, 2 * moeIntermediateSize);
    const gated = this.take(tokens * k, moeIntermediateSize);
    const down = this.take(tokens * k, hiddenSize);
    return { gateUp, gated, out: product(tokens, hiddenSize), mixture: { ...mixture, down } };
  }

  /** Sorts heads, norms queries and keys, and sorts back. */
  headNorm(tokens: number): Block {
    const { numHeads, numKvHeads, headDim } = this.config;
    const sorted = this.take(tokens, this.qkvColumns);
    const [q, k] = [this.take(tokens, numHeads * headDim), this.take(tokens, numKvHeads * headDim)];
    const out = this.take(tokens, this.qkvColumns);
    this.memory.give(sorted, q, k);
    return out;
  }

  /** Gives back all of a layer but the residual stream behind it, which is returned. */
  dropLayer(blocks: LayerBlocks): Block[] {
    const { attentionNorm, qkv, headNorm, attended, lse, attentionOut, mlpNorm, mlp, selected } = blocks;
    this.memory.give(attentionNorm.sum, attentionNorm.out, qkv.y, headNorm, attended, lse, attentionOut.y);
    this.memory.give(mlpNorm.out, mlp.gateUp.y, mlp.gated, ...selected);
    for (const { inner } of [qkv, attentionOut, mlp.gateUp, mlp.out]) this.memory.give(...inner);
    if (mlp.mixture) {
      const { groups, ...others } = mlp.mixture;
      this.memory.give(...groups, ...Object.values(others));
    }
    return [mlpNorm.sum!, mlp.out.y];
  }

  /** A pass that keeps nothing for gradients, up to the last norm, of which the output is returned: [rows, hiddenSize]. */
  hidden(tokens: number, attention: 'packed' | 'paged', selected: number | null = null): Block[] {
    const { numLayers, hiddenSize } = this.config;
    let residual = [this.take(tokens, hiddenSize)];
    for (let i = 0; i < numLayers; i++) {
      const next = this.dropLayer(this.layer(i, tokens, attention, i === numLayers - 1 ? selected : null));
      this.memory.give(...residual);
      residual = next;
    }
    const { sum, out } = this.norm(selected ?? tokens, true);
    return [...residual, sum!, out];
  }
}
