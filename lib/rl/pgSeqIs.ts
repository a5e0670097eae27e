import { invalid } from '../errors.js';
import { type AggregationOptions, resolveAggregation, tokenWeight } from './aggregation.js';
import { checkBatch, countedTokens, type PolicyBatch, type PolicyLoss } from './batch.js';

export interface PgSeqIsOptions extends AggregationOptions {
  /**
   * Holds the sequence's log ratio within [-logClamp, logClamp] before it becomes a weight. Default Infinity:
   * the authors' code has no clamp. verl clamps at 20.
   */
  logClamp?: number;
}

/** Checks the options of {@link pgSeqIsLoss} and fills in the defaults. */
export function resolvePgSeqIs(where: string, options: PgSeqIsOptions): Required<PgSeqIsOptions> {
  const { logClamp = Infinity } = options;
  if (typeof logClamp !== 'number' || !(logClamp > 0)) invalid(where, 'logClamp to be above 0', logClamp);
  return { ...resolveAggregation(where, options, 'seq-mean-token-sum-norm'), logClamp };
}

/**
 * PG-Seq-IS: REINFORCE with one importance weight per sequence, from the policy that sampled (mu) to the
 * policy that learns (pi), unbiased and unbounded (arXiv 2510.26788, eq. 5).
 *
 *     W      = exp(sum_t m_t (log pi_t - log mu_t))       detached
 *     loss   = sum_s norm_s sum_t -W_s A_s m_t log pi_t
 *     d loss / d log pi_t = -W_s A_s m_t norm_s
 *
 * `norm_s` is {@link tokenWeight}; the default aggregation is 'seq-mean-token-sum-norm', as in the authors'
 * scripts. pi_old is not used. A weight beyond fp64 is Infinity and so are its gradients, unless the
 * advantage is 0.
 *
 * Metrics, over the sequences with a counted token: `weightMean`, `weightMax`, `ess` (effective sample size
 * as a share, see {@link effectiveSampleSize}), `seqLogRatioMean` (mean of the unclamped log W, in nats).
 *
 * @throws InvalidArgumentError on a malformed batch or option
 */
export function pgSeqIsLoss(batch: PolicyBatch, options: PgSeqIsOptions = {}): PolicyLoss {
  const where = 'pgSeqIsLoss';
  const resolved = resolvePgSeqIs(where, options);
  checkBatch(where, batch, false);
  const { offsets, rolloutLogprobs, logprobs, mask, advantages, totals } = batch;
  const counts = countedTokens(offsets, mask);
  const gradient = new Float64Array(mask.length);
  const logWeights: number[] = [];
  let loss = 0;
  let logRatioSum = 0;
  let weightSum = 0;
  let weightMax = 0;

  for (let s = 0; s < counts.length; s++) {
    if (counts[s] === 0) continue;
    let logRatio = 0;
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (mask[t] === 1) logRatio += logprobs[t]! - rolloutLogprobs[t]!;
    }
    const logWeight = Math.min(Math.max(logRatio, -resolved.logClamp), resolved.logClamp);
    const weight = Math.exp(logWeight);
    logWeights.push(logWeight);
    logRatioSum += logRatio;
    weightSum += weight;
    weightMax = Math.max(weightMax, weight);

    const advantage = advantages[s]!;
    // Nothing to learn, and an infinite weight times 0 would be NaN.
    if (advantage === 0) continue;
    const coefficient = -weight * advantage * tokenWeight(resolved, counts[s]!, totals);
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (mask[t] === 0) continue;
      gradient[t] = coefficient;
      // A certain token (log pi = 0) adds nothing, whatever its weight.
      if (logprobs[t] !== 0) loss += coefficient * logprobs[t]!;
    }
  }

  const sequences = logWeights.length;
  if (sequences === 0) return { loss, gradient, metrics: {} };
  const metrics = {
    weightMean: weightSum / sequences,
    weightMax,
    ess: effectiveSampleSize(logWeights),
    seqLogRatioMean: logRatioSum / sequences,
  };
  return { loss, gradient, metrics };
}

/**
 * Effective sample size of importance weights w as a share of their number, 1 / mean((w / mean w)^2): 1 when
 * all weights are equal, 1 / n when one has everything. Taken from log w, so weights beyond fp64 still count;
 * NaN for none.
 */
export function effectiveSampleSize(logWeights: ArrayLike<number>): number {
  const n = logWeights.length;
  let top = -Infinity;
  for (let i = 0; i < n; i++) top = Math.max(top, logWeights[i]!);
  let sum = 0;
  let squares = 0;
  for (let i = 0; i < n; i++) {
    const weight = Math.exp(logWeights[i]! - top);
    sum += weight;
    squares += weight * weight;
  }
  return ((sum / n) * sum) / squares;
}
