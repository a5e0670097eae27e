import { type Environment, sampleJudged } from '../rl/environment.js';
import type { Measured } from '../rl/trainingLoop.js';
import type { RolloutEngine } from '../rollout/engine.js';
import type { EvaluationConfig } from './config.js';

/** Draw names beyond those of any step. */
const EVALUATION_PROMPTS = 2 ** 30;

/** Names of avg@k and pass@k in metrics. */
export function evaluationKeys(samples: number): { readonly average: string; readonly pass: string } {
  return { average: `eval/avg@${samples}`, pass: `eval/pass@${samples}` };
}

/**
 * Judges the policy of a rollout engine, brought up to date first, on problems: each is tried `samples` times, by the same
 * draws in every evaluation of a run, so that two differ by the weights alone.
 *
 * `eval/avg@k` is the mean reward, `eval/pass@k` the share of problems with a right response (a reward of at least 1)
 * among k; responses that are cut off earn 0.
 *
 * @returns null where the signal ended it: of some of the responses there is no score
 */
export async function evaluate(
  rollout: RolloutEngine,
  environment: Environment,
  options: Pick<EvaluationConfig, 'samples' | 'temperature' | 'topP'>,
  seed: number,
  signal?: AbortSignal,
): Promise<Measured | null> {
  const { samples, temperature, topP } = options;
  const start = performance.now();
  rollout.syncWeights();
  const draws = Array.from({ length: environment.prompts.length * samples }, (_, i) => {
    const prompt = Math.floor(i / samples);
    return { prompt, promptId: EVALUATION_PROMPTS + prompt, sampleId: i % samples };
  });
  const judged = await sampleJudged(rollout, environment, draws, seed, { temperature, topP, signal }).catch(
    (error: unknown) => {
      if (signal?.aborted && error === signal.reason) return null;
      throw error;
    },
  );
  if (judged === null) return null;
  const { average, pass } = evaluationKeys(samples);
  return {
    ...averageAndPass(judged.rewards, samples, average, pass),
    'eval/response_tokens': mean(judged.completions.map(({ tokens }) => tokens.length)),
    'eval/truncated_share': mean(judged.truncated),
    'time/eval_s': (performance.now() - start) / 1e3,
  };
}

/** The rewards of a problem's responses stand together, `samples` of each. */
export function averageAndPass(
  rewards: ArrayLike<number>,
  samples: number,
  average: string,
  pass: string,
): Measured {
  const problems = rewards.length / samples;
  let passed = 0;
  for (let problem = 0; problem < problems; problem++) {
    const own = Array.from({ length: samples }, (_, i) => rewards[problem * samples + i]!);
    if (own.some((reward) => reward >= 1)) passed++;
  }
  return { [average]: mean(rewards), [pass]: passed / problems };
}

function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}
