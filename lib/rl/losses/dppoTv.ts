import { checkNumber } from '../../errors.js';
import { type AggregationOptions, resolveAggregation } from '../aggregation.js';
import { checkBatch, type PolicyBatch, type PolicyLoss } from '../batch.js';
import { driftMetrics } from './drift.js';
import { sumTokenLosses } from './tokenLosses.js';

export interface DppoTvOptions extends AggregationOptions {
  /** A bad token whose probability has fallen by more than this stops teaching. Default 0.2, as in prime-rl. */
  deltaLow?: number;
  /** A good token whose probability has risen by more than this stops teaching. Default 0.2, as in prime-rl. */
  deltaHigh?: number;
  /** The greatest weight; default 20, as in verl. */
  maxRatio?: number;
}

/** Checks the options of {@link dppoTvLoss} and fills in the defaults. */
export function resolveDppoTv(where: string, options: DppoTvOptions): Required<DppoTvOptions> {
  const { deltaLow = 0.2, deltaHigh = 0.2, maxRatio = 20 } = options;
  checkNumber(where, 'deltaLow', deltaLow, 0, 1);
  checkNumber(where, 'deltaHigh', deltaHigh, 0, 1);
  checkNumber(where, 'maxRatio', maxRatio, 1);
  return { ...resolveAggregation(where, options, 'token-mean'), deltaLow, deltaHigh, maxRatio };
}

/**
 * DPPO-TV (arXiv 2602.04879): a token stops teaching where its *probability* has moved far, not its ratio, which jumps
 * about for rare tokens.
 *
 *     r_t    = exp(log pi_t - log pi_old_t)
 *     loss_t = -sg(min(r_t, maxRatio)) A log pi_t,  0 where A > 0 and pi_t - pi_old_t > deltaHigh,
 *                                                     or A < 0 and pi_t - pi_old_t < -deltaLow
 *
 * The default aggregation is 'token-mean'. Metrics as {@link ppoClipLoss}; `clipFraction` is the share that stopped.
 *
 * @throws InvalidArgumentError on a malformed batch or option, or without `oldLogprobs`
 */
export function dppoTvLoss(batch: PolicyBatch, options: DppoTvOptions = {}): PolicyLoss {
  const where = 'dppoTvLoss';
  const { deltaLow, deltaHigh, maxRatio, ...aggregation } = resolveDppoTv(where, options);
  checkBatch(where, batch, true);
  const { logprobs } = batch;
  const oldLogprobs = batch.oldLogprobs!;
  let stopped = 0;
  const { loss, gradient } = sumTokenLosses(batch, aggregation, (t, advantage, out) => {
    const moved = Math.exp(logprobs[t]!) - Math.exp(oldLogprobs[t]!);
    if (advantage > 0 ? moved > deltaHigh : moved < -deltaLow) {
      stopped++;
      out.loss = 0;
      out.slope = 0;
      return;
    }
    out.slope = -advantage * Math.min(Math.exp(logprobs[t]! - oldLogprobs[t]!), maxRatio);
    out.loss = out.slope;
    out.value = logprobs[t]!;
  });
  return { loss, gradient, metrics: driftMetrics(batch, stopped) };
}
