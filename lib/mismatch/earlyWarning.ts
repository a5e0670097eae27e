/**
 * An early warning of collapse (arXiv 2510.26788: runs that collapse show a growing mismatch before, single tokens' pi -
 * mu going to +-1 on the same weights). It tells of the mismatch, not of its cause: a learning rate that is too high
 * makes it grow in any format.
 */

/** What the warning reads of a step's mismatch. */
export interface WarningInput {
  readonly maxProbDiff: number;
  readonly minProbDiff: number;
  readonly meanAbsLogRatio: number;
}

export const warningSignals = ['saturation', 'growth'] as const;
export type WarningSignal = (typeof warningSignals)[number];

export interface Warning {
  /** The step, from 0, at which it fired. */
  readonly step: number;
  readonly signal: WarningSignal;
  /** Largest |pi - mu| of the step; growth: the mismatch as a multiple of what it was at the run's start. */
  readonly value: number;
}

/** Steps that are looked at together. */
export const WARNING_WINDOW = 10;
/** A token this far apart in probability is one that an engine is sure of and the other rules out. */
const SATURATED = 0.9;
/** Share of the window's steps that have such a token. */
const SATURATED_STEPS = 0.5;
/** Growth over the first window that counts. */
const GROWTH = 1.5;
/** And how many of its standard errors it must exceed to be no chance: fewer than 1 in 100 steady runs then fires. */
const GROWTH_ERRORS = 6;

/** Watches a run step by step; the first warning stays. */
export class EarlyWarning {
  #step = 0;
  #first: number[] = [];
  readonly #recent: { log: number; saturated: boolean }[] = [];
  #fired: Warning | null = null;

  /** The warning, once it has fired. */
  get warning(): Warning | null {
    return this.#fired;
  }

  /** Takes the next step's mismatch. */
  add({ maxProbDiff, minProbDiff, meanAbsLogRatio }: WarningInput): Warning | null {
    const largest = Math.max(maxProbDiff, -minProbDiff);
    const log = Math.log(meanAbsLogRatio);
    const step = this.#step++;
    // Engines that agree to the bit have no logarithm, nor anything to warn of.
    if (!Number.isFinite(log)) return this.#fired;
    if (this.#first.length < WARNING_WINDOW) this.#first.push(log);
    this.#recent.push({ log, saturated: largest >= SATURATED });
    if (this.#recent.length > WARNING_WINDOW) this.#recent.shift();
    if (this.#fired || this.#recent.length < WARNING_WINDOW) return this.#fired;

    const saturated = this.#recent.filter((recent) => recent.saturated).length;
    if (saturated >= SATURATED_STEPS * WARNING_WINDOW && largest >= SATURATED) {
      this.#fired = { step, signal: 'saturation', value: largest };
      return this.#fired;
    }
    const before = moments(this.#first);
    const now = moments(this.#recent.map((recent) => recent.log));
    const growth = now.mean - before.mean;
    const error = Math.sqrt((before.variance + now.variance) / WARNING_WINDOW);
    if (growth > Math.log(GROWTH) && growth > GROWTH_ERRORS * error) {
      this.#fired = { step, signal: 'growth', value: Math.exp(growth) };
    }
    return this.#fired;
  }
}

/** The warning of a whole run, or null where there was none. */
export function earlyWarning(steps: Iterable<WarningInput>): Warning | null {
  const watch = new EarlyWarning();
  for (const step of steps) watch.add(step);
  return watch.warning;
}

/** The mean, and the variance around the window's own trend: growth within it is no noise. */
function moments(values: readonly number[]): { mean: number; variance: number } {
  const n = values.length;
  const mean = values.reduce((sum, y) => sum + y, 0) / n;
  const middle = (n - 1) / 2;
  const slope =
    values.reduce((sum, y, x) => sum + (x - middle) * (y - mean), 0) /
    values.reduce((sum, _, x) => sum + (x - middle) ** 2, 0);
  const squares = values.reduce((sum, y, x) => sum + (y - mean - slope * (x - middle)) ** 2, 0);
  return { mean, variance: squares / (n - 2) };
}
