import { clampLog, eachLogRatio, effectiveSampleSize } from '../ratios.js';
import type { RatioBatch } from './ratioBatch.js';

export const importanceLevels = ['token', 'sequence'] as const;
export type ImportanceLevel = (typeof importanceLevels)[number];

export const importanceRules = ['plain', 'truncate', 'mask'] as const;

/** What becomes of an importance weight outside the bounds. */
export type ImportanceRule = (typeof importanceRules)[number];

export interface ImportanceOptions {
  /** One weight a token, or one a response: the product of its tokens'. */
  readonly level: ImportanceLevel;
  /** Default 'plain'. */
  readonly rule?: ImportanceRule;
  /** The greatest weight, C; 'truncate' needs it. */
  readonly high?: number | null;
  /** The least weight; default none. */
  readonly low?: number | null;
  /** Divides the weights by their mean over the mini-batch, after the rule. Default false. */
  readonly batchNormalize?: boolean;
}

/**
 * Importance weights from the policy that sampled to the one that is trained, w = to / from, [tokens], 0 where the mask
 * is 0. Weights are held fixed: they have no gradient.
 *
 *     token      w_t = exp(l_t)                 sequence   w_t = exp(sum_t m_t l_t) at every token of the response
 *     plain      w
 *     truncate   min(max(w, low), high)         Token-TIS, Seq-TIS (arXiv 2510.26788, eq. 7)
 *     mask       w where low <= w <= high, else 0    Seq-MIS (one-sided: no low); at tokens IcePop (arXiv 2510.18855)
 *
 * Logs are clamped to [-logClamp, logClamp] first where that is given (verl: 20).
 *
 * Metrics, on the raw weights: `weightMean`, `weightMax`, `ess` (see {@link effectiveSampleSize}); `truncatedShare` or
 * `maskedShare` of the weights outside the bounds; `batchNormFactor`, what weights were divided by.
 */
export function importanceWeights(
  batch: RatioBatch,
  { level, rule = 'plain', high, low, batchNormalize = false }: ImportanceOptions,
  logClamp: number,
): { weights: Float64Array; metrics: Record<string, number> } {
  const { offsets, mask, to, from } = batch;
  const ceiling = high ?? Infinity;
  const floor = low ?? 0;
  const logs = levelLogs(batch, level).map((log) => clampLog(log, logClamp));
  let outside = 0;
  let max = 0;
  let sum = 0;
  let total = 0;
  const applied = logs.map((log) => {
    const weight = Math.exp(log);
    max = Math.max(max, weight);
    sum += weight;
    const inside = weight >= floor && weight <= ceiling;
    if (!inside) outside++;
    const result =
      inside || rule === 'plain' ? weight : rule === 'mask' ? 0 : weight < floor ? floor : ceiling;
    total += result;
    return result;
  });
  const mean = total / logs.length;
  const factor = batchNormalize && mean > 0 && Number.isFinite(mean) ? mean : 1;

  const weights = new Float64Array(mask.length);
  let next = -1;
  let sequence = -1;
  eachLogRatio({ offsets, mask }, to, from, (_, t, s) => {
    if (level === 'token' || s !== sequence) next++;
    sequence = s;
    weights[t] = applied[next]! / factor;
  });
  const metrics: Record<string, number> = {};
  if (logs.length > 0) {
    metrics.weightMean = sum / logs.length;
    metrics.weightMax = max;
    metrics.ess = effectiveSampleSize(logs);
    if (rule !== 'plain') metrics[rule === 'mask' ? 'maskedShare' : 'truncatedShare'] = outside / logs.length;
    if (batchNormalize) metrics.batchNormFactor = factor;
  }
  return { weights, metrics };
}

/** The log weights, one for each counted token or for each response with one, in order. */
function levelLogs({ offsets, mask, to, from }: RatioBatch, level: ImportanceLevel): number[] {
  const logs: number[] = [];
  let sequence = -1;
  eachLogRatio({ offsets, mask }, to, from, (logRatio, _, s) => {
    if (level === 'token' || s !== sequence) logs.push(logRatio);
    else logs[logs.length - 1]! += logRatio;
    sequence = s;
  });
  return logs;
}
