import { call, callOne, type Tensor } from '../tensor/tensor.js';

/**
 * a + b for two tensors of one shape and dtype: added in fp32, rounded once to that dtype.
 *
 * @throws InvalidArgumentError where shapes or dtypes differ, or for int32
 */
export function add(a: Tensor, b: Tensor): Tensor {
  return callOne('add', [a.handle, b.handle]);
}

/**
 * a * b, element by element, for two tensors of one shape and dtype: multiplied in fp32, rounded once to that
 * dtype.
 *
 * @throws InvalidArgumentError where shapes or dtypes differ, or for int32
 */
export function multiply(a: Tensor, b: Tensor): Tensor {
  return callOne('multiply', [a.handle, b.handle]);
}

/**
 * x * factor in the dtype of x; the factor is rounded to fp32, the product once to the dtype.
 *
 * @throws InvalidArgumentError for int32, or a factor that fp32 cannot hold
 */
export function scale(x: Tensor, factor: number): Tensor {
  return callOne('scale', [x.handle, factor]);
}

/**
 * target += x in place, in fp32: how gradients of any dtype are gathered.
 *
 * @param target fp32, the shape of x
 * @throws InvalidArgumentError where shapes differ or target is not fp32
 */
export function accumulate(target: Tensor, x: Tensor): void {
  call('accumulate', [target.handle, x.handle]);
}
