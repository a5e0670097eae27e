import type { Decoder } from '../models/decoder.js';
import { taskEnvironment } from '../rl/environment.js';
import type { Task } from '../tasks/task.js';
import { type FilterProgress, filterProblems } from './filter.js';
import { SET_PROBLEMS } from './supervised.js';

export interface PerfectibleOptions {
  readonly seed: number;
  /** Problems tried. */
  readonly candidates: number;
  /** Responses to each. */
  readonly samples: number;
  /** Problems solved at least this often are kept; default 0.2, the paper's. */
  readonly solvedAtLeast?: number;
  /** And at most this often; default 0.8, the paper's. */
  readonly solvedAtMost?: number;
  readonly signal?: AbortSignal;
  readonly report?: (progress: FilterProgress) => void;
}

export interface PerfectibleSet {
  /** Numbers of the problems kept: `task.problem(seed, index)`, or places in a data set. */
  readonly indices: readonly number[];
  readonly tried: number;
  /** Share of all responses that were right. */
  readonly accuracy: number;
}

const PROBLEMS_AT_ONCE = 50;

/**
 * The perfectible set of a task: see {@link filterProblems}. Responses are sampled in fp32, so that runs of different
 * precisions train on the same set.
 */
export async function buildPerfectibleSet(
  model: Decoder,
  task: Task,
  options: PerfectibleOptions,
): Promise<PerfectibleSet> {
  const { seed, candidates, samples, solvedAtLeast = 0.2, solvedAtMost = 0.8, signal, report } = options;
  const problems = Array.from({ length: candidates }, (_, i) => task.problem(seed, SET_PROBLEMS + i));
  const { indices, tried, accuracy } = await filterProblems(model, taskEnvironment(task, problems), {
    samplesPerProblem: samples,
    solvedAtLeast,
    solvedAtMost,
    seed,
    precision: 'fp32',
    problemsAtOnce: PROBLEMS_AT_ONCE,
    signal,
    report,
  });
  return { indices: indices.map((index) => SET_PROBLEMS + index), tried, accuracy };
}
