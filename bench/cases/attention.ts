import type { Device } from '../../lib/device.js';
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
import { type BenchCase, type CaseSelection, inputSet, normalInput, type Sizes, sizesOf } from '../case.js';
import type { PeerQuestion } from '../peers/driver.js';

interface Batch {
  readonly sequences: number;
  readonly heads: number;
  /** Default: as many as heads. */
  readonly kvHeads?: number;
  readonly length: number;
  readonly headDim: number;
}

const first: readonly Batch[] = [
  { sequences: 1, heads: 12, length: 512, headDim: 128 },
  { sequences: 64, heads: 4, length: 64, headDim: 64 },
];
/** 16,384 tokens of 2,048 numbers, in sequences of these lengths. */
const longer = (...lengths: readonly number[]): Batch[] =>
  [128, 64].flatMap((headDim) =>
    lengths.map((length) => ({ sequences: 16384 / length, heads: 2048 / headDim, length, headDim })),
  );

const sizes: Sizes<Batch> = {
  tiny: [{ sequences: 2, heads: 2, length: 20, headDim: 64 }],
  cpu: { quick: first, full: [...first, { sequences: 1, heads: 12, length: 2048, headDim: 128 }] },
  cuda: { quick: longer(1024, 4096, 16384), full: longer(1024, 2048, 4096, 8192, 16384) },
};

/** On a GPU of a model of 1.5 billion parameters, which has two heads of keys and values. */
const onGpu = (sequences: number, length: number): Batch => ({
  sequences,
  heads: 12,
  kvHeads: 2,
  length,
  headDim: 128,
});
const onCpu: Batch = { sequences: 8, heads: 12, length: 2048, headDim: 128 };
const decodeSizes: Sizes<Batch> = {
  tiny: [{ sequences: 2, heads: 2, length: 70, headDim: 64 }],
  cpu: { quick: [onCpu], full: [onCpu] },
  cuda: {
    quick: [onGpu(64, 4096), onGpu(1, 16384)],
    full: [...[1, 8, 64, 256].map((sequences) => onGpu(sequences, 4096)), onGpu(1, 16384), onGpu(16, 16384)],
  },
};

/**
 * Shapes are sequences x heads x length x headDim. Forward work counts as 4 heads T S headDim operations and
 * backward as 10: on a CPU the causal half that is skipped is not taken off, on a GPU it is.
 */
export function attentionCases(selection: CaseSelection): BenchCase[] {
  const cases: BenchCase[] = [];
  const { device, families, dtypes } = selection;
  for (const dtype of dtypes) {
    for (const batch of sizesOf(selection, sizes)) {
      if (families.includes('training'))
        cases.push(forward(batch, dtype, device), backward(batch, dtype, device));
      if (families.includes('rollout')) cases.push(paged(batch, dtype, device, batch.length));
    }
    if (families.includes('rollout'))
      for (const batch of sizesOf(selection, decodeSizes)) cases.push(paged(batch, dtype, device, 1));
  }
  return cases;
}

/** Heads of queries, keys and values together. */
const allHeads = ({ heads, kvHeads = heads }: Batch) => heads + 2 * kvHeads;
const headsOf = ({ heads, kvHeads = heads }: Batch) => ({ numHeads: heads, numKvHeads: kvHeads });

function common(batch: Batch, dtype: NativeFloatDType, device: Device) {
  const { sequences, heads, length, headDim } = batch;
  const qkvBytes = sequences * length * allHeads(batch) * headDim * bytesPerElement(dtype);
  const outBytes = sequences * length * heads * headDim * bytesPerElement(dtype);
  const keys = device === 'cuda' ? (length + 1) / 2 : length; // that a query sees, on the average
  return {
    group: 'attention' as const,
    dtype,
    shape: `${sequences}x${heads}x${length}x${headDim}`,
    unit: 'GFLOP/s' as const,
    flops: 4 * sequences * heads * length * keys * headDim,
    bytes: qkvBytes + outBytes,
    inputBytes: qkvBytes,
  };
}

function question(op: string, batch: Batch, queries: number): PeerQuestion {
  const { sequences, heads, kvHeads = heads, length, headDim } = batch;
  const grouped = kvHeads === heads ? [] : [kvHeads];
  return { op, dims: [sequences, heads, queries, length, headDim, ...grouped] };
}

function packed(batch: Batch, dtype: NativeFloatDType, seed: number): { qkv: Tensor; cuSeqlens: Tensor } {
  const { sequences, length, headDim } = batch;
  return {
    qkv: normalInput([sequences * length, allHeads(batch), headDim], dtype, seed),
    cuSeqlens: indices([sequences + 1], (i) => i * length),
  };
}

function forward(batch: Batch, dtype: NativeFloatDType, device: Device): BenchCase {
  return {
    ...common(batch, dtype, device),
    op: 'attention',
    family: 'training',
    peer: question('attention', batch, batch.length),
    prepare(seed) {
      const { qkv, cuSeqlens } = packed(batch, dtype, seed);
      return inputSet([qkv, cuSeqlens], () => attention(qkv, cuSeqlens, headsOf(batch)));
    },
  };
}

function backward(batch: Batch, dtype: NativeFloatDType, device: Device): BenchCase {
  const base = common(batch, dtype, device);
  const outBytes = base.bytes - base.inputBytes;
  return {
    ...base,
    op: 'attentionBackward',
    family: 'training',
    peer: question('attentionBackward', batch, batch.length),
    flops: base.flops * 2.5,
    // qkv, out and dOut are read, dqkv is written.
    bytes: 2 * base.inputBytes + 2 * outBytes,
    inputBytes: base.inputBytes + 2 * outBytes,
    prepare(seed) {
      const { qkv, cuSeqlens } = packed(batch, dtype, seed);
      const { out, lse } = attention(qkv, cuSeqlens, headsOf(batch));
      const dOut = normalInput(out.shape, dtype, seed + 1);
      return inputSet([qkv, cuSeqlens, out, lse, dOut], () =>
        attentionBackward(dOut, qkv, out, lse, cuSeqlens, headsOf(batch)),
      );
    },
  };
}

/** The last `queries` tokens of each sequence over all its keys: a prefill where that is all, a decode step at 1. */
function paged(batch: Batch, dtype: NativeFloatDType, device: Device, queries: number): BenchCase {
  const { sequences, heads, kvHeads = heads, length, headDim } = batch;
  const size = bytesPerElement(dtype);
  const base = common(batch, dtype, device);
  const cacheBytes = 2 * sequences * length * kvHeads * headDim * size;
  return {
    ...base,
    op: queries === 1 ? 'decodeAttention' : 'pagedAttention',
    family: 'rollout',
    peer: question(queries === 1 ? 'decodeAttention' : 'attention', batch, queries),
    flops: queries === 1 ? 4 * sequences * heads * length * headDim : base.flops,
    bytes: cacheBytes + 2 * sequences * queries * heads * headDim * size,
    inputBytes: cacheBytes + sequences * queries * allHeads(batch) * headDim * size,
    prepare(seed) {
      const cache = filledCache(batch, dtype, seed);
      const qkv = normalInput([sequences * queries, allHeads(batch), headDim], dtype, seed + 1);
      const slots = indices([sequences * queries], (i) => Math.floor(i / queries));
      const positions = indices([sequences * queries], (i) => length - queries + (i % queries));
      const view: KvCacheView = { ...cache, slots, positions };
      return inputSet([qkv, ...Object.values(view)], () => pagedAttention(qkv, view, headsOf(batch)));
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
  const { sequences, heads, kvHeads = heads, length, headDim } = batch;
  const pagesPerSlot = Math.ceil(length / pageSize);
  const pages = sequences * pagesPerSlot;
  const cache = {
    keyCache: zeros([pages, kvHeads, headDim, pageSize], dtype),
    valueCache: zeros([pages, kvHeads, pageSize, headDim], dtype),
    blockTable: indices([sequences, pagesPerSlot], (i) => i),
  };
  tidy(() => {
    const tokens = sequences * length;
    const qkv = normalInput([tokens, allHeads(batch), headDim], dtype, seed);
    const slots = indices([tokens], (i) => Math.floor(i / length));
    const positions = indices([tokens], (i) => i % length);
    writeKvCache(qkv, { ...cache, slots, positions }, headsOf(batch));
  });
  return cache;
}
