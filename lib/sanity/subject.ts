import { InvalidArgumentError } from '../errors.js';
import { type Checkpoint, RunDirectory } from '../io/runDirectory.js';
import { loadModel } from '../models/loadModel.js';
import type { TokenSequence } from '../models/sequences.js';
import type { Numerics } from '../numerics.js';
import { sampleJudged, taskEnvironment } from '../rl/environment.js';
import { RolloutEngine } from '../rollout/engine.js';
import type { Completion } from '../rollout/generation.js';
import { createTask } from '../tasks/index.js';
import type { FloatDType } from '../tensor/dtype.js';
import { type Base, type PrepareOptions, prepareBase } from './base.js';
import { type BaseConfig, baseConfigOf } from './baseConfig.js';
import { resolveSanityOptions } from './config.js';
import type { PerfectibleSet } from './perfectible.js';
import { readSet } from './run.js';

/** The model that an instrument measures: the newest weights of a sanity run, or a base. */
export type SubjectSource = { readonly run: string } | { readonly base: BaseConfig };

/** A base, or the state of a run, which is a base that has been trained on. */
export interface Subject extends Base {
  /** RL steps behind the weights: 0 for a base. */
  readonly step: number;
}

/**
 * Opens the model to measure; the caller disposes of `model`.
 *
 * @returns null where the signal ended the making of a base
 * @throws InvalidArgumentError when the folder has no sanity run, or none with a checkpoint
 */
export async function openSubject(
  source: SubjectSource,
  options: PrepareOptions = {},
): Promise<Subject | null> {
  if ('base' in source) {
    const base = await prepareBase(source.base, options);
    return base && { ...base, step: 0 };
  }
  const { config, checkpoint, set } = await readSubjectRun(source.run);
  const { model } = await loadModel(checkpoint.path);
  return { config, model, task: createTask(config.task), set, step: checkpoint.step };
}

/**
 * What a run holds of a subject beside its weights; also a check, before a folder is made for what is measured.
 *
 * @throws InvalidArgumentError when the folder has no sanity run, or none with a checkpoint
 */
export async function readSubjectRun(
  run: string,
): Promise<{ config: BaseConfig; checkpoint: Checkpoint; set: PerfectibleSet }> {
  const directory = await RunDirectory.open(run);
  const { command, config: stored } = directory.config;
  if (command !== 'sanity' || typeof stored !== 'object' || stored === null) {
    throw new InvalidArgumentError(
      `[subject] expected the folder of a sanity run, got one of ${JSON.stringify(command)}: ${run}`,
    );
  }
  const config = baseConfigOf(resolveSanityOptions(stored));
  const checkpoint = await directory.latestCheckpoint();
  if (checkpoint === undefined) {
    throw new InvalidArgumentError(`[subject] expected a run with a checkpoint, got none in ${run}`);
  }
  return { config, checkpoint, set: await readSet(run) };
}

/** The prompts of a subject's perfectible set. */
export function subjectPrompts({ task, config, set }: Base): Int32Array[] {
  return set.indices.map((index) => task.problem(config.baseSeed, index));
}

/** What is sampled of a subject: which engine, how many responses, and the draw. */
export interface SampleOptions {
  readonly precision: FloatDType;
  /** Default: the `rollout` preset. */
  readonly numerics?: Numerics;
  readonly count: number;
  /** Responses to a prompt that stand together, as a group; default 1. */
  readonly groupSize?: number;
  readonly seed: number;
}

/** Responses to prompts of the set in turn, with log mu as it was when they were sampled. */
export interface Sample {
  readonly sequences: readonly TokenSequence[];
  readonly completions: readonly Completion[];
  /** [sequences] 1 for a right answer. */
  readonly rewards: Float64Array;
}

/** Samples responses at temperature 1 to the prompts of the subject's set, each as often as the others. */
export async function sampleResponses(base: Base, options: SampleOptions): Promise<Sample> {
  const { model, task } = base;
  const { precision, numerics, count, groupSize = 1, seed } = options;
  using rollout = new RolloutEngine(model, { precision, ...(numerics && { numerics }) });
  const environment = taskEnvironment(task, subjectPrompts(base));
  const { prompts } = environment;
  const draws = Array.from({ length: count }, (_, i) => {
    const group = Math.floor(i / groupSize);
    const prompt = group % prompts.length;
    const round = Math.floor(group / prompts.length);
    return { prompt, promptId: prompt, sampleId: round * groupSize + (i % groupSize) };
  });
  const { completions, rewards } = await sampleJudged(rollout, environment, draws, seed);
  return {
    sequences: completions.map(({ tokens }, i) => ({ prompt: prompts[draws[i]!.prompt]!, response: tokens })),
    completions,
    rewards,
  };
}
