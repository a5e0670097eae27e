import { checkNumber } from '../errors.js';
import { type AggregationOptions, resolveAggregation, tokenWeight } from './aggregation.js';
import { checkBatch, countedTokens, type PolicyBatch, type PolicyLoss } from './batch.js';

export interface GrpoOptions extends AggregationOptions {
  /** Ratios below 1 - clipLow stop pushing a bad sequence down. Default 0.2, the authors' script value. */
  clipLow?: number;
  /**
   * Ratios above 1 + clipHigh stop pushing a good one up. Default 0.2 (authors' code); their text has 0.28.
   */
  clipHigh?: number;
}

/** Checks the options of {@link grpoLoss} and fills in the defaults. */
export function resolveGrpo(where: string, options: GrpoOptions): Required<GrpoOptions> {
  const { clipLow = 0.2, clipHigh = 0.2 } = options;
  checkNumber(where, 'clipLow', clipLow, 0, 1);
  checkNumber(where, 'clipHigh', clipHigh, 0);
  return { ...resolveAggregation(where, options, 'seq-mean-token-sum-norm'), clipLow, clipHigh };
}

/**
 * GRPO: PPO's clipped objective with the sequence's advantage at every token. It corrects for the drift since
 * pi_old and takes mu for pi_old (arXiv 2510.26788; GRPO itself is arXiv 2402.03300, Dr.GRPO
 * 2503.20783).
 *
 *     r_t    = exp(log pi_t - log pi_old_t)
 *     loss   = sum_s norm_s sum_t m_t max(-A_s r_t, -A_s clip(r_t, 1 - clipLow, 1 + clipHigh))
 *     d loss / d log pi_t = -A_s r_t m_t norm_s where not clipped, 0 where clipped
 *
 * A token is clipped where the clipped loss is the larger: A > 0 and r > 1 + clipHigh, or A < 0 and r < 1 -
 * clipLow. `norm_s` is {@link tokenWeight}. Dr.GRPO is the default aggregation, 'seq-mean-token-sum-norm', on
 * advantages without std; GRPO is 'seq-mean-token-mean' on advantages with it.
 *
 * Metrics, over the counted tokens: `clipFraction`, `ratioMean`, `approxKl` (mean of r - 1 - log r, the k3
 * estimate of KL[pi_old || pi] in nats per token).
 *
 * @throws InvalidArgumentError on a malformed batch or option, or without `oldLogprobs`
 */
export function grpoLoss(batch: PolicyBatch, options: GrpoOptions = {}): PolicyLoss {
  const where = 'grpoLoss';
  const resolved = resolveGrpo(where, options);
  checkBatch(where, batch, true);
  const { offsets, logprobs, mask, advantages, totals } = batch;
  const oldLogprobs = batch.oldLogprobs!;
  const low = 1 - resolved.clipLow;
  const high = 1 + resolved.clipHigh;
  const counts = countedTokens(offsets, mask);
  const gradient = new Float64Array(mask.length);
  let tokens = 0;
  let loss = 0;
  let clipped = 0;
  let ratioSum = 0;
  let klSum = 0;

  for (let s = 0; s < counts.length; s++) {
    const advantage = advantages[s]!;
    const weight = tokenWeight(resolved, counts[s]!, totals);
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (mask[t] === 0) continue;
      const logRatio = logprobs[t]! - oldLogprobs[t]!;
      const ratio = Math.exp(logRatio);
      tokens++;
      ratioSum += ratio;
      klSum += k3(-logRatio);
      // Nothing to learn, and an infinite ratio times 0 would be NaN.
      if (advantage === 0) continue;
      if (advantage > 0 ? ratio > high : ratio < low) {
        clipped++;
        loss += -advantage * (advantage > 0 ? high : low) * weight;
      } else {
        gradient[t] = -advantage * ratio * weight;
        loss += gradient[t]!;
      }
    }
  }

  if (tokens === 0) return { loss, gradient, metrics: {} };
  const metrics = { clipFraction: clipped / tokens, ratioMean: ratioSum / tokens, approxKl: klSum / tokens };
  return { loss, gradient, metrics };
}

/**
 * exp(-d) - 1 + d for d = log p - log q of a token sampled from p: the k3 estimate of KL[p || q], never
 * negative.
 *
 * Near 0 even expm1(-d) + d cancels (it keeps 1e-16 / d of relative precision), and the engines' differences
 * live there; so small d take the series d^2/2! - d^3/3! + ... - d^9/9!, exact to the last bits below 0.03.
 */
export function k3(d: number): number {
  if (Math.abs(d) > 0.03) return Math.expm1(-d) + d;
  let sum = 1;
  for (let k = 9; k > 2; k--) sum = 1 - (d / k) * sum;
  return (d * d * sum) / 2;
}
