import { callFallible, type Tensor } from '../tensor/tensor.js';

/** How heads share a packed qkv, and the factor of the scores. */
export interface AttentionHeads {
  numHeads: number;
  /** Divides numHeads; query head h reads key and value head floor(h numKvHeads / numHeads). */
  numKvHeads: number;
  /** Applied to the fp32 score; 1 / sqrt(headDim) unless given. */
  scale?: number;
}

/** The two choices that decide what the probabilities are rounded against and in which order sums are joined. */
export interface AttentionOrder {
  /** Keys a chunk, whose partial results are joined in order in fp32: 0 (all keys in one) or a multiple of `tile`. */
  chunk?: number;
  /** Keys a step of the online softmax: a multiple of 16, at most 4096. */
  tile?: number;
}

function scaleOf(qkv: Tensor, heads: AttentionHeads): number {
  return heads.scale ?? 1 / Math.sqrt(qkv.shape[2] ?? 1);
}

/**
 * Causal attention over whole sequences, as a training framework computes it (variable length, one pass).
 *
 * For query i and key j <= i of one sequence: s_j = scale q k_j, p = softmax(s), out = sum of p_j v_j. Scores,
 * probabilities and sums are fp32; within a chunk each tile's exp(s_j - m), m the running maximum, is rounded to
 * the dtype of qkv before its product with v (FlashAttention, arXiv 2205.14135, algorithm 1, with 16-bit operands);
 * out is rounded once. At equal `chunk` and `tile` a row has the bits that {@link pagedAttention} gives it. At level
 * amx an fp16 number is multiplied as the sum of two bf16, which makes NaN of an infinite one.
 *
 * @param qkv [tokens, numHeads + 2 numKvHeads, headDim], fp32, fp16 or bf16: query heads, key heads, value heads;
 *   headDim even, at most 256
 * @param cuSeqlens int32 [sequences + 1]: sequence s is the tokens cuSeqlens[s] to cuSeqlens[s + 1] - 1; it must
 *   start at 0, not decrease and end at `tokens`, or the next read throws a DeviceError
 * @param options chunk is 0 and tile 128 unless given
 * @returns out [tokens, numHeads * headDim] in the dtype of qkv; lse fp32 [numHeads, tokens], the natural
 *   log-sum-exp of the scaled scores, for {@link attentionBackward}
 */
export function attention(
  qkv: Tensor,
  cuSeqlens: Tensor,
  options: AttentionHeads & AttentionOrder,
): { out: Tensor; lse: Tensor } {
  const { numHeads, numKvHeads, chunk = 0, tile = 128 } = options;
  const [out, lse] = callFallible('attention', [
    qkv.handle,
    cuSeqlens.handle,
    numHeads,
    numKvHeads,
    scaleOf(qkv, options),
    chunk,
    tile,
  ]);
  return { out: out!, lse: lse! };
}

/**
 * The gradient of {@link attention} by qkv, with 16-bit operands and fp32 sums (FlashAttention-2, arXiv 2307.08691,
 * algorithm 2): P = exp(scale q k - lse), D = sum of dOut out, dS = P (dOut v - D); dV = P^T dOut, dK = scale dS^T q,
 * dQ = scale dS k, where P and dS are rounded to the dtype of qkv before the last three products. Each result is
 * rounded once; the gradient of a key head sums its query heads in order. What is not finite may reach every gradient
 * of its sequence, and no other's.
 *
 * @param dOut the gradient of out, of its shape and dtype
 * @param qkv, out, lse, cuSeqlens as {@link attention} took and returned them
 * @returns dqkv, of the shape and dtype of qkv
 */
export function attentionBackward(
  dOut: Tensor,
  qkv: Tensor,
  out: Tensor,
  lse: Tensor,
  cuSeqlens: Tensor,
  options: AttentionHeads,
): Tensor {
  return callFallible('attentionBackward', [
    dOut.handle,
    qkv.handle,
    out.handle,
    lse.handle,
    cuSeqlens.handle,
    options.numHeads,
    options.numKvHeads,
    scaleOf(qkv, options),
  ])[0]!;
}

/**
 * A paged cache of keys and values, and where the tokens of a step are in it. All of it is in tensors, so that a
 * recorded step can be replayed after they have been written anew.
 */
export interface KvCacheView {
  /**
   * [pages, numKvHeads, headDim, 16]: the 16 keys of a page side by side. In bf16, two neighbours along headDim lie
   * side by side: the elements are in the order [pages, numKvHeads, headDim / 2, 16, 2]. On a GPU, of whatever
   * dtype, they are in the order [pages, numKvHeads, 16, headDim].
   */
  keyCache: Tensor;
  /**
   * [pages, numKvHeads, 16, headDim]; in bf16 on the CPU, in the order [pages, numKvHeads, 8, headDim, 2], two keys
   * side by side.
   */
  valueCache: Tensor;
  /** int32 [slots, pagesPerSlot]: the page of positions 16 n to 16 n + 15 of a slot. */
  blockTable: Tensor;
  /** int32 [tokens]: the slot (running sequence) of each token; below 0 for a row that is not in use. */
  slots: Tensor;
  /** int32 [tokens]: the position of each token in its sequence, from 0. */
  positions: Tensor;
}

/** Positions a page of the cache holds. */
export const pageSize = 16;

/**
 * Stores the keys and values of qkv in the cache, in place; tokens of slots below 0 are skipped. No two tokens of a
 * call may have the same place. A slot, position or page outside its range is a DeviceError at the next read.
 */
export function writeKvCache(
  qkv: Tensor,
  cache: KvCacheView,
  options: Pick<AttentionHeads, 'numHeads' | 'numKvHeads'>,
): void {
  callFallible('writeKvCache', [...cacheArguments(qkv, cache), options.numHeads, options.numKvHeads]);
}

/**
 * Causal attention of the queries of qkv over cached keys and values, as a serving engine computes it, for prefill
 * and decode alike: token i attends to positions 0 to positions[i] of its slot, which must be in the cache
 * already ({@link writeKvCache} comes first). Arithmetic as {@link attention}; a row depends on nothing but its own query
 * and its own keys. Rows of slots below 0 are zeros. A slot, position or page outside its range is a DeviceError
 * at the next read.
 *
 * @param options chunk is 256 and tile 32 unless given
 * @returns out [tokens, numHeads * headDim] in the dtype of qkv
 */
export function pagedAttention(
  qkv: Tensor,
  cache: KvCacheView,
  options: AttentionHeads & AttentionOrder,
): Tensor {
  const { numHeads, numKvHeads, chunk = 256, tile = 32 } = options;
  return callFallible('pagedAttention', [
    ...cacheArguments(qkv, cache),
    numHeads,
    numKvHeads,
    scaleOf(qkv, options),
    chunk,
    tile,
  ])[0]!;
}

function cacheArguments(qkv: Tensor, cache: KvCacheView): number[] {
  const { keyCache, valueCache, blockTable, slots, positions } = cache;
  return [qkv, keyCache, valueCache, blockTable, slots, positions].map((t) => t.handle);
}
