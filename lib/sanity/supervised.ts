import type { Decoder } from '../models/decoder.js';
import type { TokenLoss, TokenSequence } from '../models/sequences.js';
import { numerics } from '../numerics.js';
import { CounterRandom } from '../random.js';
import { sampleJudged, taskEnvironment } from '../rl/environment.js';
import { RolloutEngine } from '../rollout/engine.js';
import type { Task } from '../tasks/task.js';
import { TrainingEngine } from '../training/engine.js';

export interface TeachOptions {
  readonly seed: number;
  /** Sampled accuracy at which to stop. */
  readonly accuracy: number;
  /** Problems a step; default 64. */
  readonly batchSize?: number;
  /** Default 1.5e-3. */
  readonly learningRate?: number;
  /** Most steps; default 4000. */
  readonly maxSteps?: number;
  readonly signal?: AbortSignal;
  readonly report?: (progress: TeachProgress) => void;
}

export interface TeachProgress {
  readonly step: number;
  /** Mean cross-entropy per token of the last batch, in nats. */
  readonly loss: number;
  /** Share of held-out problems solved by one sample each at temperature 1. */
  readonly accuracy: number;
}

const SOLUTION_STREAM = 0x736f6c76;
const EVALUATED_PROBLEMS = 256;
const STEPS_BETWEEN_EVALUATIONS = 10;
/** Problem numbers of evaluation and of the set lie beyond those of teaching. */
export const EVALUATION_PROBLEMS = 2 ** 40;
export const SET_PROBLEMS = 2 ** 41;

/**
 * Teaches a model by supervised learning on correct answers until it is partly right: cross-entropy in fp32 with the
 * training engine, stopped as soon as sampled accuracy reaches the target. A pure function of the seed.
 */
export async function teach(model: Decoder, task: Task, options: TeachOptions): Promise<TeachProgress> {
  const {
    seed,
    accuracy: target,
    batchSize = 64,
    learningRate = 1.5e-3,
    maxSteps = 4000,
    signal,
    report,
  } = options;
  using training = new TrainingEngine(model, {
    precision: 'fp32',
    numerics: numerics('training'),
    schedule: { kind: 'constant', learningRate, warmupSteps: 50 },
  });
  using rollout = new RolloutEngine(model, { precision: 'fp32' });
  let progress: TeachProgress = { step: 0, loss: Number.NaN, accuracy: 0 };
  for (let step = 0; step < maxSteps && !signal?.aborted; step++) {
    const batch = Array.from({ length: batchSize }, (_, i): TokenSequence => {
      const index = step * batchSize + i;
      const prompt = task.problem(seed, index);
      return { prompt, response: task.solution(prompt, new CounterRandom(seed, SOLUTION_STREAM, index)) };
    });
    const tokens = batch.reduce((sum, { response }) => sum + response.length, 0);
    const { loss } = await training.step(batch, ({ logprobs }) => crossEntropy(logprobs, tokens));
    if ((step + 1) % STEPS_BETWEEN_EVALUATIONS !== 0) continue;
    rollout.syncWeights();
    progress = { step: step + 1, loss, accuracy: await sampledAccuracy(rollout, task, seed) };
    report?.(progress);
    if (progress.accuracy >= target) break;
  }
  return progress;
}

/** Mean of -log p over `tokens` tokens, of which these are some. */
function crossEntropy(logprobs: Float64Array, tokens: number): TokenLoss {
  let loss = 0;
  for (const logprob of logprobs) loss -= logprob / tokens;
  return { loss, gradient: new Float64Array(logprobs.length).fill(-1 / tokens), metrics: {} };
}

async function sampledAccuracy(rollout: RolloutEngine, task: Task, seed: number): Promise<number> {
  const prompts = Array.from({ length: EVALUATED_PROBLEMS }, (_, i) =>
    task.problem(seed, EVALUATION_PROBLEMS + i),
  );
  const draws = prompts.map((_, prompt) => ({ prompt, promptId: prompt, sampleId: 0 }));
  const { rewards } = await sampleJudged(rollout, taskEnvironment(task, prompts), draws, seed);
  return rewards.filter((reward) => reward === 1).length / prompts.length;
}
