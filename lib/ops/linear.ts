import { checkInteger, invalid } from '../errors.js';
import { familyNumber, type KernelFamily } from '../numerics.js';
import type { FloatDType } from '../tensor/dtype.js';
import { call, callOne, handleOf, type Tensor } from '../tensor/tensor.js';
import { resultDtype } from './gemm.js';
import { type PackedWeight, packedArguments } from './packWeight.js';

/** Settings of {@link linear}. */
export interface LinearOptions {
  /** One [N_i] for each weight, or null for none; added before the result is rounded. */
  biases?: readonly (Tensor | null)[];
  family?: KernelFamily;
  /** As for gemm; default 0. */
  splitK?: number;
  /** fp32 or the dtype of x (default). */
  outDtype?: FloatDType;
}

/**
 * `y_i = x W_i^T (+ bias_i)` for one or several weights, side by side.
 *
 * x is [rows, K], weight i is [N_i, K] of the same dtype; the result is [rows, sum of N_i], a block of columns for
 * each weight. One merged weight and the separate weights it was joined from give the same bits, since the sum of
 * an element depends on K alone (see gemm).
 *
 * A {@link PackedWeight} gives the same bits as the tensor it was packed from, sooner.
 *
 * @throws InvalidArgumentError if shapes or dtypes do not fit, there are none or more than 16 weights, or a weight was
 *   packed at another vector level
 */
export function linear(
  x: Tensor,
  weights: readonly (Tensor | PackedWeight)[],
  options: LinearOptions = {},
): Tensor {
  const { biases, family = 'training', splitK = 0, outDtype } = options;
  if (biases && biases.length !== weights.length)
    invalid('linear', `biases to be ${weights.length}, one a weight (or null)`, biases.length);
  return callOne('linear', [
    x.handle,
    familyNumber('linear', 'family', family),
    checkInteger('linear', 'splitK', splitK, 0, 2 ** 30),
    resultDtype('linear', 'outDtype', outDtype, x),
    weights.length,
    ...weights.flatMap((weight, i) => {
      const [handle, ...packed] = packedArguments(weight);
      return [handle, handleOf(biases?.[i]), ...packed];
    }),
  ]);
}

/**
 * The gradient of {@link linear} by its input: `dx = sum over i of dy_i W_i`, by the training family.
 *
 * dy is [rows, sum of N_i], weight i is [N_i, K] of the same dtype; dx is [rows, K] of `dtype` (fp32 or, by
 * default, that of dy). The products are added in fp32 in the order of the weights and rounded once.
 *
 * @throws InvalidArgumentError if shapes or dtypes do not fit, or there are none or more than 16 weights
 */
export function linearInputGradient(dy: Tensor, weights: readonly Tensor[], dtype?: FloatDType): Tensor {
  return callOne('linearInputGradient', [
    dy.handle,
    resultDtype('linearInputGradient', 'dtype', dtype, dy),
    weights.length,
    ...weights.map((weight) => weight.handle),
  ]);
}

/**
 * Adds the gradient of {@link linear} by one of its weights to `grad`: `grad += dy[:, off : off + N]^T x`, by the
 * training family, in fp32. Without `accumulate` it replaces what `grad` holds.
 *
 * dy is [rows, columns], x is [rows, K] of the same dtype, grad is fp32 [N, K]; `columnOffset` is where the block of
 * this weight begins in dy.
 *
 * @throws InvalidArgumentError if shapes or dtypes do not fit, or grad overlaps an input
 */
export function linearWeightGradient(
  dy: Tensor,
  x: Tensor,
  columnOffset: number,
  grad: Tensor,
  accumulate = true,
): void {
  checkInteger('linearWeightGradient', 'columnOffset', columnOffset, 0);
  call('linearWeightGradient', [dy.handle, x.handle, columnOffset, grad.handle, Number(accumulate)]);
}
