import { checkChoice } from '../errors.js';
import { call, callOne, type Tensor } from '../tensor/tensor.js';

/** In the order of native/ops/reduce.h. */
const kinds = ['sum', 'mean', 'max'] as const;
const axes = ['all', 'last'] as const;

export type Reduction = (typeof kinds)[number];

/** Over every element (`all`) or over the last dimension (`last`). */
export type ReductionAxis = (typeof axes)[number];

/**
 * The sum, mean or maximum of a floating-point tensor, in fp32.
 *
 * The order of additions depends on the length alone, so the result has the same bits at every thread count and
 * vector level, and a row's result does not depend on the other rows. The maximum of values with a NaN is NaN. A
 * sum of no elements is 0; mean and max refuse to have none.
 *
 * @returns fp32 [1] for `all`, fp32 [rows] for `last`, where rows is the product of the dimensions before it.
 */
export function reduce(x: Tensor, kind: Reduction, axis: ReductionAxis = 'all'): Tensor {
  checkChoice('reduce', 'kind', kind, kinds);
  checkChoice('reduce', 'axis', axis, axes);
  return callOne('reduce', [x.handle, kinds.indexOf(kind), axes.indexOf(axis)]);
}

/**
 * Adds the sums over rows of some columns of x to `out`: the gradient of a bias, whose columns may be a part of a
 * merged projection. `out[c] += sum over n of x[n, columnOffset + c]`.
 *
 * @param x [N, C], any float type.
 * @param columnOffset first column.
 * @param count number of columns.
 * @param out fp32 [count], added to in place.
 */
export function columnSum(x: Tensor, columnOffset: number, count: number, out: Tensor): void {
  call('columnSum', [x.handle, columnOffset, count, out.handle]);
}
