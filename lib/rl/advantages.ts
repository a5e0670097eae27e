import { checkChoice, checkInteger, invalid } from '../errors.js';

export const baselines = ['mean', 'leave-one-out'] as const;

/** What is subtracted from a reward: the mean of its group, or of the group's other members. */
export type Baseline = (typeof baselines)[number];

export interface AdvantageOptions {
  /**
   * Default 'mean', which includes the sample itself, as the authors' code does. Their text has
   * 'leave-one-out' (arXiv 2510.26788), which is G / (G - 1) times as large.
   */
  baseline?: Baseline;
  /**
   * Divide by (standard deviation of the group + epsilon), with Bessel's correction. Default false (Dr.GRPO).
   */
  normalizeStd?: boolean;
  /** Default 1e-8, the authors' value; verl has 1e-6. */
  epsilon?: number;
}

/** Checks advantage options and fills in the defaults. */
export function resolveAdvantageOptions(
  where: string,
  options: AdvantageOptions,
): Required<AdvantageOptions> {
  const { baseline = 'mean', normalizeStd = false, epsilon = 1e-8 } = options;
  checkChoice(where, 'baseline', baseline, baselines);
  if (typeof normalizeStd !== 'boolean') invalid(where, 'normalizeStd to be a boolean', normalizeStd);
  if (!(Number.isFinite(epsilon) && epsilon > 0)) {
    invalid(where, 'epsilon to be a finite number above 0', epsilon);
  }
  return { baseline, normalizeStd, epsilon };
}

/**
 * Group-relative advantages, one per sequence; sequences of one prompt are contiguous, `groupSize` of them.
 *
 *     mean:           A_i = R_i - mean(R)              leave-one-out: A_i = R_i - mean(R without R_i)
 *     normalizeStd:   A_i / (std(R, ddof = 1) + epsilon)
 *
 * A group whose rewards are all equal gives exactly 0. A group of one has nothing to compare with: its mean
 * counts as 0 and its standard deviation as 1, as in verl, so its advantage is the reward (over 1 + epsilon).
 *
 * @param rewards [groups * groupSize], finite
 */
export function groupAdvantages(
  rewards: Float64Array,
  groupSize: number,
  options: AdvantageOptions = {},
): Float64Array {
  const where = 'groupAdvantages';
  const { baseline, normalizeStd, epsilon } = resolveAdvantageOptions(where, options);
  checkInteger(where, 'groupSize', groupSize, 1);
  if (!(rewards instanceof Float64Array)) invalid(where, 'rewards to be a Float64Array', rewards);
  if (rewards.length % groupSize !== 0) {
    invalid(where, `rewards.length to be a multiple of groupSize = ${groupSize}`, rewards.length);
  }
  const bad = rewards.findIndex((reward) => !Number.isFinite(reward));
  if (bad >= 0) invalid(where, `rewards[${bad}] to be finite`, rewards[bad]);

  const advantages = new Float64Array(rewards.length);
  if (groupSize === 1) {
    const divisor = normalizeStd ? 1 + epsilon : 1;
    return rewards.map((reward) => reward / divisor);
  }
  const factor = baseline === 'mean' ? 1 : groupSize / (groupSize - 1);
  for (let start = 0; start < rewards.length; start += groupSize) {
    // Measured from the first reward, equal rewards are exactly 0; a mean of equal values need not be that
    // value.
    const origin = rewards[start]!;
    let sum = 0;
    for (let i = start; i < start + groupSize; i++) sum += rewards[i]! - origin;
    const mean = sum / groupSize;
    let squares = 0;
    for (let i = start; i < start + groupSize; i++) {
      const centred = rewards[i]! - origin - mean;
      advantages[i] = centred * factor;
      squares += centred * centred;
    }
    if (!normalizeStd) continue;
    const std = Math.sqrt(squares / (groupSize - 1));
    for (let i = start; i < start + groupSize; i++) advantages[i]! /= std + epsilon;
  }
  return advantages;
}
