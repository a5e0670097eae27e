import { clampLog, eachLogRatio, k3 } from '../ratios.js';
import type { RatioBatch } from './ratioBatch.js';

export const rejectionLevels = ['token', 'sequence-sum', 'sequence-mean', 'sequence-max'] as const;
export type RejectionLevel = (typeof rejectionLevels)[number];

export const rejectionMeasures = ['ratio', 'k2', 'k3'] as const;
export type RejectionMeasure = (typeof rejectionMeasures)[number];

export interface RejectionOptions {
  readonly level: RejectionLevel;
  readonly measure: RejectionMeasure;
  /** Below it is rejected; of 'ratio' alone, default none. */
  readonly low?: number | null;
  /** Above it is rejected; default none. */
  readonly high?: number | null;
}

/**
 * Leaves out tokens, or whole responses, on which the two policies are too far apart: clears them in `kept`. With
 * l_t = log to_t - log from_t and r_t = exp(l_t), each token has
 *
 *     ratio  r_t        k2  l_t^2 / 2        k3  r_t - 1 - l_t
 *
 * and a response the sum, the mean or the greatest of its tokens'; of ratios the sum is that of logs, so
 * 'sequence-sum' bounds the response's ratio exp(sum l_t) and 'sequence-mean' its geometric mean exp(mean l_t) per
 * token, which does not grow with length.
 *
 * verl's k1 options bound the same quantities upside down: its k1 is -l, compared with the logs of its bounds, so its
 * `lower_upper` bounds 1 / r. Here bounds are always of r itself; verl's `a_b` is low = 1/b, high = 1/a.
 */
export function reject(
  batch: RatioBatch,
  { level, measure, low, high }: RejectionOptions,
  logClamp: number,
  kept: Uint8Array,
): void {
  const { offsets, mask, to, from } = batch;
  const isRatio = measure === 'ratio';
  // Ratios are compared as logs, which do not overflow.
  const floor = isRatio && low != null ? Math.log(low) : -Infinity;
  const ceiling = high == null ? Infinity : isRatio ? Math.log(high) : high;
  const outside = (value: number) => value < floor || value > ceiling;
  const measured = (logRatio: number) => {
    const l = clampLog(logRatio, logClamp);
    return isRatio ? l : measure === 'k2' ? (l * l) / 2 : k3(-l);
  };
  if (level === 'token') {
    eachLogRatio({ offsets, mask }, to, from, (logRatio, t) => {
      if (outside(measured(logRatio))) kept[t] = 0;
    });
    return;
  }
  const values = new Float64Array(offsets.length - 1).fill(level === 'sequence-max' ? -Infinity : 0);
  const counts = new Int32Array(values.length);
  eachLogRatio({ offsets, mask }, to, from, (logRatio, _, s) => {
    const value = measured(logRatio);
    values[s] = level === 'sequence-max' ? Math.max(values[s]!, value) : values[s]! + value;
    counts[s]!++;
  });
  for (let s = 0; s < values.length; s++) {
    if (counts[s] === 0) continue;
    if (outside(level === 'sequence-mean' ? values[s]! / counts[s]! : values[s]!)) {
      kept.fill(0, offsets[s]!, offsets[s + 1]!);
    }
  }
}
