/** What the roofs of the machine allow the engines: the lines that measured costs are drawn beside. */
import type { MachinePeaks, Peak } from '../../lib/ops/peak.js';
import { bytesPerElement, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { forwardFlops, type ModelSize, matmulWeights, trainingFlops } from '../model.js';
import { roofOf } from '../report.js';

/** The machine's peaks and the dtype of weights, activations and cache. */
export interface Ground {
  readonly peaks: MachinePeaks;
  /** How fast so many bytes are read again and again, in GB/s, by size: what fits in a cache comes from there. */
  readonly reading: readonly { readonly bytes: number; readonly gbps: number }[];
  readonly dtype: NativeFloatDType;
}

/** The peaks as a loop over `bytes` meets them: the reading of the next smaller size that was measured. */
export function peaksFor(bytes: number, { peaks, reading }: Ground): MachinePeaks {
  const fitting = reading.filter((size) => size.bytes <= bytes).at(-1) ?? reading[0];
  if (!fitting) return peaks;
  return { ...peaks, read: { best: fitting.gbps, median: fitting.gbps } };
}

/** Of two measurements of one machine the faster, roof by roof: the slower one was disturbed. */
export function higherOf(a: Ground, b: Ground): Ground {
  const higher = (p: Peak, q: Peak) => (p.best >= q.best ? p : q);
  const perhaps = (p: Peak | null, q: Peak | null) => (p && q ? higher(p, q) : (p ?? q));
  return {
    ...a,
    peaks: {
      ...a.peaks,
      fma: higher(a.peaks.fma, b.peaks.fma),
      bf16: perhaps(a.peaks.bf16, b.peaks.bf16),
      amx: perhaps(a.peaks.amx, b.peaks.amx),
      read: higher(a.peaks.read, b.peaks.read),
      copy: higher(a.peaks.copy, b.peaks.copy),
    },
    reading: a.reading.map(({ bytes, gbps }, i) => ({
      bytes,
      gbps: Math.max(gbps, b.reading[i]!.gbps),
    })),
  };
}

/** Keys and values of a token in all layers. */
export function kvBytesPerToken({ layers, hidden }: ModelSize, dtype: NativeFloatDType): number {
  return 2 * layers * hidden * bytesPerElement(dtype);
}

/**
 * Tokens a second of decoding `batch` sequences at once with `keys` tokens behind each: a step reads every weight and
 * the whole cache, and multiplies each weight with every token. Products and attention each take the longer of their
 * arithmetic and their reading.
 */
export function decodeRate(size: ModelSize, batch: number, keys: number, ground: Ground): number {
  const { dtype } = ground;
  const weights = matmulWeights(size);
  const products = { flops: 2 * weights * batch, bytes: weights * bytesPerElement(dtype), dtype };
  const attention = {
    flops: 4 * size.layers * size.hidden * keys * batch,
    bytes: kvBytesPerToken(size, dtype) * keys * batch,
    dtype,
  };
  const peaks = peaksFor(products.bytes + attention.bytes, ground);
  const ms = roofOf(products, peaks).leastMs + roofOf(attention, peaks).leastMs;
  return (1e3 * batch) / ms;
}

/** Tokens a second of one pass over a prompt: arithmetic alone, half of the attention masked. */
export function prefillRate(size: ModelSize, length: number, { peaks, dtype }: Ground): number {
  const flops = forwardFlops(size, length, length / 2, 1);
  return (1e3 * length) / roofOf({ flops, bytes: 0, dtype }, peaks).leastMs;
}

/**
 * Tokens a second of training: three times the forward pass, half of the attention masked, and AdamW, which reads
 * master, gradient and two moments and writes master, moments and the rounded weight.
 */
export function trainingRate(
  size: ModelSize,
  batch: number,
  length: number,
  { peaks, dtype }: Ground,
): number {
  const maskedAway = 6 * size.layers * size.hidden * length * length * batch;
  const flops = trainingFlops(size, batch, length) - maskedAway;
  const parameters = matmulWeights(size) + size.hidden * size.vocabulary;
  const optimizer = { flops: 0, bytes: parameters * (7 * 4 + bytesPerElement(dtype)), dtype, writes: true };
  const ms = roofOf({ flops, bytes: 0, dtype }, peaks).leastMs + roofOf(optimizer, peaks).leastMs;
  return (1e3 * batch * length) / ms;
}

/**
 * Memory that a token takes in a training step: the activations that the tape keeps, and what the backward pass holds
 * at its widest, which is at its beginning.
 *
 * In elements of the dtype, with H hidden and F feed-forward units: the embedding H; a layer 10 H + 3 F (two norms with
 * their sums 4 H, qkv 3 H, attended and its projection 2 H, gate and up 2 F, gated F, down H; the first has one sum
 * less); the last norm and its sum 2 H, the rows that predict H. Then 2 H, the gradient of these rows and of all; or, where
 * that is more, the gradient F of gated and that of the residual stream H, where the last norm and the rows (3 H) are
 * gone: gate and up give their memory to their gradient. And in 4 bytes: the log-sum-exp of each head, four indices,
 * three results of the head.
 */
export function trainingBytesPerToken(
  { layers, hidden, heads, ffn }: ModelSize,
  dtype: NativeFloatDType,
): number {
  const kept = layers * (10 * hidden + 3 * ffn) + 3 * hidden;
  const backward = Math.max(2 * hidden, ffn + hidden - 3 * hidden);
  return (kept + backward) * bytesPerElement(dtype) + 4 * (layers * heads + 4 + 3);
}
