import type { NativeFloatDType } from '../../lib/tensor/dtype.js';

/** Bits of precision (the hidden one included), least exponent of a normal number and largest value. */
const layouts = {
  fp16: { precision: 11, minExponent: -14, max: 65504 },
  bf16: { precision: 8, minExponent: -126, max: (2 - 2 ** -7) * 2 ** 127 },
} as const;

const scratch = new DataView(new ArrayBuffer(8));

/**
 * `x` rounded to `dtype`, to nearest even, by arithmetic on its value: a model apart from the addon's bit
 * manipulation. To imitate fp32 arithmetic with a 16-bit result, round with Math.fround first.
 */
export function roundTo(x: number, dtype: NativeFloatDType): number {
  if (dtype === 'fp32') return Math.fround(x);
  if (x === 0 || !Number.isFinite(x)) return x;
  const { precision, minExponent, max } = layouts[dtype];
  scratch.setFloat64(0, x);
  const exponent = Math.max(((scratch.getUint16(0) >> 4) & 0x7ff) - 1023, minExponent);
  const unit = 2 ** (exponent - precision + 1);
  const units = Math.abs(x) / unit; // exact: a power of two
  let whole = Math.floor(units);
  const rest = units - whole;
  if (rest > 0.5 || (rest === 0.5 && whole % 2 === 1)) whole++;
  const magnitude = whole * unit > max ? Infinity : whole * unit;
  return x < 0 ? -magnitude : magnitude;
}

/** The sum of a power of two of lanes as every kernel forms it: by halves, in fp32. */
export function addLanes(lanes: Float32Array): number {
  const a = Float32Array.from(lanes);
  for (let half = a.length / 2; half >= 1; half /= 2) for (let i = 0; i < half; i++) a[i]! += a[i + half]!;
  return a[0]!;
}
