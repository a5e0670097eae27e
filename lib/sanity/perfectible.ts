import type { Decoder } from '../models/decoder.js';
import { sampleJudged, taskEnvironment } from '../rl/environment.js';
import { RolloutEngine } from '../rollout/engine.js';
import type { Task } from '../tasks/task.js';
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
  readonly report?: (progress: { tried: number; kept: number }) => void;
}

export interface PerfectibleSet {
  /** Numbers of the problems kept: `task.problem(seed, index)`. */
  readonly indices: readonly number[];
  readonly tried: number;
  /** Share of all responses that were right. */
  readonly accuracy: number;
}

const PROBLEMS_AT_ONCE = 50;

/**
 * The perfectible set of the paper's sanity test (arXiv 2510.26788, section on the sanity test): each problem is
 * sampled many times, and those solved 20 % to 80 % of the time are kept: none is hopeless, none is solved already.
 *
 * Responses are sampled in fp32, so that runs of different precisions train on the same set.
 */
export async function buildPerfectibleSet(
  model: Decoder,
  task: Task,
  options: PerfectibleOptions,
): Promise<PerfectibleSet> {
  const { seed, candidates, samples, solvedAtLeast = 0.2, solvedAtMost = 0.8, signal, report } = options;
  using rollout = new RolloutEngine(model, { precision: 'fp32' });
  const indices: number[] = [];
  let tried = 0;
  let solved = 0;
  while (tried < candidates && !signal?.aborted) {
    const count = Math.min(PROBLEMS_AT_ONCE, candidates - tried);
    const problems = Array.from({ length: count }, (_, i) => SET_PROBLEMS + tried + i);
    const environment = taskEnvironment(
      task,
      problems.map((index) => task.problem(seed, index)),
    );
    const draws = problems.flatMap((_, prompt) =>
      Array.from({ length: samples }, (_, sampleId) => ({ prompt, promptId: tried + prompt, sampleId })),
    );
    const { rewards } = await sampleJudged(rollout, environment, draws, seed);
    problems.forEach((index, i) => {
      const right = rewards.subarray(i * samples, (i + 1) * samples).filter((reward) => reward === 1).length;
      solved += right;
      if (right >= solvedAtLeast * samples && right <= solvedAtMost * samples) indices.push(index);
    });
    tried += count;
    report?.({ tried, kept: indices.length });
  }
  return { indices, tried, accuracy: tried === 0 ? 0 : solved / (tried * samples) };
}
