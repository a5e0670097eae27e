import { type AggregationOptions, tokenWeight } from '../aggregation.js';
import { countedTokens, type PolicyBatch, type PolicyLoss } from '../batch.js';

/** The loss of one token before weights and norm is `loss` times `value`, its derivative by log pi `slope`. */
export interface Term {
  loss: number;
  /** Multiplied last, after weights and norm; 1 unless set. A loss of 0, or a value of 0, adds nothing. */
  value: number;
  slope: number;
}

/**
 * Sums the losses of tokens, the one loop of every loss:
 *
 *     loss               = sum_t norm_s w_t loss_t value_t
 *     d loss / d log pi_t = norm_s w_t slope_t
 *
 * `norm_s` is {@link tokenWeight}, w_t the batch's weight of the token (1 without), held fixed; a token that a
 * correction has rejected has w_t = 0 whatever its loss. Tokens whose advantage is 0 have nothing to teach, and an
 * infinite ratio times 0 would be NaN: `term` is not called for them.
 */
export function sumTokenLosses(
  batch: PolicyBatch,
  aggregation: Required<AggregationOptions>,
  term: (token: number, advantage: number, out: Term) => void,
): PolicyLoss {
  const { offsets, mask, kept = mask, weights, advantages, totals } = batch;
  const counts = countedTokens(offsets, mask);
  const gradient = new Float64Array(mask.length);
  const out: Term = { loss: 0, value: 1, slope: 0 };
  let loss = 0;
  for (let s = 0; s < counts.length; s++) {
    const advantage = advantages[s]!;
    if (advantage === 0) continue;
    const norm = tokenWeight(aggregation, counts[s]!, totals);
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (kept[t] === 0) continue;
      const weight = weights === undefined ? 1 : weights[t]!;
      if (weight === 0) continue;
      term(t, advantage, out);
      if (out.slope !== 0) gradient[t] = out.slope * weight * norm;
      if (out.loss !== 0 && out.value !== 0) loss += out.loss * weight * norm * out.value;
    }
  }
  return { loss, gradient, metrics: {} };
}
