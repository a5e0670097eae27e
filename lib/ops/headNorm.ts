import { invalid } from '../errors.js';
import { tidy } from '../tensor/scope.js';
import { copy, type Tensor, tensor } from '../tensor/tensor.js';
import type { AttentionHeads } from './attention.js';
import { gatherRows } from './embedding.js';
import { rmsNorm, rmsNormBackward } from './rmsNorm.js';

/**
 * The heads of a packed qkv sorted by what they are: all queries, then all keys, then all values. Both are int32
 * [tokens (numHeads + 2 numKvHeads)], row numbers of heads.
 */
export interface HeadOrder {
  /** Which head of the packed ones comes where among the sorted. */
  readonly sorted: Tensor;
  /** Which head of the sorted ones comes where among the packed. */
  readonly packed: Tensor;
}

/** The order of the heads of `tokens` tokens; the caller owns its tensors. */
export function headOrder(tokens: number, { numHeads, numKvHeads }: AttentionHeads): HeadOrder {
  const heads = numHeads + 2 * numKvHeads;
  const sorted = new Int32Array(tokens * heads);
  const packed = new Int32Array(tokens * heads);
  let row = 0;
  for (const [begin, end] of [
    [0, numHeads],
    [numHeads, numHeads + numKvHeads],
    [numHeads + numKvHeads, heads],
  ] as const) {
    for (let token = 0; token < tokens; token++) {
      for (let head = begin; head < end; head++, row++) {
        sorted[row] = token * heads + head;
        packed[token * heads + head] = row;
      }
    }
  }
  return { sorted: tensor(sorted, [row], 'int32'), packed: tensor(packed, [row], 'int32') };
}

/**
 * {@link rmsNorm} of every query head and of every key head of a packed qkv, each kind with a weight of its own
 * (Qwen3's q_norm and k_norm); values stay as they are.
 *
 * @param qkv [tokens, numHeads + 2 numKvHeads, headDim], any float dtype
 * @param qWeight [headDim], and kWeight alike, in the dtype of qkv
 * @param order of as many tokens
 * @param roundings as for rmsNorm
 * @returns like qkv
 * @throws InvalidArgumentError where shapes, dtypes or the order do not fit
 */
export function headNorm(
  qkv: Tensor,
  qWeight: Tensor,
  kWeight: Tensor,
  order: HeadOrder,
  heads: AttentionHeads,
  eps: number,
  roundings: 1 | 2 = 1,
): Tensor {
  const [tokens = 0, perToken = 0] = qkv.shape;
  if (order.sorted.size !== tokens * perToken) {
    invalid('headNorm', `order of ${tokens} tokens`, order.sorted.size / perToken);
  }
  return tidy(() => {
    const sorted = gatherRows(headRows(qkv), order.sorted);
    const [q, k] = queriesAndKeys(sorted, tokens, heads);
    copy(rmsNorm(q, qWeight, eps, roundings), q);
    copy(rmsNorm(k, kWeight, eps, roundings), k);
    return gatherRows(sorted, order.packed).reshape(...qkv.shape);
  });
}

/**
 * The gradient of {@link headNorm}, by {@link rmsNormBackward}.
 *
 * @param dy like qkv
 * @param qkv the input of the forward pass
 * @param qGradient fp32 [headDim], accumulated in place, and kGradient alike; null where the weight is frozen
 * @returns the gradient of qkv
 */
export function headNormBackward(
  dy: Tensor,
  qkv: Tensor,
  qWeight: Tensor,
  kWeight: Tensor,
  order: HeadOrder,
  heads: AttentionHeads,
  eps: number,
  qGradient: Tensor | null,
  kGradient: Tensor | null,
): Tensor {
  return tidy(() => {
    const tokens = qkv.shape[0]!;
    const sorted = gatherRows(headRows(dy), order.sorted);
    const [dq, dk] = queriesAndKeys(sorted, tokens, heads);
    const [q, k] = queriesAndKeys(gatherRows(headRows(qkv), order.sorted), tokens, heads);
    copy(rmsNormBackward(dq, q, qWeight, eps, qGradient), dq);
    copy(rmsNormBackward(dk, k, kWeight, eps, kGradient), dk);
    return gatherRows(sorted, order.packed).reshape(...qkv.shape);
  });
}

function headRows(qkv: Tensor): Tensor {
  const [tokens = 0, heads = 0, headDim = 0] = qkv.shape;
  return qkv.reshape(tokens * heads, headDim);
}

function queriesAndKeys(sorted: Tensor, tokens: number, heads: AttentionHeads): [q: Tensor, k: Tensor] {
  const q = tokens * heads.numHeads;
  return [sorted.rows(0, q), sorted.rows(q, q + tokens * heads.numKvHeads)];
}
