import { InvalidArgumentError, nearest } from '../errors.js';

/**
 * A float format by its exponent and mantissa bits, as e8m7 (bf16's) or e4m3: any split that fp32 holds, emulated. Values
 * are kept in fp32 and rounded wherever a 16-bit type is: IEEE 754's rules, with subnormals and infinities (so e4m3 is
 * not OCP's e4m3fn, which gives up infinities for range).
 */
export type EmulatedDType = `e${number}m${number}`;

/** The float types that have kernels of their own. */
export type NativeFloatDType = 'fp32' | 'fp16' | 'bf16';

/** Element types. 16-bit types and emulated ones are storage formats: arithmetic is in fp32. */
export type FloatDType = NativeFloatDType | EmulatedDType;
export type DType = FloatDType | 'int32';

/** The types that are more than emulated, in the order of native/core/dtype.h. */
export const dtypes: readonly DType[] = ['fp32', 'fp16', 'bf16', 'int32'];
export const floatDtypes: readonly NativeFloatDType[] = ['fp32', 'fp16', 'bf16'];

const LEAST_EXPONENT_BITS = 2;
const MOST_EXPONENT_BITS = 8;
const MOST_MANTISSA_BITS = 23;
/** Other names of formats. */
const aliases: Readonly<Record<string, EmulatedDType>> = { tf32: 'e8m10' };

/** What other libraries call them: not taken, but understood. */
const foreignNames: Readonly<Record<string, FloatDType>> = {
  half: 'fp16',
  float16: 'fp16',
  f16: 'fp16',
  bfloat16: 'bf16',
  float: 'fp32',
  float32: 'fp32',
  f32: 'fp32',
  fp8: 'e4m3',
};

/** Exponent and mantissa bits that are stored, of any float type. */
export interface FloatBits {
  readonly exponent: number;
  readonly mantissa: number;
}

const storedBits: Readonly<Record<string, FloatBits>> = {
  fp32: { exponent: 8, mantissa: 23 },
  fp16: { exponent: 5, mantissa: 10 },
  bf16: { exponent: 8, mantissa: 7 },
};

/** The bits of a float type; undefined for what is none. */
export function floatBits(dtype: string): FloatBits | undefined {
  if (Object.hasOwn(storedBits, dtype)) return storedBits[dtype];
  const match = /^e([2-8])m([1-9]|1\d|2[0-3])$/.exec(dtype);
  return match === null ? undefined : { exponent: Number(match[1]), mantissa: Number(match[2]) };
}

/** Whether a type is emulated: kept in fp32, and slower than the real ones. */
export function isEmulated(dtype: DType): dtype is EmulatedDType {
  return !dtypes.includes(dtype);
}

/** A type as results name it: an emulated one says so, even where it has the bits of a real one. */
export function precisionLabel(dtype: FloatDType): string {
  return isEmulated(dtype) ? `${dtype} (emulated)` : dtype;
}

/**
 * Expects a float type: fp16, bf16, fp32, tf32 (for e8m10) or an emulated eXmY, and returns it.
 *
 * @throws InvalidArgumentError naming the nearest
 */
export function checkFloatDtype(where: string, name: string, value: unknown): FloatDType {
  if (typeof value === 'string') {
    if (Object.hasOwn(aliases, value)) return aliases[value]!;
    if (floatBits(value)) return value as FloatDType;
  }
  const near = typeof value === 'string' ? nearestFloat(value) : undefined;
  throw new InvalidArgumentError(
    `[${where}] expected ${name} to be fp16, bf16, fp32, tf32 or an emulated eXmY with ${LEAST_EXPONENT_BITS} to ` +
      `${MOST_EXPONENT_BITS} exponent and 1 to ${MOST_MANTISSA_BITS} mantissa bits, got ${JSON.stringify(value)}` +
      (near === undefined ? '' : ` (did you mean ${near}?)`),
  );
}

/** The type that was most likely meant: another library's name, a split that is out of range, or a slip of the pen. */
function nearestFloat(text: string): string | undefined {
  // torch.float8_e4m3fn, fp8_e5m2, e4m3fnuz: what stands around the split says how it differs from IEEE's.
  const name = text
    .trim()
    .toLowerCase()
    .replace(/^(?:torch\.)?(?:fp|float)?\d*[-_]?(e\d+m\d+)(?:fn|fnuz|b\d+fnuz)?$/, '$1');
  if (Object.hasOwn(foreignNames, name)) return foreignNames[name];
  const split = /^e(\d+)m(\d+)$/.exec(name);
  if (split === null) return nearest(text, [...floatDtypes, ...Object.keys(aliases)]);
  const within = (digits: string, low: number, high: number) => Math.min(Math.max(Number(digits), low), high);
  const exponent = within(split[1]!, LEAST_EXPONENT_BITS, MOST_EXPONENT_BITS);
  return `e${exponent}m${within(split[2]!, 1, MOST_MANTISSA_BITS)}`;
}

/** The number by which native/core/dtype.h knows a type. */
export function dtypeNumber(dtype: DType): number {
  const real = dtypes.indexOf(dtype);
  if (real >= 0) return real;
  const { exponent, mantissa } = floatBits(checkFloatDtype('dtype', 'dtype', dtype))!;
  return dtypes.length + (exponent - LEAST_EXPONENT_BITS) * MOST_MANTISSA_BITS + mantissa - 1;
}

/** The type of that number. */
export function dtypeOf(number: number): DType {
  const real = dtypes[number];
  if (real !== undefined) return real;
  const index = number - dtypes.length;
  const exponent = LEAST_EXPONENT_BITS + Math.floor(index / MOST_MANTISSA_BITS);
  return `e${exponent}m${1 + (index % MOST_MANTISSA_BITS)}`;
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

const toNumber = { fp16: fp16ToNumber, bf16: bf16ToNumber };
const tables: { fp16?: Float32Array; bf16?: Float32Array } = {};

/**
 * The values of 16-bit numbers given by their bits; exact. From a table of all 65,536: to work out each of many would
 * take longer than most kernels.
 */
export function floatsOf(dtype: 'fp16' | 'bf16', bits: Uint16Array): Float32Array {
  tables[dtype] ??= new Float32Array(65536).map((_, i) => toNumber[dtype](i));
  const table = tables[dtype];
  const values = new Float32Array(bits.length);
  // Not Float32Array.from with a function: it is a hundred times slower.
  for (let i = 0; i < bits.length; i++) values[i] = table[bits[i]!]!;
  return values;
}

/** The range and the fineness of a float type. */
export interface FloatFormat {
  /** Largest finite value. */
  readonly max: number;
  readonly minNormal: number;
  readonly minSubnormal: number;
  /** Unit of rounding, 2^-(mantissa bits + 1). */
  readonly epsilon: number;
}

/** The format of any float type. */
export function formatOf(dtype: FloatDType): FloatFormat {
  const { exponent, mantissa } = floatBits(checkFloatDtype('formatOf', 'dtype', dtype))!;
  const bias = 2 ** (exponent - 1) - 1;
  return {
    max: (2 - 2 ** -mantissa) * 2 ** bias,
    minNormal: 2 ** (1 - bias),
    minSubnormal: 2 ** (1 - bias - mantissa),
    epsilon: 2 ** -(mantissa + 1),
  };
}

/** The formats of the real float types. */
export const formats: Readonly<Record<NativeFloatDType, FloatFormat>> = {
  fp32: formatOf('fp32'),
  fp16: formatOf('fp16'),
  bf16: formatOf('bf16'),
};
