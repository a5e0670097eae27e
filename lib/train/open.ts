/** What a training run is made of, up to the weights: mistakes show, and the memory is counted, before these are read. */
import { createHash } from 'node:crypto';
import { invalid } from '../errors.js';
import { checkWeights } from '../models/loadModel.js';
import { routesShape } from '../models/routes.js';
import type { LoraConfig } from '../nn/lora.js';
import type { Algorithm } from '../rl/batch.js';
import { engineNumerics } from '../rl/engineChoices.js';
import { loadAlgorithm } from '../rl/load.js';
import { estimateMemory, type MemoryEstimate } from '../rl/memory.js';
import { type OpenedSource, openModelSource, openProblems } from '../rl/openModelSource.js';
import type { ProblemSet } from '../rl/problemSet.js';
import { defaultMaxBatch } from '../rollout/engine.js';
import type { LoraTrainConfig, TrainConfig } from './config.js';
import { WHERE } from './section.js';

export interface OpenedTraining extends AsyncDisposable {
  readonly source: OpenedSource;
  readonly evaluation: ProblemSet | null;
  readonly algorithm: Algorithm;
  /** Longest prompt, of training and evaluation. */
  readonly longestPrompt: number;
  /** Longest prompt and response together: the context that engines need. */
  readonly maxLength: number;
  /** Sequences decoded at once. */
  readonly maxBatch: number;
  readonly memory: MemoryEstimate;
}

/**
 * Reads a model's small files and its weights' headers, the problems and the algorithm.
 *
 * @throws InvalidArgumentError as `openModelSource`, `openProblems`, `loadAlgorithm` and `loadModel` do, and where evaluated
 *   prompts and responses are longer than the model's context
 */
export async function openTraining(config: TrainConfig): Promise<OpenedTraining> {
  // Constant-length norms divide by the longest response there can be, as the paper does with its 8192.
  const defaults = { constantLength: config.responseLength };
  const algorithm = await loadAlgorithm(config.algorithm, config.algorithmParameters, defaults);
  const source = await openModelSource(config);
  let evaluation: ProblemSet | null = null;
  const close = async () => {
    await source[Symbol.asyncDispose]();
    await evaluation?.[Symbol.asyncDispose]();
  };
  try {
    const { decoder } = source.text.config;
    if (config.routerReplay !== 'none' && routesShape(decoder) === null) {
      invalid(WHERE, `routerReplay none for ${config.model}, a dense model`, config.routerReplay);
    }
    await checkWeights(config.model, decoder);
    if (config.evaluation) evaluation = await openProblems(source.text, config.evaluation);
    const evaluated = evaluation === null ? 0 : longest(evaluation) + evaluation.responseLength;
    if (evaluated > decoder.maxPositionEmbeddings) {
      const what = `the longest evaluated prompt and evaluation.responseLength = ${config.evaluation?.responseLength}`;
      invalid(
        WHERE,
        `${what} to be within the model's context of ${decoder.maxPositionEmbeddings} tokens`,
        evaluated,
      );
    }
    const maxLength = Math.max(source.maxLength, evaluated);
    const longestPrompt = Math.max(longest(source.problems), evaluation === null ? 0 : longest(evaluation));
    const { trainingPrecision, rolloutPrecision, numerics, batch, rollout } = config;
    const maxBatch = rollout.maxBatch ?? defaultMaxBatch(decoder, maxLength, rolloutPrecision);
    const memory = estimateMemory(
      { ...decoder, maxPositionEmbeddings: maxLength },
      {
        trainingPrecision,
        rolloutPrecision,
        rolloutNumerics: engineNumerics(numerics).rollout,
        microBatchTokens: batch.microBatchTokens,
        recompute: batch.recompute,
        ...(config.lora && { lora: adapterOf(config.lora), loraMode: config.lora.rollout }),
        ...rollout,
        maxBatch,
        maxLength,
        maxPromptLength: longestPrompt,
      },
    );
    return {
      source,
      evaluation,
      algorithm,
      longestPrompt,
      maxLength,
      maxBatch,
      memory,
      [Symbol.asyncDispose]: close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** What an adapter is, whatever the rollout engine makes of it. */
export function adapterOf({ rank, alpha, targets }: LoraTrainConfig): LoraConfig {
  return { rank, alpha, ...(targets && { targets }) };
}

function longest({ prompts }: ProblemSet): number {
  return prompts.reduce((most, { length }) => Math.max(most, length), 0);
}

/** Changes with whatever of the problems a run depends on: prompts, answers, their order, and the verifier. */
export function problemsDigest({ prompts, problems, verifierVersion }: ProblemSet): string {
  const hash = createHash('sha256').update(verifierVersion);
  for (const [i, prompt] of prompts.entries()) {
    hash.update(JSON.stringify([[...prompt], problems[i]!.answers]));
  }
  return hash.digest('hex').slice(0, 32);
}
