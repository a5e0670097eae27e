import { checkNumber, invalid } from '../../errors.js';
import { type AggregationOptions, resolveAggregation } from '../aggregation.js';
import { checkBatch, type PolicyBatch, type PolicyLoss } from '../batch.js';
import { driftMetrics } from './drift.js';
import { sumTokenLosses } from './tokenLosses.js';

export interface ClipOptions {
  /** Ratios below 1 - clipLow stop pushing a bad sequence down. Default 0.2, the authors' script value. */
  clipLow?: number;
  /**
   * Ratios above 1 + clipHigh stop pushing a good one up. Default 0.2 (authors' code); their text has 0.28.
   */
  clipHigh?: number;
}

export interface PpoClipOptions extends AggregationOptions, ClipOptions {
  /**
   * Dual clip (arXiv 1912.09729): with A < 0 the loss is at most -A dualClip, so a ratio above it stops teaching. Above
   * 1; default null, none. verl has 3, the paper's dense 14B run 10.
   */
  dualClip?: number | null;
}

/** Checks clip bounds and fills in the defaults. */
export function resolveClip(where: string, options: ClipOptions): Required<ClipOptions> {
  const { clipLow = 0.2, clipHigh = 0.2 } = options;
  checkNumber(where, 'clipLow', clipLow, 0, 1);
  checkNumber(where, 'clipHigh', clipHigh, 0);
  return { clipLow, clipHigh };
}

/** Checks the options of {@link ppoClipLoss} and fills in the defaults. */
export function resolvePpoClip(where: string, options: PpoClipOptions): Required<PpoClipOptions> {
  const { dualClip = null } = options;
  if (dualClip !== null && !(checkNumber(where, 'dualClip', dualClip) > 1)) {
    invalid(where, 'dualClip above 1', dualClip);
  }
  return {
    ...resolveAggregation(where, options, 'seq-mean-token-sum-norm'),
    ...resolveClip(where, options),
    dualClip,
  };
}

/**
 * PPO's clipped objective with the sequence's advantage at every token, which is GRPO's loss. It corrects for the drift
 * since pi_old and takes mu for pi_old (arXiv 2510.26788; PPO is arXiv 1707.06347, GRPO 2402.03300, Dr.GRPO 2503.20783).
 *
 *     r_t    = exp(log pi_t - log pi_old_t)
 *     loss_t = max(-A r_t, -A clip(r_t, 1 - clipLow, 1 + clipHigh)),  where A < 0 at most -A dualClip
 *     d loss_t / d log pi_t = -A r_t where not clipped, 0 where clipped
 *
 * A token is clipped where the clipped loss is the larger: A > 0 and r > 1 + clipHigh, or A < 0 and r < 1 - clipLow; and
 * with a dual clip where A < 0 and r > dualClip. Dr.GRPO is the default aggregation, 'seq-mean-token-sum-norm', on
 * advantages without std; GRPO is 'seq-mean-token-mean' on advantages with it.
 *
 * Metrics, over the counted tokens: `clipFraction`, `ratioMean`, `approxKl` (mean of r - 1 - log r, the k3
 * estimate of KL[pi_old || pi] in nats per token).
 *
 * @throws InvalidArgumentError on a malformed batch or option, or without `oldLogprobs`
 */
export function ppoClipLoss(batch: PolicyBatch, options: PpoClipOptions = {}): PolicyLoss {
  const where = 'ppoClipLoss';
  const { clipLow, clipHigh, dualClip, ...aggregation } = resolvePpoClip(where, options);
  checkBatch(where, batch, true);
  const { logprobs } = batch;
  const oldLogprobs = batch.oldLogprobs!;
  const low = 1 - clipLow;
  const high = 1 + clipHigh;
  const ceiling = dualClip ?? Infinity;
  let clipped = 0;
  const { loss, gradient } = sumTokenLosses(batch, aggregation, (t, advantage, out) => {
    const ratio = Math.exp(logprobs[t]! - oldLogprobs[t]!);
    const bound = advantage > 0 ? Math.min(ratio, high) : Math.min(Math.max(ratio, low), ceiling);
    out.loss = -advantage * bound;
    out.slope = bound === ratio ? -advantage * ratio : 0;
    if (bound !== ratio) clipped++;
  });
  return { loss, gradient, metrics: driftMetrics(batch, clipped) };
}
