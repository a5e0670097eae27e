import { readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { makeWritableFolder } from '../io/folder.js';
import { Decoder } from '../models/decoder.js';
import { loadModel } from '../models/loadModel.js';
import { saveModel } from '../models/saveModel.js';
import { taskEnvironment } from '../rl/environment.js';
import { createTask } from '../tasks/index.js';
import { type BaseConfig, baseConfigOf, baseKeys, decoderConfig } from './baseConfig.js';
import { boundsText } from './filterConfig.js';
import { buildPerfectibleSet, type PerfectibleSet } from './perfectible.js';
import type { PrepareOptions, Start } from './subject.js';
import { teach } from './supervised.js';

/** A model that was taught until it is partly right at a task, on the problems that it solves sometimes. */
export interface Base extends Start {
  readonly config: BaseConfig;
}

/** Version of a base folder; another one is refused. */
const BASE_FORMAT_VERSION = 2;
const BASE_FILE = 'base.json';

interface BaseFile {
  readonly formatVersion: number;
  readonly config: BaseConfig;
  readonly set: PerfectibleSet;
}

/**
 * The start of every experiment: a model taught by supervised learning until it is partly right, and its perfectible
 * set. A pure function of the configuration, so a folder that keeps one can serve every run that asks for the same.
 *
 * @returns null where the signal ended the work before it was done
 * @throws InvalidArgumentError when the folder has another base, or no problem qualifies
 */
export async function prepareBase(config: BaseConfig, options: PrepareOptions = {}): Promise<Base | null> {
  const own = baseConfigOf(config);
  const { directory } = options;
  if (directory !== undefined) {
    const kept = await readBaseFile(directory);
    if (kept !== undefined) {
      const different = baseKeys.find((key) => kept.config[key] !== own[key]);
      if (different !== undefined) {
        throw new InvalidArgumentError(
          `[base] expected ${directory} to hold a base with ${different} = ${String(own[different])}, got one with ` +
            `${String(kept.config[different])}`,
        );
      }
      return loadBase(directory);
    }
    await makeWritableFolder('base', 'base', directory);
  }
  const base = await makeBase(own, options);
  if (directory !== undefined && base === null) {
    // Made before the teaching, to know that it can be; with anything in it it stays.
    await rmdir(directory).catch(() => {});
  }
  if (base !== null && directory !== undefined) {
    // A making that was killed may have left weights.
    await rm(join(directory, 'model.safetensors'), { force: true });
    await saveModel(directory, base.model, { dtype: 'fp32' });
    // Last: a folder that has it has everything.
    const file: BaseFile = { formatVersion: BASE_FORMAT_VERSION, config: own, set: base.set };
    await atomicWriteFile(join(directory, BASE_FILE), `${JSON.stringify(file)}\n`);
  }
  return base;
}

/**
 * The base that a folder keeps.
 *
 * @throws InvalidArgumentError when there is none, or one of another format version
 */
export async function loadBase(directory: string): Promise<Base> {
  const file = await readBaseFile(directory);
  if (file === undefined) {
    throw new InvalidArgumentError(
      `[base] expected the folder of a base, with a ${BASE_FILE}, got ${JSON.stringify(directory)}`,
    );
  }
  return reopenBase(file.config, file.set, directory);
}

/** The base of a configuration and a set, with the weights of a model's folder: its own, or a checkpoint of a run from it. */
export async function reopenBase(config: BaseConfig, set: PerfectibleSet, weights: string): Promise<Base> {
  const { model } = await loadModel(weights);
  return baseOf(baseConfigOf(config), model, set);
}

function baseOf(config: BaseConfig, model: Decoder, set: PerfectibleSet): Base {
  const task = createTask(config.task);
  const prompts = set.indices.map((index) => task.problem(config.baseSeed, index));
  return {
    config,
    model,
    set,
    task: task.name,
    baseSeed: config.baseSeed,
    environment: taskEnvironment(task, prompts),
    judged: true,
    format: (tokens) => task.format(tokens),
    [Symbol.asyncDispose]: async () => model.dispose(),
  };
}

async function makeBase(config: BaseConfig, { signal, report }: PrepareOptions): Promise<Base | null> {
  const task = createTask(config.task);
  const model = new Decoder(decoderConfig(config), { seed: config.baseSeed });
  try {
    const common = { seed: config.baseSeed, ...(signal && { signal }) };
    await teach(model, task, {
      ...common,
      accuracy: config.baseAccuracy,
      maxSteps: config.teachSteps,
      report: (progress) => report?.({ kind: 'teach', ...progress }),
    });
    const set = await buildPerfectibleSet(model, task, {
      ...common,
      candidates: config.candidates,
      samples: config.samplesPerProblem,
      solvedAtLeast: config.solvedAtLeast,
      solvedAtMost: config.solvedAtMost,
      report: (progress) => report?.({ kind: 'select', ...progress, candidates: config.candidates }),
    });
    if (signal?.aborted) {
      model.dispose();
      return null;
    }
    if (set.indices.length === 0) {
      throw new InvalidArgumentError(
        `[sanity] expected some of ${set.tried} problems to be solved ${boundsText(config)} of the time, got none (the base is right ` +
          `${(100 * set.accuracy).toFixed(1)} % of the time); try another baseAccuracy or more candidates`,
      );
    }
    return baseOf(config, model, set);
  } catch (error) {
    model.dispose();
    throw error;
  }
}

async function readBaseFile(directory: string): Promise<BaseFile | undefined> {
  const path = join(directory, BASE_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    throw new InvalidArgumentError(`[base] expected ${path} to be a file that can be read (${code})`, {
      cause: error,
    });
  }
  let file: BaseFile;
  try {
    file = JSON.parse(text);
  } catch (cause) {
    throw new InvalidArgumentError(`[base] expected ${path} to be readable JSON`, { cause });
  }
  if (file?.formatVersion !== BASE_FORMAT_VERSION) {
    throw new InvalidArgumentError(
      `[base] expected ${path} to have format version ${BASE_FORMAT_VERSION}, got ${String(file?.formatVersion)}`,
    );
  }
  return file;
}
