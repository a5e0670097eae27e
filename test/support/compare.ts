import assert from 'node:assert/strict';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';

/** Relative error ||out - reference|| / ||reference|| that an op may have, by dtype of its output. */
export const tolerance: Readonly<Record<NativeFloatDType, number>> = {
  fp32: 1e-5,
  fp16: 2e-3,
  bf16: 1e-2,
};

/** ||out - reference|| / ||reference|| in fp64; NaN or infinity anywhere in `out` makes it infinite. */
export function relativeError(out: ArrayLike<number>, reference: ArrayLike<number>): number {
  assert.equal(out.length, reference.length, 'lengths');
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < reference.length; i++) {
    if (!Number.isFinite(out[i])) return Number.POSITIVE_INFINITY;
    difference += (out[i]! - reference[i]!) ** 2;
    norm += reference[i]! ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** Fails unless the relative error is within `limit` (by default the tolerance of `dtype`). */
export function assertClose(
  out: ArrayLike<number>,
  reference: ArrayLike<number>,
  dtype: NativeFloatDType,
  label: string,
  limit: number = tolerance[dtype],
): void {
  const error = relativeError(out, reference);
  assert.ok(error <= limit, `${label}: relative error ${error} is above ${limit}`);
}

/** Fails unless both hold the same bits. */
export function assertSameBits(a: ArrayLike<number>, b: ArrayLike<number>, label: string): void {
  assert.equal(a.length, b.length, `${label}: lengths`);
  for (let i = 0; i < a.length; i++) {
    if (!Object.is(a[i], b[i])) assert.fail(`${label}: element ${i} is ${a[i]} and ${b[i]}`);
  }
}

const made = new Map<string, Float64Array>();

/**
 * Normal values from a small generator of its own, not from the code under test. Fewer values are the first of more: they
 * are kept for the vector levels and dtypes that ask for them again.
 */
export function normals(count: number, seed: number, scale = 1): Float64Array {
  const key = `${seed} ${scale}`;
  let values = made.get(key);
  if (values === undefined || values.length < count) {
    values = generate(count, seed, scale);
    made.set(key, values);
  }
  return values.slice(0, count);
}

/** mulberry32 and Box-Muller. */
function generate(count: number, seed: number, scale: number): Float64Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++)
    values[i] = scale * Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  return values;
}
