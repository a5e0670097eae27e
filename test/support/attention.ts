import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor, tensorFromBits } from '../../lib/tensor/tensor.js';
import { normals } from './compare.js';

export interface AttentionCase {
  lengths: readonly number[];
  numHeads: number;
  numKvHeads: number;
  headDim: number;
}

export function offsets(lengths: readonly number[]): number[] {
  const all = [0];
  for (const n of lengths) all.push(all.at(-1)! + n);
  return all;
}

/** Random packed qkv of the case. */
export function randomQkv(c: AttentionCase, dtype: NativeFloatDType, seed = 1): Tensor {
  const tokens = offsets(c.lengths).at(-1)!;
  const heads = c.numHeads + 2 * c.numKvHeads;
  return tensor(normals(tokens * heads * c.headDim, seed), [tokens, heads, c.headDim], dtype);
}

export const int32 = (values: readonly number[]): Tensor => tensor(values, [values.length], 'int32');

export function cuSeqlensOf(lengths: readonly number[]): Tensor {
  return int32(offsets(lengths));
}

export interface Reference {
  readonly out: Float64Array;
  readonly lse: Float64Array;
  /** Zero without dOut. */
  readonly dqkv: Float64Array;
}

const references = new Map<string, Reference>();

/** {@link referenceAttention} of values that `key` names: computed once for all vector levels. */
export function keptReference(key: string, ...args: Parameters<typeof referenceAttention>): Reference {
  const known = references.get(key) ?? referenceAttention(...args);
  references.set(key, known);
  return known;
}

/**
 * Softmax attention in fp64, straight from its definition, and its gradient by qkv where dOut is given.
 * Values are packed as in the op.
 */
export function referenceAttention(
  c: AttentionCase,
  qkv: ArrayLike<number>,
  scale: number,
  dOut?: ArrayLike<number>,
): Reference {
  const { numHeads, numKvHeads, headDim } = c;
  const starts = offsets(c.lengths);
  const tokens = starts.at(-1)!;
  const heads = numHeads + 2 * numKvHeads;
  const group = numHeads / numKvHeads;
  const out = new Float64Array(tokens * numHeads * headDim);
  const lse = new Float64Array(numHeads * tokens);
  const dqkv = new Float64Array(qkv.length);
  for (let s = 0; s < c.lengths.length; s++) {
    for (let h = 0; h < numHeads; h++) {
      const kv = Math.floor(h / group);
      for (let i = starts[s]!; i < starts[s + 1]!; i++) {
        const q = (i * heads + h) * headDim;
        const o = (i * numHeads + h) * headDim;
        const scores: number[] = [];
        for (let j = starts[s]!; j <= i; j++) {
          const k = (j * heads + numHeads + kv) * headDim;
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += qkv[q + d]! * qkv[k + d]!;
          scores.push(dot * scale);
        }
        const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
        const sum = scores.reduce((total, x) => total + Math.exp(x - largest), 0);
        lse[h * tokens + i] = largest + Math.log(sum);
        const p = scores.map((x) => Math.exp(x - largest) / sum);
        p.forEach((weight, n) => {
          const v = ((starts[s]! + n) * heads + numHeads + numKvHeads + kv) * headDim;
          for (let d = 0; d < headDim; d++) out[o + d]! += weight * qkv[v + d]!;
        });
        if (!dOut) continue;
        // d softmax: dp_j = dOut v_j, ds_j = p_j (dp_j - sum over n of p_n dp_n).
        const dp = p.map((_, n) => {
          const v = ((starts[s]! + n) * heads + numHeads + numKvHeads + kv) * headDim;
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += dOut[o + d]! * qkv[v + d]!;
          return dot;
        });
        const mean = dp.reduce((total, x, n) => total + x * p[n]!, 0);
        p.forEach((weight, n) => {
          const k = ((starts[s]! + n) * heads + numHeads + kv) * headDim;
          const v = k + numKvHeads * headDim;
          const ds = weight * (dp[n]! - mean) * scale;
          for (let d = 0; d < headDim; d++) {
            dqkv[q + d]! += ds * qkv[k + d]!;
            dqkv[k + d]! += ds * qkv[q + d]!;
            dqkv[v + d]! += weight * dOut[o + d]!;
          }
        });
      }
    }
  }
  return { out, lse, dqkv };
}

/**
 * A cache whose pages hold NaN wherever nothing was written, and a block table that gives each slot pages in
 * shuffled order; unused entries of the table are out of range, so that reading one fails.
 */
export function pagedCache(c: AttentionCase, dtype: NativeFloatDType, slots: number) {
  const pagesPerSlot = c.lengths.map((n) => Math.ceil(n / 16));
  const columns = Math.max(1, ...pagesPerSlot);
  const pages = pagesPerSlot.reduce((a, b) => a + b, 0) + 3;
  // 7 and `stride` visit every page once, since stride is coprime to pages.
  let stride = 5;
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  while (gcd(stride, pages) !== 1) stride++;
  let next = 7;
  const table = new Array<number>(slots * columns).fill(-7);
  pagesPerSlot.forEach((count, slot) => {
    for (let p = 0; p < count; p++) table[slot * columns + p] = next = (next + stride) % pages;
  });
  const size = pages * c.numKvHeads * c.headDim * 16;
  const nan = (shape: number[]) =>
    dtype === 'fp32'
      ? tensor(new Float32Array(size).fill(Number.NaN), shape)
      : tensorFromBits(new Uint16Array(size).fill(0x7fff), shape, dtype);
  return {
    keyCache: nan([pages, c.numKvHeads, c.headDim, 16]),
    valueCache: nan([pages, c.numKvHeads, 16, c.headDim]),
    blockTable: tensor(table, [slots, columns], 'int32'),
  };
}
