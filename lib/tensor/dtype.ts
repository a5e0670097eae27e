import { checkChoice } from '../errors.js';

/** Element types. 16-bit types are storage formats: arithmetic is in fp32. */
export type DType = 'fp32' | 'fp16' | 'bf16' | 'int32';
export type FloatDType = Exclude<DType, 'int32'>;

/** In the order of native/core/dtype.h. */
export const dtypes: readonly DType[] = ['fp32', 'fp16', 'bf16', 'int32'];
export const floatDtypes: readonly FloatDType[] = ['fp32', 'fp16', 'bf16'];

export function dtypeNumber(dtype: DType): number {
  return dtypes.indexOf(checkChoice('dtype', 'dtype', dtype, dtypes));
}

export function bytesPerElement(dtype: DType): number {
  return dtype === 'fp16' || dtype === 'bf16' ? 2 : 4;
}

/** The value of an fp16 number given by its 16 bits; exact. */
export function fp16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * mantissa * 2 ** -24 : sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

const scratch = new DataView(new ArrayBuffer(4));

/** The value of a bf16 number given by its 16 bits; exact. */
export function bf16ToNumber(bits: number): number {
  scratch.setUint32(0, bits * 65536);
  return scratch.getFloat32(0);
}

/** Largest finite value, smallest normal and subnormal, and unit of rounding (2^-(mantissa bits + 1)) of each format. */
export const formats: Readonly<
  Record<FloatDType, { max: number; minNormal: number; minSubnormal: number; epsilon: number }>
> = {
  fp32: { max: 3.4028234663852886e38, minNormal: 2 ** -126, minSubnormal: 2 ** -149, epsilon: 2 ** -24 },
  fp16: { max: 65504, minNormal: 2 ** -14, minSubnormal: 2 ** -24, epsilon: 2 ** -11 },
  bf16: { max: 3.3895313892515355e38, minNormal: 2 ** -126, minSubnormal: 2 ** -133, epsilon: 2 ** -8 },
};
