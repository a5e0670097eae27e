import type { PointLog } from '../io/pointLog.js';
import type { Decoder } from '../models/decoder.js';
import { type Environment, sampleJudged } from '../rl/environment.js';
import { RolloutEngine } from '../rollout/engine.js';
import type { FloatDType } from '../tensor/dtype.js';
import type { FilterConfig } from './filterConfig.js';

export interface FilterSettings extends FilterConfig {
  /** Of the draws. */
  readonly seed: number;
  readonly precision: FloatDType;
  /** Problems that are sampled for together: what an abort waits for and a kill loses. */
  readonly problemsAtOnce: number;
  /** Keeps how often each problem was solved: what is there is not sampled anew. */
  readonly log?: PointLog<readonly number[]>;
  readonly signal?: AbortSignal | undefined;
  readonly report?: ((progress: FilterProgress) => void) | undefined;
}

export interface FilterProgress {
  readonly tried: number;
  readonly kept: number;
}

/** A perfectible set: the problems that a model solves sometimes. */
export interface FilteredProblems {
  /** Places of the problems kept among the environment's prompts. */
  readonly indices: readonly number[];
  /** [tried] right responses to each problem. */
  readonly solved: readonly number[];
  readonly tried: number;
  /** Share of all responses that were right. */
  readonly accuracy: number;
}

/**
 * The filter of the paper's sanity test (arXiv 2510.26788): each problem is sampled many times at temperature 1, and those
 * solved 20 % to 80 % of the time are kept: none is hopeless, none is solved already. A response is right where its reward
 * is 1.
 */
export async function filterProblems(
  model: Decoder,
  environment: Environment,
  settings: FilterSettings,
): Promise<FilteredProblems> {
  const { samplesPerProblem: samples, solvedAtLeast, solvedAtMost, seed, log, signal, report } = settings;
  const candidates = environment.prompts.length;
  const solved: number[] = [];
  const indices: number[] = [];
  let rollout: RolloutEngine | undefined;
  const count = async (begin: number, end: number): Promise<number[]> => {
    rollout ??= new RolloutEngine(model, { precision: settings.precision });
    const draws = Array.from({ length: (end - begin) * samples }, (_, i) => {
      const prompt = begin + Math.floor(i / samples);
      return { prompt, promptId: prompt, sampleId: i % samples };
    });
    const { rewards } = await sampleJudged(rollout, environment, draws, seed);
    return Array.from(
      { length: end - begin },
      (_, i) => rewards.subarray(i * samples, (i + 1) * samples).filter((reward) => reward === 1).length,
    );
  };
  try {
    while (solved.length < candidates && !signal?.aborted) {
      const begin = solved.length;
      const end = Math.min(begin + settings.problemsAtOnce, candidates);
      const rights = await (log
        ? log.measured(`${begin}-${end}`, () => count(begin, end))
        : count(begin, end));
      rights.forEach((right, i) => {
        solved.push(right);
        if (right >= solvedAtLeast * samples && right <= solvedAtMost * samples) indices.push(begin + i);
      });
      report?.({ tried: end, kept: indices.length });
    }
  } finally {
    rollout?.dispose();
  }
  const tried = solved.length;
  const right = solved.reduce((sum, n) => sum + n, 0);
  return { indices, solved, tried, accuracy: tried === 0 ? 0 : right / (tried * samples) };
}
