import { WINDOW, windowMean } from '../rl/record.js';
import { PASS_ACCURACY } from './config.js';

/** Steps for which the average must stay above the bar to pass. */
export const HOLD = 10;
/** A fall of the average below this share of its peak is a collapse, unless so few responses make it noise. */
const COLLAPSE_SHARE = 0.8;
/**
 * Standard errors that a fall must exceed to be more than noise. Five, since the peak is the greatest of many
 * averages: fewer than 1 in 300 steady runs is then called collapsed, with as few as 2 responses a step.
 */
const COLLAPSE_ERRORS = 5;
/** Absorbs the rounding of a mean of rewards, so that an average of exactly 95 % does not pass. */
const ROUNDING = 1e-9;

export interface Verdict {
  /** Whether the average stayed above 95 % for the last {@link HOLD} steps. */
  readonly passed: boolean;
  /** Average of the last {@link WINDOW} steps. */
  readonly finalAccuracy: number;
  /** The greatest average. */
  readonly peakAccuracy: number;
  /** The first step whose average was below 80 % of the peak before it, by more than chance, or null. */
  readonly collapsedAtStep: number | null;
  /** Whether a run that collapsed is back, at its end, above 80 % of its peak. */
  readonly recovered: boolean;
}

/** Judges a run by the mean reward of each of its steps, of `responsesPerStep` responses each. */
export function judge(rewards: readonly number[], responsesPerStep: number): Verdict {
  let peakAccuracy = 0;
  let collapsedAtStep: number | null = null;
  let above = 0;
  let average = 0;
  for (let step = 0; step < rewards.length; step++) {
    average = windowMean(rewards, step);
    if (step + 1 < WINDOW) continue;
    above = average > PASS_ACCURACY + ROUNDING ? above + 1 : 0;
    // Both the peak and this average are means of WINDOW steps' responses.
    const pooled = (peakAccuracy + average) / 2;
    const error = Math.sqrt((2 * pooled * (1 - pooled)) / (WINDOW * responsesPerStep));
    const fall = peakAccuracy - average;
    if (fall > (1 - COLLAPSE_SHARE) * peakAccuracy && fall > COLLAPSE_ERRORS * error)
      collapsedAtStep ??= step;
    peakAccuracy = Math.max(peakAccuracy, average);
  }
  return {
    passed: above >= HOLD,
    finalAccuracy: average,
    peakAccuracy: Math.max(peakAccuracy, rewards.length < WINDOW ? average : 0),
    collapsedAtStep,
    recovered: collapsedAtStep !== null && average >= COLLAPSE_SHARE * peakAccuracy,
  };
}
