import { checkInteger } from '../errors.js';
import { call, callOne, type Tensor } from '../tensor/tensor.js';

/**
 * `x[:, columnOffset : columnOffset + width] * factor`, with memory of its own; the factor is rounded to fp32, each product
 * once to the dtype of x.
 *
 * @param x [rows, columns], any float dtype
 * @returns [rows, width]
 * @throws InvalidArgumentError where the columns are not all there, or for a factor that fp32 cannot hold
 */
export function scaleColumns(x: Tensor, columnOffset: number, width: number, factor: number): Tensor {
  checkInteger('scaleColumns', 'columnOffset', columnOffset, 0);
  checkInteger('scaleColumns', 'width', width, 1);
  return callOne('scaleColumns', [x.handle, columnOffset, width, factor]);
}

/**
 * `target[:, columnOffset : columnOffset + width] += x * factor` in place, the product and the sum each rounded to the
 * dtype: the bits of `add(target, scale(x, factor))`.
 *
 * @param target [rows, columns], any float dtype
 * @param x [rows, width] of the same dtype
 * @throws InvalidArgumentError where shapes or dtypes do not fit, the two share memory, or for a factor that fp32 cannot hold
 */
export function addToColumns(target: Tensor, x: Tensor, columnOffset: number, factor: number): void {
  checkInteger('addToColumns', 'columnOffset', columnOffset, 0);
  call('addToColumns', [target.handle, x.handle, columnOffset, factor]);
}
