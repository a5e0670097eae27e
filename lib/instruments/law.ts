import type { Interval } from '../mismatch/bootstrap.js';
import { bootstrap } from '../mismatch/bootstrap.js';

/** An observation: what is explained, by what, and the group that it was drawn with. */
export interface Observation {
  readonly group: string;
  readonly y: number;
  readonly x: Readonly<Record<string, number>>;
}

/** y = intercept + sum of coefficients times predictors. */
export interface LinearLaw {
  readonly intercept: Interval;
  readonly coefficients: Readonly<Record<string, Interval>>;
  /** Share of the variance of y that it explains. */
  readonly r2: number;
  readonly observations: number;
  readonly groups: number;
}

/** The predictors that vary, whole groups of observations, and the fit of some of those groups. */
function design(observations: readonly Observation[]) {
  const names = Object.keys(observations[0]?.x ?? {}).filter(
    (name) => new Set(observations.map(({ x }) => x[name])).size > 1,
  );
  const groups = [...new Set(observations.map(({ group }) => group))];
  const members = groups.map((group) => observations.filter((o) => o.group === group));
  const fit = (indices: ArrayLike<number>) =>
    solve(
      Array.from(indices).flatMap((i) => members[i]!),
      names,
    );
  return { names, groups, fit };
}

/**
 * The value of one predictor at which the law reaches y, the others being as `at` has them: a prediction, with a 95 %
 * bootstrap interval over groups. Null where that predictor does not vary or there is too little to fit.
 */
export function solveLaw(
  observations: readonly Observation[],
  predictor: string,
  y: number,
  at: Readonly<Record<string, number>>,
  seed: number,
): Interval | null {
  const { names, groups, fit } = design(observations);
  const own = names.indexOf(predictor);
  if (own < 0 || observations.length <= names.length + 1) return null;
  const solved = (indices: ArrayLike<number>) => {
    const b = fit(indices);
    if (b === null) return Number.NaN;
    const others = names.reduce((sum, name, k) => (k === own ? sum : sum + b[k + 1]! * at[name]!), b[0]!);
    return (y - others) / b[own + 1]!;
  };
  const interval = bootstrap(groups.length, solved, seed);
  return Number.isFinite(interval.value) ? interval : null;
}

/**
 * Least squares of y on the predictors that vary, with 95 % bootstrap intervals over groups: whole groups are drawn, since
 * what was measured on one base is not independent. Null with fewer observations than coefficients.
 */
export function fitLaw(observations: readonly Observation[], seed: number): LinearLaw | null {
  const { names, groups, fit } = design(observations);
  const all = fit(groups.map((_, i) => i));
  if (observations.length <= names.length + 1 || all === null) return null;
  const interval = (k: number) =>
    bootstrap(groups.length, (indices) => fit(indices)?.[k] ?? Number.NaN, seed);
  const mean = observations.reduce((sum, { y }) => sum + y, 0) / observations.length;
  let [residual, total] = [0, 0];
  for (const { x, y } of observations) {
    const predicted = all[0]! + names.reduce((sum, name, k) => sum + all[k + 1]! * x[name]!, 0);
    residual += (y - predicted) ** 2;
    total += (y - mean) ** 2;
  }
  return {
    intercept: interval(0),
    coefficients: Object.fromEntries(names.map((name, k) => [name, interval(k + 1)])),
    r2: 1 - residual / total,
    observations: observations.length,
    groups: groups.length,
  };
}

/** The intercept and the coefficients, or null where the predictors do not determine them. */
function solve(observations: readonly Observation[], names: readonly string[]): number[] | null {
  const n = names.length + 1;
  // Normal equations with the right-hand side as the last column; predictors are centred to keep them well conditioned.
  const centre = names.map(
    (name) => observations.reduce((sum, { x }) => sum + x[name]!, 0) / observations.length,
  );
  const rows = Array.from({ length: n }, () => new Float64Array(n + 1));
  for (const { x, y } of observations) {
    const v = [1, ...names.map((name, k) => x[name]! - centre[k]!)];
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) rows[i]![j]! += v[i]! * v[j]!;
      rows[i]![n]! += v[i]! * y;
    }
  }
  for (let i = 0; i < n; i++) {
    let pivot = i;
    for (let k = i + 1; k < n; k++) if (Math.abs(rows[k]![i]!) > Math.abs(rows[pivot]![i]!)) pivot = k;
    [rows[i], rows[pivot]] = [rows[pivot]!, rows[i]!];
    if (Math.abs(rows[i]![i]!) < 1e-9 * observations.length) return null;
    for (let k = 0; k < n; k++) {
      if (k === i) continue;
      const factor = rows[k]![i]! / rows[i]![i]!;
      for (let j = i; j <= n; j++) rows[k]![j]! -= factor * rows[i]![j]!;
    }
  }
  const b = rows.map((row, i) => row[n]! / row[i]!);
  b[0]! -= names.reduce((sum, _, k) => sum + b[k + 1]! * centre[k]!, 0);
  return b;
}
