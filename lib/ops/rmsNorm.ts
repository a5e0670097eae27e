import { call, callOne, handleOf, type Tensor } from '../tensor/tensor.js';

/**
 * y = x * r * weight with r = 1 / sqrt(mean(x^2) + eps) over the last dimension
 * (Zhang and Sennrich, "Root Mean Square Layer Normalization", arXiv 1910.07467).
 *
 * Arithmetic is in fp32; the mean is formed in an order that depends on the row alone, so a row has the same
 * bits in every batch.
 *
 * @param x [..., H], any float dtype, of at least one dimension
 * @param weight [H] in the dtype of x
 * @param eps at least 0
 * @param roundings 1: round(x * r * weight); 2: round(round(x * r) * weight), to the dtype of x
 * @throws InvalidArgumentError where shapes or dtypes do not fit
 */
export function rmsNorm(x: Tensor, weight: Tensor, eps: number, roundings: 1 | 2 = 1): Tensor {
  return callOne('rmsNorm', [x.handle, weight.handle, eps, roundings]);
}

/**
 * The residual addition and the norm behind it in one: sum = round(x + delta), and y the norm (see
 * {@link rmsNorm}) of x + delta as it stands in fp32, *before* that rounding. In 16 bits y therefore differs
 * from `rmsNorm(add(x, delta), ...)`.
 *
 * @param delta the shape and dtype of x
 * @param roundedSum y is the norm of the rounded sum instead: the bits of `rmsNorm(add(x, delta), ...)`
 */
export function addRmsNorm(
  x: Tensor,
  delta: Tensor,
  weight: Tensor,
  eps: number,
  roundings: 1 | 2 = 1,
  roundedSum = false,
): { sum: Tensor; y: Tensor } {
  const [sum, y] = call('addRmsNorm', [
    x.handle,
    delta.handle,
    weight.handle,
    eps,
    roundings,
    Number(roundedSum),
  ]);
  return { sum: sum!, y: y! };
}

/**
 * The gradients of {@link rmsNorm}:
 * dx = r * (dy * weight - x * r^2 * mean(dy * weight * x)), in fp32, rounded once to the dtype of x;
 * gradWeight += sum over rows of dy * x * r.
 *
 * @param dy the shape and dtype of x
 * @param x the input of the forward pass
 * @param gradWeight fp32 [H], accumulated in place; null where the weight is frozen
 * @param dSum what x has of gradient from elsewhere, added to the rounded dx: the bits of `add(dSum, dx)`
 * @returns dx
 */
export function rmsNormBackward(
  dy: Tensor,
  x: Tensor,
  weight: Tensor,
  eps: number,
  gradWeight: Tensor | null,
  dSum: Tensor | null = null,
): Tensor {
  return callOne('rmsNormBackward', [
    handleOf(dSum),
    dy.handle,
    x.handle,
    weight.handle,
    eps,
    handleOf(gradWeight),
  ]);
}

/**
 * The gradients of {@link addRmsNorm} (of the sum in fp32): dx = round(dSum + d), d being the gradient of the norm at x + delta in
 * fp32. The result is the gradient of x and of delta alike; gradWeight accumulates as in {@link rmsNormBackward}.
 *
 * @param dSum gradient of `sum`, the shape and dtype of x, or null where nothing reads the sum
 * @param dy gradient of `y`, the shape and dtype of x
 */
export function addRmsNormBackward(
  dSum: Tensor | null,
  dy: Tensor,
  x: Tensor,
  delta: Tensor,
  weight: Tensor,
  eps: number,
  gradWeight: Tensor | null,
): Tensor {
  return callOne('addRmsNormBackward', [
    handleOf(dSum),
    dy.handle,
    x.handle,
    delta.handle,
    weight.handle,
    eps,
    handleOf(gradWeight),
  ]);
}
