import type { GridGroup } from './summary.js';

/**
 * From which spread on an algorithm slows, and from which on it collapses. The spread is the standard deviation over
 * responses of L = log pi(y) - log mu(y), which a sequence's importance weight has as its exponent, in the first steps of a
 * run, before training has moved it. Null where no group of the grid did so.
 */
export interface SpreadThreshold {
  readonly algorithm: string;
  /** The pair of precisions with the least spread, which the others are held against. */
  readonly reference: string;
  /** Greatest mean spread of a group that neither slowed nor collapsed. */
  readonly unharmedUpTo: number | null;
  /**
   * Least mean spread of a group that slowed: every run of it had a lower accuracy, averaged over the steps that all runs
   * took, than every run of the reference. With fewer than three seeds in either that is chance, and null.
   */
  readonly slowedFrom: number | null;
  /** Least mean spread of a group in which a run collapsed. */
  readonly collapsedFrom: number | null;
}

const LEAST_SEEDS = 3;

/**
 * What each algorithm bore. The reference itself counts as unharmed unless it collapsed: then the learning rate is to
 * blame, and nothing is said of the algorithm's spreads.
 */
export function spreadThresholds(groups: readonly GridGroup[]): SpreadThreshold[] {
  const algorithms = [...new Set(groups.map(({ algorithm }) => algorithm))];
  return algorithms.flatMap((algorithm) => {
    const own = groups
      .filter((group) => group.algorithm === algorithm && Number.isFinite(group.startSpread.mean))
      .sort((a, b) => a.startSpread.mean - b.startSpread.mean);
    const [reference, ...others] = own;
    if (reference === undefined || others.length === 0 || reference.collapsedAt.length > 0) return [];
    const collapsed = others.filter(({ collapsedAt }) => collapsedAt.length > 0);
    const slowed = others.filter(
      ({ meanAccuracy, seeds }) =>
        Math.min(seeds.length, reference.seeds.length) >= LEAST_SEEDS &&
        meanAccuracy.max < reference.meanAccuracy.min,
    );
    const unharmed = own.filter((group) => !collapsed.includes(group) && !slowed.includes(group));
    return [
      {
        algorithm,
        reference: `${reference.training}:${reference.rollout}`,
        unharmedUpTo: unharmed.at(-1)?.startSpread.mean ?? null,
        slowedFrom: slowed[0]?.startSpread.mean ?? null,
        collapsedFrom: collapsed[0]?.startSpread.mean ?? null,
      },
    ];
  });
}
