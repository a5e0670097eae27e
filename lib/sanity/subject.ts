import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { RunDirectory } from '../io/runDirectory.js';
import { Decoder } from '../models/decoder.js';
import { createTask } from '../tasks/index.js';
import { loadWeights } from '../training/checkpoint.js';
import { type Base, type PrepareOptions, prepareBase } from './base.js';
import { type BaseConfig, baseConfigOf, decoderConfig } from './baseConfig.js';
import { resolveSanityOptions } from './config.js';
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
  const directory = await RunDirectory.open(source.run);
  const { command, config: stored } = directory.config;
  if (command !== 'sanity' || typeof stored !== 'object' || stored === null) {
    throw new InvalidArgumentError(
      `[subject] expected the folder of a sanity run, got one of ${JSON.stringify(command)}: ${source.run}`,
    );
  }
  const config = baseConfigOf(resolveSanityOptions(stored));
  const checkpoint = await directory.latestCheckpoint();
  if (checkpoint === undefined) {
    throw new InvalidArgumentError(`[subject] expected a run with a checkpoint, got none in ${source.run}`);
  }
  const set = await readSet(source.run);
  const model = new Decoder(decoderConfig(config), { seed: config.baseSeed });
  try {
    await loadWeights(join(checkpoint.path, 'model.safetensors'), model);
  } catch (error) {
    model.dispose();
    throw error;
  }
  return { config, model, task: createTask(config.task), set, step: checkpoint.step };
}

/** The prompts of a subject's perfectible set. */
export function subjectPrompts({ task, config, set }: Base): Int32Array[] {
  return set.indices.map((index) => task.problem(config.baseSeed, index));
}
