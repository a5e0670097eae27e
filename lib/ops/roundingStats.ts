import { invalid } from '../errors.js';
import { type FloatDType, formatOf } from '../tensor/dtype.js';
import { cast, readTensors, type Tensor } from '../tensor/tensor.js';
import { add, scale } from './elementwise.js';
import { gradientStats } from './gradStats.js';
import { reduce } from './reduce.js';

/** What becomes of values that are rounded to a narrower format. */
export interface RoundingStats {
  /** Finite values that are infinite in the format. */
  readonly overflow: number;
  /** Values that were NaN or infinite before. */
  readonly nonFinite: number;
  /** Values other than 0 that are 0 in the format. */
  readonly toZero: number;
  /** Values that are subnormal in the format, where it has fewer bits for them. */
  readonly subnormal: number;
  /** Largest |x|; infinite or NaN where there are such values. */
  readonly maxAbs: number;
  /** ||rounded - x|| over the values that stay finite. */
  readonly errorNorm: number;
  /** ||x|| over the same values. */
  readonly norm: number;
}

/** Counts are numbers of fp32. */
const MAX_ELEMENTS = 2 ** 24;
/** The largest power of two of fp32. */
const MAX_POWER = 127;

/**
 * Compares values with what `cast` has made of them. The counts are exact, by arithmetic alone: the factor 2^(128 - e)
 * takes the values of at least 2^e, and no others, beyond fp32, where the non-finite ones are counted.
 *
 * @param x fp32, of 1 to 2^24 elements
 * @param rounded x in another float type
 * @throws InvalidArgumentError where there are more elements or none, or the shapes differ
 */
export async function roundingStats(x: Tensor, rounded: Tensor): Promise<RoundingStats> {
  if (x.size === 0 || x.size > MAX_ELEMENTS) invalid('roundingStats', 'x of 1 to 2^24 elements', x.size);
  const made: Tensor[] = [];
  const own = (t: Tensor) => {
    made.push(t);
    return t;
  };
  /** Infinite or NaN where |values| is at least 2^exponent or was infinite or NaN, finite elsewhere. */
  const beyond = (values: Tensor, exponent: number) => {
    let result = values;
    for (let power = 128 - exponent; power > 0; power -= MAX_POWER) {
      result = own(scale(result, 2 ** Math.min(power, MAX_POWER)));
    }
    return result;
  };
  try {
    const smallest = Math.log2(formatOf('fp32').minSubnormal);
    const minNormal = Math.log2(formatOf(rounded.dtype as FloatDType).minNormal);
    const wide = own(cast(rounded, 'fp32'));
    const error = own(add(x, own(scale(wide, -1))));
    const extremes = [own(reduce(x, 'max')), own(reduce(own(scale(x, -1)), 'max'))];
    const { perTensor } = await gradientStats([
      ['x', x],
      ['rounded', wide],
      ['error', error],
      ['kept', own(add(wide, error))],
      ['nonzero', beyond(x, smallest)],
      ['nonzeroRounded', beyond(wide, smallest)],
      ['normal', beyond(wide, minNormal)],
    ]);
    const [highest, lowest] = await readTensors(extremes);
    const count = (name: string) => perTensor.get(name)!.nonFinite;
    return {
      overflow: count('rounded') - count('x'),
      nonFinite: count('x'),
      toZero: count('nonzero') - count('nonzeroRounded'),
      subnormal: count('nonzeroRounded') - count('normal'),
      maxAbs: Math.max(highest![0]!, lowest![0]!),
      errorNorm: perTensor.get('error')!.norm,
      norm: perTensor.get('kept')!.norm,
    };
  } finally {
    for (const t of made) t.dispose();
  }
}
