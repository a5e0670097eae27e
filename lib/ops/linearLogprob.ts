import { familyNumber, type KernelFamily } from '../numerics.js';
import { callFallible, handleOf, type Tensor } from '../tensor/tensor.js';
import type { TokenLogprobs } from './logSoftmax.js';

/** How the logits come about; forward and backward pass must agree on it. */
export interface LinearLogitsOptions {
  /** Divides the logits, in fp32; above 0. Default 1. */
  readonly temperature?: number;
  /** Whether logits are rounded to the dtype of `hidden`; by default they stay fp32. */
  readonly logits16?: boolean;
  /** Kernel family of the product that makes the logits; default training. */
  readonly gemmFamily?: KernelFamily;
  /** Length of H that is summed before partial sums are added in order; 0 (the default): no split. */
  readonly gemmSplitK?: number;
}

export interface LinearLogprobOptions extends LinearLogitsOptions {
  /** Vocabulary entries a step of the log-sum-exp; 0: the whole row at once. Default 4096. */
  readonly chunk?: number;
}

function logitsArguments(where: string, options: LinearLogitsOptions): number[] {
  const { temperature = 1, logits16 = false, gemmFamily = 'training', gemmSplitK = 0 } = options;
  return [temperature, logits16 ? 1 : 0, familyNumber(where, 'gemmFamily', gemmFamily), gemmSplitK];
}

/**
 * Log-probs of target tokens under softmax(hidden weight^T / temperature), with log-sum-exp and entropy, without
 * the logits ever being whole in memory: scratch is at most about 4 MB, whatever N and V.
 *
 * The bits are those of the product followed by `chosenLogprobs` with the same choices. A chunk of 0, or above
 * 16,384, on a vocabulary larger than that costs the product twice.
 *
 * @param hidden [N, H], any float dtype
 * @param weight [V, H] in the dtype of `hidden`
 * @param targets int32 [N], from 0 to V - 1
 * @throws InvalidArgumentError where a shape, a dtype or an option does not fit
 * @throws DeviceError at the next read, where a target is outside the vocabulary; it names the row, the id and V
 */
export function linearLogprob(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: LinearLogprobOptions = {},
): TokenLogprobs {
  const { chunk = 4096 } = options;
  const outputs = callFallible('linearLogprob', [
    hidden.handle,
    weight.handle,
    targets.handle,
    chunk,
    ...logitsArguments('linearLogprob', options),
  ]);
  const [logprobs, lse, entropy] = outputs;
  return { logprobs: logprobs!, lse: lse!, entropy: entropy! };
}

/**
 * The gradients of the log-probs of {@link linearLogprob}, whose logits are computed again:
 *
 *     dLogits_ij = dLogprobs_i (1[j = targets_i] - exp(x_ij - lse_i)) / temperature, rounded to the dtype of hidden
 *     dHidden = dLogits weight, summed in fp32, rounded once
 *     gradWeight += dLogits^T hidden, in fp32
 *
 * In fp16 dLogits can overflow to infinity and underflow to 0: that is what loss scaling is for. A row whose
 * dLogprobs is 0 takes no part in any product: it adds exactly nothing, even where its hidden state is NaN.
 *
 * @param dLogprobs fp32 [N]
 * @param lse fp32 [N], of the forward pass
 * @param gradWeight fp32 [V, H], accumulated in place; null where the weight is frozen
 * @param options those of the forward pass
 * @returns dHidden [N, H] in the dtype of hidden
 * @throws InvalidArgumentError where a shape, a dtype or an option does not fit
 * @throws DeviceError at the next read, where a target is outside the vocabulary
 */
export function linearLogprobBackward(
  dLogprobs: Tensor,
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  lse: Tensor,
  gradWeight: Tensor | null,
  options: LinearLogitsOptions = {},
): Tensor {
  const [dHidden] = callFallible('linearLogprobBackward', [
    dLogprobs.handle,
    hidden.handle,
    weight.handle,
    targets.handle,
    lse.handle,
    handleOf(gradWeight),
    ...logitsArguments('linearLogprobBackward', options),
  ]);
  return dHidden!;
}
