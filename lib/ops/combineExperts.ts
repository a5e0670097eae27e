import { callFallible, type Tensor } from '../tensor/tensor.js';

/**
 * The experts' outputs back to their tokens: `out_t = sum over the slots s of weights[t, s] y[rows[t, s]]`, in the order
 * of the slots, in fp32.
 *
 * @param y [tokens k, H], any float dtype: a row for each choice, in any order
 * @param weights fp32 [tokens, k]
 * @param rows int32 [tokens, k], a permutation of the rows of y: see `groupByExpert`
 * @param roundings 1: of the sum, to the dtype of y, as a serving engine's fused kernels have it; 3: of the weights, of
 *   the products and of each sum, as a framework has it that adds up 16-bit tensors
 * @returns [tokens, H] in the dtype of y; the same bits at every vector level
 * @throws InvalidArgumentError for wrong shapes or types; a DeviceError from the next read for rows that are no
 *   permutation
 */
export function combineExperts(y: Tensor, weights: Tensor, rows: Tensor, roundings: 1 | 3 = 1): Tensor {
  return callFallible('combineExperts', [y.handle, weights.handle, rows.handle, roundings])[0]!;
}

/**
 * The gradient of {@link combineExperts}: with r = rows[t, s], `dY[r] = weights[t, s] dOut[t]`, rounded once, and
 * `dWeights[t, s] = dOut[t] . y[r]` in fp32.
 *
 * @param dOut [tokens, H] in the dtype of y
 * @returns dY like y, and dWeights fp32 [tokens, k]
 */
export function combineExpertsBackward(
  dOut: Tensor,
  y: Tensor,
  weights: Tensor,
  rows: Tensor,
): { readonly dY: Tensor; readonly dWeights: Tensor } {
  const values = [dOut.handle, y.handle, weights.handle, rows.handle];
  const [dY, dWeights] = callFallible('combineExpertsBackward', values);
  return { dY: dY!, dWeights: dWeights! };
}
