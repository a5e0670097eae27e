import { checkInteger, checkNumber, invalid } from '../errors.js';

/** Which problems a model solves sometimes; everything is optional. */
export interface FilterOptions {
  /** Responses that decide whether a problem is in the set; default 40, the paper's. */
  readonly samplesPerProblem?: number;
  /** The set keeps problems that the model solves at least this often; default 0.2, the paper's. */
  readonly solvedAtLeast?: number;
  /** And at most this often; default 0.8, the paper's. */
  readonly solvedAtMost?: number;
}

export type FilterConfig = Required<FilterOptions>;

/** Every option of a filter. */
export const filterKeys = [
  'samplesPerProblem',
  'solvedAtLeast',
  'solvedAtMost',
] as const satisfies readonly (keyof FilterOptions)[];

/** @throws InvalidArgumentError naming the option */
export function resolveFilterOptions(where: string, options: FilterOptions): FilterConfig {
  const solvedAtLeast = checkNumber(where, 'solvedAtLeast', options.solvedAtLeast ?? 0.2, 0, 1);
  const solvedAtMost = checkNumber(where, 'solvedAtMost', options.solvedAtMost ?? 0.8, 0, 1);
  if (solvedAtLeast > solvedAtMost) {
    invalid(where, `solvedAtLeast to be at most solvedAtMost = ${solvedAtMost}`, solvedAtLeast);
  }
  return {
    samplesPerProblem: checkInteger(where, 'samplesPerProblem', options.samplesPerProblem ?? 40, 2, 1e4),
    solvedAtLeast,
    solvedAtMost,
  };
}

/** `20 % to 80 %`, of the problems that a filter keeps. */
export function boundsText({ solvedAtLeast, solvedAtMost }: FilterConfig): string {
  const percent = (share: number) => `${+(100 * share).toPrecision(12)} %`;
  return `${percent(solvedAtLeast)} to ${percent(solvedAtMost)}`;
}
