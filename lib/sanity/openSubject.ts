import { InvalidArgumentError } from '../errors.js';
import { type Checkpoint, RunDirectory } from '../io/runDirectory.js';
import type { ModelSource, PromptSource } from '../rl/modelSource.js';
import { prepareBase, reopenBase } from './base.js';
import type { BaseConfig } from './baseConfig.js';
import {
  resolveSanityOptions,
  type SanityConfig,
  type SanityOptions,
  type SourceSanityOptions,
} from './config.js';
import { readSet } from './setFile.js';
import { openSource, reopenSource } from './source.js';
import type { PrepareOptions, Start, Subject } from './subject.js';

/** The model that an instrument measures: the newest weights of a sanity run, a taught base, or a checkpoint. */
export type SubjectSource =
  | { readonly run: string }
  | { readonly base: BaseConfig }
  | { readonly source: ModelSource | PromptSource };

/** A subject with the RL steps behind its weights: 0 for one that no run has trained. */
export type OpenedSubject = Subject & { readonly step: number };

/**
 * Opens the model to measure; the caller disposes of it.
 *
 * @returns null where the signal ended the making of a base
 * @throws InvalidArgumentError when the folder has no sanity run, or none with a checkpoint; as `openModelSource` and
 *   `loadModel` do
 */
export async function openSubject(
  source: SubjectSource,
  options: PrepareOptions = {},
): Promise<OpenedSubject | null> {
  if ('base' in source) {
    const base = await prepareBase(source.base, options);
    return base && { ...base, step: 0 };
  }
  if ('source' in source) return { ...(await openSource(source.source, options.report)), step: 0 };
  const { config, checkpoint } = await readSubjectRun(source.run);
  const subject = await reopen(config, source.run, checkpoint.path);
  return { ...subject, step: checkpoint.step };
}

/** What the run in a folder started from, with the weights of one of its checkpoints. */
export async function reopen(config: SanityConfig, run: string, weights: string): Promise<Start> {
  return 'source' in config
    ? reopenSource(config, run, weights)
    : reopenBase(config, await readSet(run), weights);
}

/**
 * What a run says of its model; also a check, before a folder is made for what is measured.
 *
 * @throws InvalidArgumentError when the folder has no sanity run, or none with a checkpoint and a set
 */
export async function readSubjectRun(
  run: string,
): Promise<{ readonly config: SanityConfig; readonly checkpoint: Checkpoint }> {
  const directory = await RunDirectory.open(run);
  const { command, config: stored } = directory.config;
  if (command !== 'sanity' || typeof stored !== 'object' || stored === null) {
    throw new InvalidArgumentError(
      `[subject] expected the folder of a sanity run, got one of ${JSON.stringify(command)}: ${run}`,
    );
  }
  const config = resolveSanityOptions(stored as SanityOptions | SourceSanityOptions);
  const checkpoint = await directory.latestCheckpoint();
  if (checkpoint === undefined) {
    throw new InvalidArgumentError(`[subject] expected a run with a checkpoint, got none in ${run}`);
  }
  await readSet(run);
  return { config, checkpoint };
}
