import { checkNumber } from '../../errors.js';
import { type AggregationOptions, resolveAggregation } from '../aggregation.js';
import { checkBatch, type PolicyBatch, type PolicyLoss } from '../batch.js';
import { driftMetrics } from './drift.js';
import { sumTokenLosses } from './tokenLosses.js';

export interface CispoOptions extends AggregationOptions {
  /** Ratios below 1 - clipLow count as that. Default 1, no lower bound (verl's example has 10, which is none either). */
  clipLow?: number;
  /** Ratios above 1 + clipHigh count as that. Default 0.2, verl's example. */
  clipHigh?: number;
}

/** Checks the options of {@link cispoLoss} and fills in the defaults. */
export function resolveCispo(where: string, options: CispoOptions): Required<CispoOptions> {
  const { clipLow = 1, clipHigh = 0.2 } = options;
  checkNumber(where, 'clipLow', clipLow, 0);
  checkNumber(where, 'clipHigh', clipHigh, 0);
  return { ...resolveAggregation(where, options, 'token-mean'), clipLow, clipHigh };
}

/**
 * CISPO (MiniMax-M1, arXiv 2506.13585): the clipped ratio is only a weight, so no token loses its gradient.
 *
 *     r_t    = exp(log pi_t - log pi_old_t)
 *     loss_t = -sg(clip(r_t, 1 - clipLow, 1 + clipHigh)) A log pi_t
 *     d loss_t / d log pi_t = -clip(r_t, ..) A
 *
 * The default aggregation is 'token-mean'. Metrics as {@link ppoClipLoss}.
 *
 * @throws InvalidArgumentError on a malformed batch or option, or without `oldLogprobs`
 */
export function cispoLoss(batch: PolicyBatch, options: CispoOptions = {}): PolicyLoss {
  const where = 'cispoLoss';
  const { clipLow, clipHigh, ...aggregation } = resolveCispo(where, options);
  checkBatch(where, batch, true);
  const { logprobs } = batch;
  const oldLogprobs = batch.oldLogprobs!;
  let clipped = 0;
  const { loss, gradient } = sumTokenLosses(batch, aggregation, (t, advantage, out) => {
    const ratio = Math.exp(logprobs[t]! - oldLogprobs[t]!);
    const weight = Math.min(Math.max(ratio, 1 - clipLow), 1 + clipHigh);
    if (weight !== ratio) clipped++;
    out.slope = -advantage * weight;
    out.loss = out.slope;
    out.value = logprobs[t]!;
  });
  return { loss, gradient, metrics: driftMetrics(batch, clipped) };
}
