import { type AllocatorModel, type Block, blockBytes } from '../tensor/allocatorModel.js';
import { bytesPerElement, type DType, type FloatDType } from '../tensor/dtype.js';
import type { ResolvedDecoderConfig } from './config.js';

/** What a norm puts out: the sum that the residual stream goes on with, null where nothing was pending, and the normed one. */
interface NormBlocks {
  readonly sum: Block | null;
  readonly out: Block;
}

/** The tensors that a layer of a decoder makes (`DecoderLayer`), in that order. */
export interface LayerBlocks {
  readonly attentionNorm: NormBlocks;
  readonly qkv: Block;
  /** After the norms of heads, where there are some. The rotary positions take the memory of what they turn. */
  readonly headNorm: Block | null;
  readonly attended: Block;
  /** Log-sum-exp of the attention, kept for its gradient. */
  readonly lse: Block | null;
  readonly attentionOut: Block;
  readonly mlpNorm: NormBlocks;
  readonly gateUp: Block;
  readonly gated: Block;
  readonly mlpOut: Block;
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
    const { numHeads, hiddenSize, intermediateSize, qkNorm } = this.config;
    const attentionNorm = this.norm(tokens, layer > 0);
    const qkv = this.take(tokens, this.qkvColumns);
    const headNorm = qkNorm ? this.headNorm(tokens) : null;
    const attended = this.take(tokens, this.attentionColumns);
    const lse = attention === 'paged' ? null : this.take(numHeads, tokens, 'fp32');
    if (attention === 'packed') this.memory.give(lse);
    const rows = selected ?? tokens;
    const copies = selected === null ? [] : [this.take(rows, this.attentionColumns)];
    const attentionOut = this.take(rows, hiddenSize);
    if (selected !== null) copies.push(this.take(rows, hiddenSize));
    return {
      attentionNorm,
      qkv,
      headNorm,
      attended,
      lse: attention === 'kept' ? lse : null,
      attentionOut,
      mlpNorm: this.norm(rows, true),
      gateUp: this.take(rows, 2 * intermediateSize),
      gated: this.take(rows, intermediateSize),
      mlpOut: this.take(rows, hiddenSize),
      selected: copies,
    };
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
    const { attentionNorm, mlpNorm, mlpOut } = blocks;
    const { qkv, headNorm, attended, lse, attentionOut, gateUp, gated, selected } = blocks;
    this.memory.give(attentionNorm.sum, attentionNorm.out, qkv, headNorm, attended, lse, attentionOut);
    this.memory.give(mlpNorm.out, gateUp, gated, ...selected);
    return [mlpNorm.sum!, mlpOut];
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

/** The bytes of fp32, or other, tensors of these shapes, each in a block of its own. */
export function tensorBytes(shapes: Iterable<readonly number[]>, dtype: DType = 'fp32'): number {
  let sum = 0;
  for (const shape of shapes)
    sum += blockBytes(shape.reduce((product, d) => product * d, 1) * bytesPerElement(dtype));
  return sum;
}
