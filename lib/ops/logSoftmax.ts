import { familyNumber, type KernelFamily } from '../numerics.js';
import { dtypeNumber, type FloatDType } from '../tensor/dtype.js';
import { call, callFallible, callOne, type Tensor } from '../tensor/tensor.js';

/** What log-probs are computed with. Equal choices give equal bits, whichever family computes. */
export interface LogSoftmaxOptions {
  /** Divides the logits, in fp32; above 0. Default 1. */
  readonly temperature?: number;
  /** Vocabulary entries a step of the log-sum-exp; 0 (the default): the whole row at once. */
  readonly chunk?: number;
  /** `rollout` (the default) finds every maximum before it sums, `training` goes over the steps once. */
  readonly family?: KernelFamily;
}

/** Log-probs of chosen tokens, with the normaliser and the entropy of each row; all fp32 [N]. */
export interface TokenLogprobs {
  readonly logprobs: Tensor;
  /** log sum exp of the logits divided by the temperature. */
  readonly lse: Tensor;
  /** -sum p log p in nats. */
  readonly entropy: Tensor;
}

/**
 * Log-probs of every token: logprobs_j = x_j - lse, x = logits / temperature, lse = log sum_k exp(x_k), in fp32.
 *
 * A row is cut into steps of `chunk` entries; a running maximum is kept, and the sum so far is rescaled where a
 * step raises it. A logit of -infinity is a probability of 0; NaN, +infinity, or nothing but -infinity make the
 * row NaN. No result is above 0.
 *
 * @param logits [N, V], any float dtype
 * @returns fp32 [N, V]
 * @throws InvalidArgumentError where a shape, a dtype or an option does not fit
 */
export function logSoftmax(logits: Tensor, options: LogSoftmaxOptions = {}): Tensor {
  const { temperature = 1, chunk = 0, family = 'rollout' } = options;
  const number = familyNumber('logSoftmax', 'family', family);
  return callOne('logSoftmax', [logits.handle, number, temperature, chunk]);
}

/**
 * As {@link logSoftmax}, of which one entry a row is kept (the same bits): what a log-prob of a token means in the
 * rollout and in the training engine (arXiv 2510.26788: mu and pi).
 *
 * @param logits [N, V], any float dtype
 * @param ids int32 [N], from 0 to V - 1
 * @throws InvalidArgumentError where a shape, a dtype or an option does not fit
 * @throws DeviceError at the next read, where an id is outside the vocabulary; it names the row, the id and V
 */
export function chosenLogprobs(logits: Tensor, ids: Tensor, options: LogSoftmaxOptions = {}): TokenLogprobs {
  const { temperature = 1, chunk = 0, family = 'rollout' } = options;
  const number = familyNumber('chosenLogprobs', 'family', family);
  const outputs = callFallible('chosenLogprobs', [logits.handle, ids.handle, number, temperature, chunk]);
  const [logprobs, lse, entropy] = outputs;
  return { logprobs: logprobs!, lse: lse!, entropy: entropy! };
}

/**
 * The gradient of {@link logSoftmax}: dLogits_j = (dOut_j - exp(logprobs_j) sum_k dOut_k) / temperature, in fp32,
 * rounded once.
 *
 * @param dOut fp32 [N, V]
 * @param logprobs fp32 [N, V], the output of the forward pass
 * @param options.temperature that of the forward pass
 * @param options.dtype of the result; default fp32
 * @returns [N, V] of `dtype`
 */
export function logSoftmaxBackward(
  dOut: Tensor,
  logprobs: Tensor,
  options: { readonly temperature?: number; readonly dtype?: FloatDType } = {},
): Tensor {
  const { temperature = 1, dtype = 'fp32' } = options;
  const [dLogits] = call('logSoftmaxBackward', [
    dOut.handle,
    logprobs.handle,
    temperature,
    dtypeNumber(dtype),
  ]);
  return dLogits!;
}
