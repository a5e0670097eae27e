import { checkInteger, invalid } from '../errors.js';

/** How evenly a router spreads its tokens. */
export interface LoadBalance {
  /** f_e: the tokens that went to expert e, as a share of all; they sum to k. */
  readonly fractions: Float64Array;
  /** P_e: the mean softmax probability of expert e; they sum to 1. */
  readonly meanProbabilities: Float64Array;
  /** E sum over e of f_e P_e: k where every expert has the same share, up to E where one has all. */
  readonly auxiliaryLoss: number;
}

/**
 * The load-balancing statistics of one layer's router, and the auxiliary loss of the Switch Transformer (Fedus et al.
 * 2021, arXiv 2101.03961, equations 4 to 6) with f_e counted over all k slots, as Hugging Face's Mixtral and Qwen3-MoE
 * report it.
 *
 * @param counts how often each of E experts was chosen, as `routerLoad` counts
 * @param probabilities the sum of each expert's probability over the tokens
 * @param tokens how many tokens that were, at least 1
 * @throws InvalidArgumentError where the lengths differ or there are no experts or tokens
 */
export function loadBalance(
  counts: ArrayLike<number>,
  probabilities: ArrayLike<number>,
  tokens: number,
): LoadBalance {
  const experts = counts.length;
  if (experts === 0) invalid('loadBalance', 'counts of at least 1 expert', 0);
  if (probabilities.length !== experts)
    invalid('loadBalance', `probabilities of ${experts} experts, as counts`, probabilities.length);
  checkInteger('loadBalance', 'tokens', tokens, 1);
  const fractions = Float64Array.from(counts, (count) => count / tokens);
  const meanProbabilities = Float64Array.from(probabilities, (sum) => sum / tokens);
  return {
    fractions,
    meanProbabilities,
    auxiliaryLoss: experts * fractions.reduce((sum, f, e) => sum + f * meanProbabilities[e]!, 0),
  };
}
