import { checkInteger } from '../errors.js';
import { callFallible, type Tensor } from '../tensor/tensor.js';

export interface SampleOptions {
  /** An integer from 0 to 2^53 - 1. */
  readonly seed: number;
  /** Divides the logits, in fp32; 0 takes the most likely token. Default 1. */
  readonly temperature?: number;
  /** Tokens to choose from, the most likely ones (of equals the lower ids); 0 (the default): all. */
  readonly topK?: number;
  /** Mass of the smallest set of most likely tokens to choose from, after topK; above 0, at most 1 (the default): all. */
  readonly topP?: number;
  /** Vocabulary entries a step of the log-sum-exp; 0 (the default): the whole row at once. */
  readonly chunk?: number;
}

/**
 * Draws one token a row and reports its log-prob under the distribution that it was drawn from: after temperature,
 * topK and topP, renormalised. Without topK and topP that is `chosenLogprobs`, to the bit.
 *
 * The draw inverts the cumulative distribution, in the order of token ids, at a uniform number from Philox with
 * key (seed) and counter (prompt, sample, position, 0): it depends on the key and on its row alone, not on the
 * batch. A token of probability 0 is never drawn.
 *
 * At temperature 0 the most likely token is taken (of equals the lowest id), topK and topP have no effect, and the
 * log-prob is that of the token at temperature 1: that of the distribution which greedy decoding collapses, and
 * which a trainer can compare with.
 *
 * @param logits [N, V], any float dtype; -infinity is a probability of 0
 * @param keys int32 [N, 4]: prompt, sample, position, slot; a slot below 0 marks an unused row, whose id and
 *   log-prob are 0
 * @returns ids int32 [N] and logprobs fp32 [N]
 * @throws InvalidArgumentError where a shape, a dtype or an option does not fit
 * @throws DeviceError at the next read, where a used row holds NaN, infinity or nothing finite; it names the row
 */
export function sample(
  logits: Tensor,
  keys: Tensor,
  options: SampleOptions,
): { readonly ids: Tensor; readonly logprobs: Tensor } {
  const { temperature = 1, topK = 0, topP = 1, chunk = 0 } = options;
  const seed = checkInteger('sample', 'seed', options.seed, 0, Number.MAX_SAFE_INTEGER);
  const [ids, logprobs] = callFallible('sample', [
    logits.handle,
    keys.handle,
    seed % 2 ** 32,
    Math.floor(seed / 2 ** 32),
    temperature,
    topK,
    topP,
    chunk,
  ]);
  return { ids: ids!, logprobs: logprobs! };
}
