import { type AggregationOptions, resolveAggregation } from '../aggregation.js';
import { checkBatch, type PolicyBatch, type PolicyLoss } from '../batch.js';
import { sumTokenLosses } from './tokenLosses.js';

/**
 * REINFORCE (Williams 1992): the policy gradient itself.
 *
 *     loss   = sum_s norm_s sum_t w_t (-A_s log pi_t)
 *     d loss / d log pi_t = -w_t A_s norm_s
 *
 * With weights from the rollout policy to the one that learns it is the PG-* family of arXiv 2510.26788: PG-Seq-IS
 * (eq. 5) with w = pi(y) / mu(y) of the whole response, PG-Seq-TIS (eq. 7) with min(w, C), PG-Seq-MIS with w 1[w <= C].
 * The weights are held fixed. Neither mu nor pi_old is read here.
 *
 * The default aggregation is 'seq-mean-token-sum-norm', as in the authors' scripts.
 *
 * @throws InvalidArgumentError on a malformed batch or option
 */
export function reinforceLoss(batch: PolicyBatch, options: AggregationOptions = {}): PolicyLoss {
  const where = 'reinforceLoss';
  const aggregation = resolveAggregation(where, options, 'seq-mean-token-sum-norm');
  checkBatch(where, batch, false);
  const { logprobs } = batch;
  return sumTokenLosses(batch, aggregation, (t, advantage, out) => {
    out.slope = -advantage;
    out.loss = out.slope;
    out.value = logprobs[t]!;
  });
}
