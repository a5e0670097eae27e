/** The perfectible set of a checkpoint and a data set: filtered once, kept in a folder, shared by the runs that ask for the same. */
import { createHash } from 'node:crypto';
import { basename, join } from 'node:path';
import { InvalidArgumentError, throwTogether } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { exists, makeWritableFolder } from '../io/folder.js';
import { readJsonObject } from '../io/jsonFile.js';
import { PointLog } from '../io/pointLog.js';
import type { Decoder } from '../models/decoder.js';
import { digestModel, digestText } from '../models/modelDigest.js';
import type { OpenedSource } from '../rl/openModelSource.js';
import { filterProblems } from './filter.js';
import { boundsText } from './filterConfig.js';
import { SET_FILE } from './setFile.js';
import type { SourceConfig } from './sourceConfig.js';
import type { PrepareOptions } from './subject.js';

/** How often each problem was solved, some problems a line, while the filter goes on. */
const LOG_FILE = 'filter.jsonl';
/** Problems that are sampled for together: few enough to lose little by a kill, enough responses to fill a batch. */
const PROBLEMS_AT_ONCE = 8;

/** Everything that makes a set; where one of these differs, so may the set. */
export interface SetOrigin {
  /** Of all files of the model's folder that bear on what it says; null where that is not looked at. */
  readonly model: string | null;
  /** Of the problems: ids, prompts and answers. */
  readonly data: string;
  readonly template: string;
  /** The verifier with its version. */
  readonly verifier: string;
  readonly responseLength: number;
  readonly samplesPerProblem: number;
  readonly solvedAtLeast: number;
  readonly solvedAtMost: number;
  readonly baseSeed: number;
  readonly filterPrecision: string;
}

/** `set.json` of a run on a checkpoint. */
export interface ProblemSelection {
  readonly origin: SetOrigin;
  /** For the reader: the folders, by name. */
  readonly modelName: string;
  readonly dataName: string;
  /** Places of the problems kept, from 0, in the data set as it was read. */
  readonly indices: readonly number[];
  /** The same problems by id, with the share of responses that were right. */
  readonly problems: readonly { readonly id: string; readonly solveRate: number }[];
  readonly tried: number;
  readonly accuracy: number;
}

/**
 * The set that a folder keeps, or that the filter makes and leaves there. A filter that was stopped, or killed, goes on from
 * the last problems that it finished, to the same set.
 *
 * @param load reads the weights; called where there is something to sample
 * @returns null where the signal ended the filter before it was done
 * @throws InvalidArgumentError where the folder's set was made otherwise, naming all that differs, or no problem qualifies
 */
export async function selectProblems(
  config: SourceConfig,
  opened: OpenedSource,
  load: () => Promise<Decoder>,
  options: PrepareOptions & { readonly directory: string },
): Promise<ProblemSelection | null> {
  const { directory, signal, report } = options;
  const { problems } = opened;
  const origin = originOf(config, opened, await digestModel(config.source.model));
  if (await exists(join(directory, SET_FILE))) {
    const kept = await readSelection(directory);
    checkOrigin(join(directory, SET_FILE), kept.origin, origin);
    return kept;
  }
  await makeWritableFolder('sanity', 'base', directory);
  const log = await PointLog.open<SetOrigin | readonly number[]>(join(directory, LOG_FILE));
  checkOrigin(log.path, (await log.measured('origin', async () => origin)) as SetOrigin, origin);
  const candidates = problems.prompts.length;
  const { indices, solved, tried, accuracy } = await filterProblems(await load(), problems, {
    ...config,
    seed: config.baseSeed,
    precision: config.filterPrecision,
    problemsAtOnce: PROBLEMS_AT_ONCE,
    log: log as PointLog<readonly number[]>,
    signal,
    report: (progress) => report?.({ kind: 'select', ...progress, candidates }),
  });
  if (tried < candidates) return null;
  if (indices.length === 0) {
    throw new InvalidArgumentError(
      `[sanity] expected some of ${tried} problems to be solved ${boundsText(config)} of the time, got none (the model is ` +
        `right ${(100 * accuracy).toFixed(1)} % of the time); ${LOG_FILE} in ${directory} has how often each was solved`,
    );
  }
  const selection: ProblemSelection = {
    origin,
    modelName: basename(config.source.model),
    dataName: basename(config.source.data),
    indices,
    problems: indices.map((index) => ({
      id: problems.problems[index]!.id,
      solveRate: solved[index]! / config.samplesPerProblem,
    })),
    tried,
    accuracy,
  };
  await writeSelection(directory, selection);
  return selection;
}

export async function writeSelection(directory: string, selection: ProblemSelection): Promise<void> {
  await atomicWriteFile(join(directory, SET_FILE), `${JSON.stringify(selection)}\n`);
}

/**
 * The set of a run that has begun. Its weights are those of its checkpoints, so that the model's own are not looked at.
 *
 * @throws InvalidArgumentError where data, template or verifier are no longer those that the set was made with
 */
export async function readSelectionOf(
  config: SourceConfig,
  opened: OpenedSource,
  directory: string,
): Promise<ProblemSelection> {
  const kept = await readSelection(directory);
  checkOrigin(join(directory, SET_FILE), { ...kept.origin, model: null }, originOf(config, opened, null));
  return kept;
}

/** @throws InvalidArgumentError where the folder's set is none of a checkpoint */
async function readSelection(directory: string): Promise<ProblemSelection> {
  const path = join(directory, SET_FILE);
  const file = (await readJsonObject('sanity', path)) as unknown as ProblemSelection;
  if (typeof file.origin !== 'object' || !Array.isArray(file.indices)) {
    throw new InvalidArgumentError(
      `[sanity] expected ${path} to be the set of a checkpoint and a data set, got another`,
    );
  }
  return file;
}

function originOf(config: SourceConfig, { problems }: OpenedSource, model: string | null): SetOrigin {
  const hash = createHash('sha256');
  for (const { id, prompt, answers } of problems.problems) {
    hash.update(`${JSON.stringify([id, prompt, answers])}\n`);
  }
  return {
    model,
    data: digestText(hash.digest('hex')),
    template: config.source.template,
    verifier: problems.verifierVersion,
    responseLength: config.source.responseLength,
    samplesPerProblem: config.samplesPerProblem,
    solvedAtLeast: config.solvedAtLeast,
    solvedAtMost: config.solvedAtMost,
    baseSeed: config.baseSeed,
    filterPrecision: config.filterPrecision,
  };
}

function checkOrigin(path: string, kept: SetOrigin, wanted: SetOrigin): void {
  const errors = Object.entries(wanted).flatMap(([key, value]) => {
    const other = (kept as unknown as Record<string, unknown>)[key];
    return other === value ? [] : [`${key} = ${value}, got ${String(other)}`];
  });
  throwTogether(
    'sanity',
    errors.map((text) => new InvalidArgumentError(`[sanity] expected ${path} to be made with ${text}`)),
  );
}
