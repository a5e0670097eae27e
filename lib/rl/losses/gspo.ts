import { type AggregationOptions, resolveAggregation } from '../aggregation.js';
import { checkBatch, countedTokens, type PolicyBatch, type PolicyLoss } from '../batch.js';
import { eachLogRatio } from '../ratios.js';
import { driftMetrics } from './drift.js';
import { type ClipOptions, resolveClip } from './ppoClip.js';
import { sumTokenLosses } from './tokenLosses.js';

export type GspoOptions = AggregationOptions & ClipOptions;

/** Checks the options of {@link gspoLoss} and fills in the defaults. */
export function resolveGspo(where: string, options: GspoOptions): Required<GspoOptions> {
  return {
    ...resolveAggregation(where, options, 'seq-mean-token-mean'),
    ...resolveClip(where, { clipLow: 3e-4, clipHigh: 4e-4, ...options }),
  };
}

/**
 * GSPO (arXiv 2507.18071): one ratio a sequence, the geometric mean of its tokens', clipped as a whole.
 *
 *     s      = exp(mean_t m_t (log pi_t - log pi_old_t))
 *     r_t    = sg(s) pi_t / sg(pi_t)                              its value is s at every token
 *     loss_t = max(-A r_t, -A clip(r_t, 1 - clipLow, 1 + clipHigh))
 *     d loss_t / d log pi_t = -A s where not clipped, 0 where clipped
 *
 * Defaults are GSPO's own, which the authors' scripts have fixed: clipLow 3e-4, clipHigh 4e-4, aggregation
 * 'seq-mean-token-mean'. The log of s is at most 10, as in verl. mu is not read.
 *
 * Metrics as {@link ppoClipLoss}; `clipFraction` is of tokens.
 *
 * @throws InvalidArgumentError on a malformed batch or option, or without `oldLogprobs`
 */
export function gspoLoss(batch: PolicyBatch, options: GspoOptions = {}): PolicyLoss {
  const where = 'gspoLoss';
  const { clipLow, clipHigh, ...aggregation } = resolveGspo(where, options);
  checkBatch(where, batch, true);
  const { offsets, mask, logprobs } = batch;
  const counts = countedTokens(offsets, mask);
  const sums = new Float64Array(counts.length);
  const sequenceOf = new Int32Array(mask.length);
  eachLogRatio(batch, logprobs, batch.oldLogprobs!, (logRatio, t, s) => {
    sums[s]! += logRatio;
    sequenceOf[t] = s;
  });
  const ratios = sums.map((sum, s) => Math.exp(Math.min(sum / counts[s]!, MAX_LOG_RATIO)));
  let clipped = 0;
  const { loss, gradient } = sumTokenLosses(batch, aggregation, (t, advantage, out) => {
    const ratio = ratios[sequenceOf[t]!]!;
    const bound = advantage > 0 ? Math.min(ratio, 1 + clipHigh) : Math.max(ratio, 1 - clipLow);
    out.loss = -advantage * bound;
    out.slope = bound === ratio ? -advantage * ratio : 0;
    if (bound !== ratio) clipped++;
  });
  return { loss, gradient, metrics: driftMetrics(batch, clipped) };
}

const MAX_LOG_RATIO = 10;
