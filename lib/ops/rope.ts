import { checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';
import type { FloatDType } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { callFallible, cast, handleOf, type Tensor, tensor } from '../tensor/tensor.js';

export interface RopeOptions {
  /** Heads from the first on that are rotated (queries and keys); the rest (values) are copied. Default: all. */
  readonly rotatedHeads?: number;
  /** 1: one rounding at the end; 3: both products and their sum. Default: 1. */
  readonly roundings?: 1 | 3;
  /** Whether cos and sin are rounded to the dtype of x before use. Default: false. */
  readonly table16?: boolean;
  /** Where to write the result instead of to a new tensor: like x, or x itself. */
  readonly out?: Tensor;
}

/**
 * How the frequencies of a model differ from those that it was first trained with, so that it reads longer texts.
 *
 * `linear` divides all by `factor` (Chen et al., arXiv 2306.15595). `llama3` (Llama 3.1 and 3.2) divides by `factor` those
 * whose wavelength is above originalMaxPositionEmbeddings / lowFreqFactor, leaves those with one below
 * originalMaxPositionEmbeddings / highFreqFactor, and mixes both between.
 */
export type RopeScaling =
  | { readonly type: 'linear'; readonly factor: number }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    };

/** @throws InvalidArgumentError on an unknown type or a factor out of range, naming it within `where` */
export function checkRopeScaling(where: string, scaling: RopeScaling): RopeScaling {
  checkChoice(where, 'ropeScaling.type', scaling.type, ['linear', 'llama3']);
  checkNumber(where, 'ropeScaling.factor', scaling.factor, 1);
  if (scaling.type === 'linear') return scaling;
  const { lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
  checkNumber(where, 'ropeScaling.lowFreqFactor', lowFreqFactor);
  if (lowFreqFactor <= 0) invalid(where, 'ropeScaling.lowFreqFactor above 0', lowFreqFactor);
  checkNumber(where, 'ropeScaling.highFreqFactor', highFreqFactor);
  if (highFreqFactor <= lowFreqFactor) {
    invalid(where, `ropeScaling.highFreqFactor above lowFreqFactor = ${lowFreqFactor}`, highFreqFactor);
  }
  checkInteger(where, 'ropeScaling.originalMaxPositionEmbeddings', originalMaxPositionEmbeddings, 1);
  return scaling;
}

/** theta^(-2i / headDim) for each pair i, in radians a position, scaled as `scaling` says. */
export function ropeFrequencies(headDim: number, theta: number, scaling: RopeScaling | null): Float64Array {
  return Float64Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headDim);
    if (scaling === null) return frequency;
    const slow = frequency / scaling.factor;
    if (scaling.type === 'linear') return slow;
    const { lowFreqFactor: low, highFreqFactor: high } = scaling;
    const turns = (scaling.originalMaxPositionEmbeddings * frequency) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * frequency + (1 - kept) * slow;
  });
}

/**
 * The angles of rotary position embedding (Su et al., arXiv 2104.09864): (cos, sin) of
 * position * theta^(-2i / headDim), computed in fp64 and rounded once.
 *
 * @param dtype what the values are rounded to; they are stored as fp32 in any case
 * @param scaling of the frequencies; default none
 * @returns fp32 [maxPositions, headDim / 2, 2]
 * @throws InvalidArgumentError for sizes below 1, an odd headDim, a theta that is not positive, or a bad scaling
 */
export function ropeTable(
  maxPositions: number,
  headDim: number,
  theta: number,
  dtype: FloatDType = 'fp32',
  scaling: RopeScaling | null = null,
): Tensor {
  checkInteger('ropeTable', 'maxPositions', maxPositions, 1);
  checkInteger('ropeTable', 'headDim', headDim, 2);
  if (headDim % 2 !== 0) invalid('ropeTable', 'headDim to be even', headDim);
  checkNumber('ropeTable', 'theta', theta);
  if (theta <= 0) invalid('ropeTable', 'theta above 0', theta);
  if (scaling !== null) checkRopeScaling('ropeTable', scaling);
  const half = headDim / 2;
  const values = new Float32Array(maxPositions * headDim);
  ropeFrequencies(headDim, theta, scaling).forEach((frequency, i) => {
    for (let position = 0; position < maxPositions; position++) {
      const at = position * headDim + 2 * i;
      values[at] = Math.cos(position * frequency);
      values[at + 1] = Math.sin(position * frequency);
    }
  });
  const shape = [maxPositions, half, 2];
  if (dtype === 'fp32') return tensor(values, shape);
  return tidy(() => cast(tensor(values, shape, dtype), 'fp32'));
}

/**
 * Rotates each pair (x[i], x[i + headDim / 2]) of a head by the angle of its token's position:
 * y[i] = x[i] * cos - x[i + headDim / 2] * sin, y[i + headDim / 2] = x[i + headDim / 2] * cos + x[i] * sin.
 *
 * Products and sums are in fp32. With `roundings` 3 both products are rounded to the dtype of x before their
 * sum is; with `table16` cos and sin are rounded to it first.
 *
 * @param x [N, heads, headDim], any float dtype
 * @param table fp32 [positions, headDim / 2, 2], see {@link ropeTable}
 * @param positions int32 [N]
 * @returns like x, or `out`
 * @throws InvalidArgumentError where shapes or dtypes do not fit; DeviceError, at the next read, for a position
 * outside the table
 */
export function rope(x: Tensor, table: Tensor, positions: Tensor, options: RopeOptions = {}): Tensor {
  const { rotatedHeads = x.shape[1] ?? 0, roundings = 1, table16 = false, out } = options;
  const outputs = callFallible('rope', [
    x.handle,
    table.handle,
    positions.handle,
    rotatedHeads,
    roundings,
    Number(table16),
    handleOf(out),
  ]);
  return out ?? outputs[0]!;
}

/**
 * The gradient of {@link rope}: the rotation by the negative angle, in fp32 with one rounding at the end.
 *
 * @param dy like x of the forward pass
 * @param options as in the forward pass; `out` may be dy itself
 * @returns dx, or `out`
 */
export function ropeBackward(
  dy: Tensor,
  table: Tensor,
  positions: Tensor,
  options: Omit<RopeOptions, 'roundings'> = {},
): Tensor {
  const { rotatedHeads = dy.shape[1] ?? 0, table16 = false, out } = options;
  const outputs = callFallible('ropeBackward', [
    dy.handle,
    table.handle,
    positions.handle,
    rotatedHeads,
    Number(table16),
    handleOf(out),
  ]);
  return out ?? outputs[0]!;
}
