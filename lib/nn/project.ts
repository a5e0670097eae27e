import { addLowRank, linear } from '../autograd/functions.js';
import type { Parameter } from '../autograd/parameter.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Forward, projection } from './forward.js';

/**
 * y = x W^T + b, and where the pass has an adapter of W, what it adds: y + scaling (x A^T) B^T.
 *
 * @param x [tokens, inputs]
 * @param blocks rows of the projections that W and b are joined from
 * @returns [tokens, outputs]
 */
export function project(
  pass: Forward,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | null,
  blocks: readonly number[],
): Tensor {
  const { tape, lora, numerics } = pass;
  const options = projection(pass, blocks);
  let y = linear(tape, x, pass.weight(weight), bias && pass.weight(bias), options);
  for (const { a, b, row } of lora?.of(weight) ?? []) {
    y = addLowRank(tape, y, x, pass.weight(a), pass.weight(b), {
      ...options,
      column: row,
      scaling: lora!.scaling,
      scaleFirst: numerics.loraScaleFirst === 1,
    });
  }
  return y;
}
