import { countedTokens } from '../batch.js';
import { eachLogRatio } from '../ratios.js';
import { type ImportanceOptions, importanceWeights } from './importance.js';
import type { RatioBatch } from './ratioBatch.js';
import { type RejectionOptions, reject } from './rejection.js';
import { veto } from './veto.js';

/** What is done about mu not being the policy that is trained. */
export interface CorrectionOptions {
  readonly importance?: ImportanceOptions | null;
  /** All apply: a token stays that none rejects. */
  readonly rejections?: readonly RejectionOptions[];
  /** Ratio of a token below which its whole response is left out; default null, none. */
  readonly vetoBelow?: number | null;
  /** Log ratios are held within +-logClamp; default null, none, as in the authors' code. verl has 20. */
  readonly logClamp?: number | null;
}

export interface Correction {
  /** [tokens] what is left of the mask. */
  readonly kept: Uint8Array;
  /** [tokens] importance weights, 0 at masked positions; undefined without importance sampling. */
  readonly weights?: Float64Array;
  readonly metrics: Record<string, number>;
}

/** Below this share of the uncorrected signal that a correction leaves, a policy counts as frozen: it hardly moves. */
export const FROZEN_SHARE = 0.05;

/** Whether the options do anything. */
export function corrects({ importance, rejections = [], vetoBelow }: CorrectionOptions): boolean {
  return importance != null || rejections.length > 0 || vetoBelow != null;
}

/**
 * Importance weights, then rejection and veto, of a batch. Every weight and bound is of the raw ratio: rejection does
 * not see truncated weights, and weights are not taken over what rejection left.
 *
 * Metrics: those of {@link importanceWeights}; `seqLogRatioMean`, the mean over responses of the unclamped
 * sum_t (log to - log from), in nats; `rejectedShare` of tokens, `rejectedSequences` (of which nothing is left) and
 * `vetoedSequences` as shares of the responses, where there is such a rule; `keptShare` of tokens that still teach (kept, with a weight above 0).
 */
export function correct(batch: RatioBatch, options: CorrectionOptions): Correction {
  const { offsets, mask } = batch;
  const { importance, rejections = [], vetoBelow } = options;
  const logClamp = options.logClamp ?? Infinity;
  const kept = mask.slice();
  const metrics: Record<string, number> = {};
  const counts = countedTokens(offsets, mask);
  const sequences = counts.filter((count) => count > 0).length;
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  if (tokens === 0) return { kept, ...(importance && { weights: new Float64Array(mask.length) }), metrics };

  let weights: Float64Array | undefined;
  if (importance) {
    const made = importanceWeights(batch, importance, logClamp);
    weights = made.weights;
    Object.assign(metrics, made.metrics);
  }
  let logRatioSum = 0;
  eachLogRatio(batch, batch.to, batch.from, (logRatio) => {
    logRatioSum += logRatio;
  });
  metrics.seqLogRatioMean = logRatioSum / sequences;

  for (const rejection of rejections) reject(batch, rejection, logClamp, kept);
  if (rejections.length > 0) {
    const left = countedTokens(offsets, kept);
    metrics.rejectedShare = 1 - left.reduce((sum, count) => sum + count, 0) / tokens;
    metrics.rejectedSequences = counts.filter((count, s) => count > 0 && left[s] === 0).length / sequences;
  }
  if (vetoBelow != null) metrics.vetoedSequences = veto(batch, vetoBelow, kept) / sequences;
  let teaching = 0;
  for (let t = 0; t < kept.length; t++) if (kept[t] === 1 && weights?.[t] !== 0) teaching++;
  metrics.keptShare = teaching / tokens;
  return { kept, ...(weights && { weights }), metrics };
}
