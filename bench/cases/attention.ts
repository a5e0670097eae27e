import {
  attention,
  attentionBackward,
  type KvCacheView,
  pagedAttention,
  pageSize,
  writeKvCache,
} from '../../lib/ops/attention.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tidy } from '../../lib/tensor/scope.js';
import { type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { type BenchCase, type CaseSelection, inputSet, normalInput } from '../case.js';
import type { PeerQuestion } from '../peers/driver.js';

interface Batch {
  sequences: number;
  heads: number;
  length: number;
  headDim: number;
}

const quick: readonly Batch[] = [
  { sequences: 1, heads: 12, length: 512, headDim: 128 },
  { sequences: 64, heads: 4, length: 64, headDim: 64 },
];
const full: readonly Batch[] = [...quick, { sequences: 1, heads: 12, length: 2048, headDim: 128 }];
const decode: Batch = { sequences: 8, heads: 12, length: 2048, headDim: 128 };

/**
 * Shapes are sequences x heads x length x headDim. Forward work counts as 4 heads T S headDim operations and
 * backward as 10: the causal half that is skipped is not taken off.
 */
export function attentionCases(selection: CaseSelection): BenchCase[] {
  const cases: BenchCase[] = [];
  const batches = selection.shapes === 'full' ? full : quick;
  for (const dtype of selection.dtypes) {
    for (const batch of batches) {
      if (selection.families.includes('training')) cases.push(forward(batch, dtype), backward(batch, dtype));
      if (selection.families.includes('rollout')) cases.push(paged(batch, dtype, batch.length));
    }
    if (selection.families.includes('rollout')) cases.push(paged(decode, dtype, 1));
  }
  return cases;
}

function common(batch: Batch, dtype: NativeFloatDType) {
  const { sequences, heads, length, headDim } = batch;
  const qkvBytes = sequences * length * 3 * heads * headDim * bytesPerElement(dtype);
  return {
    group: 'attention' as const,
    dtype,
    shape: `${sequences}x${heads}x${length}x${headDim}`,
    unit: 'GFLOP/s' as const,
    flops: 4 * sequences * heads * length * length * headDim,
    bytes: (qkvBytes * 4) / 3,
    inputBytes: qkvBytes,
  };
}

function question(op: string, batch: Batch, queries: number): PeerQuestion {
  const { sequences, heads, length, headDim } = batch;
  return { op, dims: [sequences, heads, queries, length, headDim] };
}

function packed(batch: Batch, dtype: NativeFloatDType, seed: number): { qkv: Tensor; cuSeqlens: Tensor } {
  const { sequences, heads, length, headDim } = batch;
  return {
    qkv: normalInput([sequences * length, 3 * heads, headDim], dtype, seed),
    cuSeqlens: indices([sequences + 1], (i) => i * length),
  };
}

function forward(batch: Batch, dtype: NativeFloatDType): BenchCase {
  const heads = { numHeads: batch.heads, numKvHeads: batch.heads };
  return {
    ...common(batch, dtype),
    op: 'attention',
    family: 'training',
    peer: question('attention', batch, batch.length),
    prepare(seed) {
      const { qkv, cuSeqlens } = packed(batch, dtype, seed);
      return inputSet([qkv, cuSeqlens], () => attention(qkv, cuSeqlens, heads));
    },
  };
}

function backward(batch: Batch, dtype: NativeFloatDType): BenchCase {
  const heads = { numHeads: batch.heads, numKvHeads: batch.heads };
  const base = common(batch, dtype);
  return {
    ...base,
    op: 'attentionBackward',
    family: 'training',
    peer: question('attentionBackward', batch, batch.length),
    flops: base.flops * 2.5,
    // qkv, out and dOut are read, dqkv is written.
    bytes: (base.inputBytes * 8) / 3,
    inputBytes: (base.inputBytes * 5) / 3,
    prepare(seed) {
      const { qkv, cuSeqlens } = packed(batch, dtype, seed);
      const { out, lse } = attention(qkv, cuSeqlens, heads);
      const dOut = normalInput(out.shape, dtype, seed + 1);
      return inputSet([qkv, cuSeqlens, out, lse, dOut], () =>
        attentionBackward(dOut, qkv, out, lse, cuSeqlens, heads),
      );
    },
  };
}

/** The last `queries` tokens of each sequence over all its keys: a prefill where that is all, a decode step at 1. */
function paged(batch: Batch, dtype: NativeFloatDType, queries: number): BenchCase {
  const { sequences, heads, length, headDim } = batch;
  const size = bytesPerElement(dtype);
  const base = common(batch, dtype);
  const cacheBytes = 2 * sequences * length * heads * headDim * size;
  const options = { numHeads: heads, numKvHeads: heads };
  return {
    ...base,
    op: queries === 1 ? 'decodeAttention' : 'pagedAttention',
    family: 'rollout',
    peer: question(queries === 1 ? 'decodeAttention' : 'attention', batch, queries),
    flops: (base.flops * queries) / length,
    bytes: cacheBytes + 2 * sequences * queries * heads * headDim * size,
    inputBytes: cacheBytes + sequences * queries * 3 * heads * headDim * size,
    prepare(seed) {
      const cache = filledCache(batch, dtype, seed);
      const qkv = normalInput([sequences * queries, 3 * heads, headDim], dtype, seed + 1);
      const slots = indices([sequences * queries], (i) => Math.floor(i / queries));
      const positions = indices([sequences * queries], (i) => length - queries + (i % queries));
      const view: KvCacheView = { ...cache, slots, positions };
      return inputSet([qkv, ...Object.values(view)], () => pagedAttention(qkv, view, options));
    },
  };
}

function indices(shape: readonly number[], value: (i: number) => number): Tensor {
  const length = shape.reduce((product, d) => product * d, 1);
  return tensor(
    Int32Array.from({ length }, (_, i) => value(i)),
    shape,
    'int32',
  );
}

function filledCache(
  batch: Batch,
  dtype: NativeFloatDType,
  seed: number,
): Omit<KvCacheView, 'slots' | 'positions'> {
  const { sequences, heads, length, headDim } = batch;
  const pagesPerSlot = Math.ceil(length / pageSize);
  const pages = sequences * pagesPerSlot;
  const cache = {
    keyCache: zeros([pages, heads, headDim, pageSize], dtype),
    valueCache: zeros([pages, heads, pageSize, headDim], dtype),
    blockTable: indices([sequences, pagesPerSlot], (i) => i),
  };
  tidy(() => {
    const tokens = sequences * length;
    const qkv = normalInput([tokens, 3 * heads, headDim], dtype, seed);
    const slots = indices([tokens], (i) => Math.floor(i / length));
    const positions = indices([tokens], (i) => i % length);
    writeKvCache(qkv, { ...cache, slots, positions }, { numHeads: heads, numKvHeads: heads });
  });
  return cache;
}
