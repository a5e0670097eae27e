import { gatherRows, reshape, rope } from '../autograd/functions.js';
import type { Parameter } from '../autograd/parameter.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Forward } from './forward.js';
import type { HeadNorm } from './headNorm.js';
import { project } from './project.js';

export interface SelfAttentionShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

/**
 * Grouped-query causal self-attention with rotary positions:
 *
 *     q, k, v = x Wq^T + bq, x Wk^T + bk, x Wv^T + bv      numHeads, numKvHeads, numKvHeads heads of headDim
 *     out     = softmax(rope(q) rope(k)^T / sqrt(headDim), causal) v Wo^T + bo
 *
 * Query head h reads key-value head floor(h numKvHeads / numHeads). Wq, Wk and Wv are the row blocks of one
 * parameter, so that a merged projection needs no copy. Where there is a norm of heads, q and k go through it before rope.
 */
export class SelfAttention {
  constructor(
    readonly shape: SelfAttentionShape,
    /** [(numHeads + 2 numKvHeads) headDim, hiddenSize]. */
    readonly qkvWeight: Parameter,
    /** [(numHeads + 2 numKvHeads) headDim], or null. */
    readonly qkvBias: Parameter | null,
    /** [hiddenSize, numHeads headDim]. */
    readonly outWeight: Parameter,
    readonly layer: number,
    /** Norms of query and key heads, or null. */
    readonly headNorm: HeadNorm | null = null,
    /** [hiddenSize], or null. */
    readonly outBias: Parameter | null = null,
  ) {}

  /** [tokens, hiddenSize] -> [tokens, hiddenSize], or of the tokens `rows` alone. */
  forward(pass: Forward, x: Tensor, rows: Tensor | null = null): Tensor {
    const { numHeads, numKvHeads, headDim } = this.shape;
    const { tape, numerics } = pass;
    const kvRows = numKvHeads * headDim;
    const blocks = [numHeads * headDim, kvRows, kvRows];
    const flat = project(pass, x, this.qkvWeight, this.qkvBias, blocks);
    pass.observe?.('qkv', this.layer, flat);
    const qkv = reshape(tape, flat, [x.shape[0]!, numHeads + 2 * numKvHeads, headDim]);
    const normed = this.headNorm ? this.headNorm.forward(pass, qkv, this.shape) : qkv;
    const rotated = rope(tape, normed, pass.ropeTable, pass.positions, {
      rotatedHeads: numHeads + numKvHeads,
      roundings: numerics.ropeRoundings,
      table16: numerics.ropeTable16 === 1,
      inPlace: true,
    });
    const attended = pass.attend(this.layer, rotated, tape);
    pass.observe?.('attention', this.layer, attended);
    const selected = rows ? gatherRows(tape, attended, rows) : attended;
    const out = project(pass, selected, this.outWeight, this.outBias, [this.outWeight.shape[0]!]);
    pass.observe?.('attentionOut', this.layer, out);
    return out;
  }
}
