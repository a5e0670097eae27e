import { headNorm } from '../autograd/functions.js';
import type { Parameter } from '../autograd/parameter.js';
import { InternalError } from '../errors.js';
import type { AttentionHeads } from '../ops/attention.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Forward } from './forward.js';

/**
 * RMSNorm of each query head and each key head over its headDim values, before the rotary positions (Qwen3):
 *
 *     q = q / sqrt(mean(q^2) + eps) * qWeight        k = k / sqrt(mean(k^2) + eps) * kWeight
 *
 * All query heads share one weight, all key heads another. It is rounded as the other norms are.
 */
export class HeadNorm {
  constructor(
    /** [headDim]. */
    readonly qWeight: Parameter,
    /** [headDim]. */
    readonly kWeight: Parameter,
    readonly eps: number,
  ) {}

  /** [tokens, numHeads + 2 numKvHeads, headDim] -> the same shape. */
  forward(pass: Forward, qkv: Tensor, heads: AttentionHeads): Tensor {
    if (!pass.headOrder) throw new InternalError('the pass has no order of heads');
    const weights = { q: pass.weight(this.qWeight), k: pass.weight(this.kWeight) };
    const roundings = pass.numerics.rmsNormRoundings;
    return headNorm(pass.tape, qkv, weights, pass.headOrder, { ...heads, eps: this.eps, roundings });
  }
}
