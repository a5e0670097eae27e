import { callFallible, type Tensor } from '../tensor/tensor.js';

/**
 * The rows of an embedding table: `out[i] = weight[ids[i]]`.
 *
 * @param weight [V, H], fp32, fp16 or bf16.
 * @param ids int32 [N], each from 0 to V - 1.
 * @returns [N, H] in weight's dtype.
 * @throws {InvalidArgumentError} for wrong shapes or types; a {@link DeviceError} from the next read for an id
 * outside the vocabulary.
 */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  return callFallible('embedding', [weight.handle, ids.handle])[0]!;
}

/**
 * The gradient of {@link embedding}: `grad[ids[i]] += dOut[i]`, in the order of i, in fp32.
 *
 * @param dOut [N, H], any float type.
 * @param ids int32 [N], as given to the forward pass.
 * @param grad fp32 [V, H], added to in place.
 */
export function embeddingBackward(dOut: Tensor, ids: Tensor, grad: Tensor): void {
  callFallible('embeddingBackward', [dOut.handle, ids.handle, grad.handle]);
}

/**
 * Chosen rows of an activation: `out[i] = x[index[i]]`.
 *
 * @param x [R, H], any float type.
 * @param index int32 [N], each from 0 to R - 1; a row may be chosen more than once, or not at all.
 * @returns [N, H] in x's dtype.
 * @throws {InvalidArgumentError} for wrong shapes or types; a {@link DeviceError} from the next read for an index
 * outside the rows.
 */
export function gatherRows(x: Tensor, index: Tensor): Tensor {
  return callFallible('gatherRows', [x.handle, index.handle])[0]!;
}

/**
 * The gradient of {@link gatherRows}: `out[r]` is the sum of `dOut[i]` over all i with `index[i] = r`, added in
 * the order of i in fp32 and rounded once; zeros for rows that were not chosen.
 *
 * @param dOut [M, H], any float type.
 * @param index int32 [M].
 * @param rows number of rows of the result.
 * @returns [rows, H] in dOut's dtype.
 */
export function scatterRows(dOut: Tensor, index: Tensor, rows: number): Tensor {
  return callFallible('scatterRows', [dOut.handle, index.handle, rows])[0]!;
}
