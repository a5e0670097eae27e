import { checkInteger } from '../errors.js';
import { familyNumber, type KernelFamily } from '../numerics.js';
import { callFallible, type Tensor } from '../tensor/tensor.js';
import { type PackedWeight, packedArguments } from './packWeight.js';

/** Settings of {@link groupedLinear}. */
export interface GroupedLinearOptions {
  family?: KernelFamily;
  /** As for gemm; default 0. */
  splitK?: number;
}

/**
 * A linear layer an expert, on rows sorted by expert: `y_r = W_e x_r` for the rows r from offsets[e] to
 * offsets[e + 1] - 1.
 *
 * The bits are those of {@link linear} on each expert's rows alone, in either family: a row does not see the others, nor
 * how many there are. The threads share the work of all experts; an expert without rows costs nothing.
 *
 * @param x [rows, K], any float dtype
 * @param weight [E, N, K] of the same dtype, or packed
 * @param offsets int32 [E + 1], rising from 0 to the number of rows: see `groupByExpert`
 * @returns [rows, N] in the dtype of x
 * @throws InvalidArgumentError if shapes or dtypes do not fit, or the weight was packed at another vector level; a
 *   DeviceError from the next read for offsets that do not rise from 0 to the number of rows
 */
export function groupedLinear(
  x: Tensor,
  weight: Tensor | PackedWeight,
  offsets: Tensor,
  options: GroupedLinearOptions = {},
): Tensor {
  const { family = 'training', splitK = 0 } = options;
  const [handle, ...packed] = packedArguments(weight);
  return callFallible('groupedLinear', [
    x.handle,
    handle,
    offsets.handle,
    familyNumber('groupedLinear', 'family', family),
    checkInteger('groupedLinear', 'splitK', splitK, 0, 2 ** 30),
    ...packed,
  ])[0]!;
}

/**
 * The gradient of {@link groupedLinear} by its input, `dx_r = W_e^T dy_r`, by the training family: the bits of
 * `linearInputGradient` on each expert's rows.
 *
 * @param dy [rows, N], any float dtype
 * @param weight [E, N, K] of the same dtype
 * @param offsets int32 [E + 1], as in the forward pass
 * @returns [rows, K] in the dtype of dy
 */
export function groupedLinearInputGradient(dy: Tensor, weight: Tensor, offsets: Tensor): Tensor {
  return callFallible('groupedLinearInputGradient', [dy.handle, weight.handle, offsets.handle])[0]!;
}

/**
 * Adds the gradient of {@link groupedLinear} by its weight to `grad`: `grad_e += sum over e's rows of dy_r^T x_r`, by the
 * training family, in fp32: the bits of `linearWeightGradient` on each expert's rows. Without `accumulate` it replaces
 * what `grad` holds, with zeros for experts without rows.
 *
 * @param dy [rows, N], any float dtype
 * @param x [rows, K] of the same dtype
 * @param offsets int32 [E + 1], as in the forward pass
 * @param grad fp32 [E, N, K]
 * @throws InvalidArgumentError if shapes or dtypes do not fit, or grad overlaps an input
 */
export function groupedLinearWeightGradient(
  dy: Tensor,
  x: Tensor,
  offsets: Tensor,
  grad: Tensor,
  accumulate = true,
): void {
  const values = [dy.handle, x.handle, offsets.handle, grad.handle, Number(accumulate)];
  callFallible('groupedLinearWeightGradient', values);
}
