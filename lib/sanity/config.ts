import { attempt, checkChoice, checkInteger, checkNumber, invalid, throwTogether } from '../errors.js';
import type { AlgorithmParameters } from '../rl/algorithms.js';
import { type EngineOptions, resolveEngineOptions } from '../rl/engineChoices.js';
import { resolveAlgorithmSpec } from '../rl/load.js';
import { type TruncatedMode, truncatedModes } from '../rl/trainer.js';
import { createTask } from '../tasks/index.js';
import { type OverflowMode, overflowModes } from '../training/engine.js';
import { type BaseConfig, type BaseOptions, resolveBaseOptions } from './baseConfig.js';
import { resolveSourceOptions, type SourceConfig, type SourceOptions } from './sourceConfig.js';

export const sanitySchedules = ['linear', 'constant'] as const;
export type SanitySchedule = (typeof sanitySchedules)[number];

/** How a sanity run trains; everything is optional. Defaults depend on what it starts from: see {@link taskDefaults}. */
export interface RunSettings extends EngineOptions {
  /** A preset or the path of a file, see {@link loadAlgorithm}; default `pg-seq-is`. */
  readonly algorithm?: string;
  /** Parameters that differ from the preset's. */
  readonly algorithmParameters?: AlgorithmParameters;
  /** Whether responses that are cut off are trained on (default; their reward is 0) or masked. */
  readonly truncated?: TruncatedMode;
  /** Of the order of problems, sampling and mini-batches, and of a taught base unless baseSeed says otherwise; default 1. */
  readonly seed?: number;
  /** Most RL steps. */
  readonly steps?: number;
  readonly promptsPerStep?: number;
  readonly groupSize?: number;
  readonly updatesPerStep?: number;
  readonly learningRate?: number;
  readonly warmupSteps?: number;
  /** How the learning rate goes on after the warm-up: `linear` falls to 2 % at the last step. */
  readonly schedule?: SanitySchedule;
  /** Ends the run as soon as it has passed (default); otherwise it goes on to its last step. */
  readonly stopWhenPassed?: boolean;
  /** What becomes of a mini-batch whose gradients overflow; default `skip`. */
  readonly overflow?: OverflowMode;
  /** Steps between checkpoints. */
  readonly checkpointEvery?: number;
  /** Steps between recordings of all log-probs, which `simulate` reads; default 10, 0 for none. */
  readonly recordEvery?: number;
}

/** What a sanity run on a built-in task can be asked for. */
export interface SanityOptions extends BaseOptions, RunSettings {}
/** What a sanity run on a checkpoint and a data set can be asked for. */
export interface SourceSanityOptions extends SourceOptions, RunSettings {}

export type TaskSanityConfig = Required<RunSettings> & BaseConfig;
export type SourceSanityConfig = Required<RunSettings> & SourceConfig;
export type SanityConfig = TaskSanityConfig | SourceSanityConfig;

/** Of small models that are taught here. */
export const taskDefaults = {
  steps: 160,
  promptsPerStep: 32,
  learningRate: 1e-4,
  warmupSteps: 5,
  schedule: 'linear',
} as const satisfies RunSettings;

/** Of checkpoints: the paper's (paper, sanity test with oat and VeRL), whose curves have some 2,000 steps. */
export const sourceDefaults = {
  steps: 2000,
  promptsPerStep: 64,
  learningRate: 1e-6,
  warmupSteps: 0,
  schedule: 'constant',
} as const satisfies RunSettings;

/** Training accuracy that passes the test; the paper's. */
export const PASS_ACCURACY = 0.95;

/**
 * Fills in the defaults and checks everything.
 *
 * @throws InvalidArgumentError naming the option, or every one of the base, the engines and the batch that is wrong
 */
export function resolveSanityOptions(options?: SanityOptions): TaskSanityConfig;
export function resolveSanityOptions(options: SanityOptions | SourceSanityOptions): SanityConfig;
export function resolveSanityOptions(options: SanityOptions | SourceSanityOptions = {}): SanityConfig {
  const where = 'sanity';
  const seed = checkInteger(where, 'seed', options.seed ?? 1, 0, 2 ** 31 - 1);
  const errors: unknown[] = [];
  const defaults = 'source' in options ? sourceDefaults : taskDefaults;
  const start = attempt<BaseConfig | SourceConfig>(errors, () =>
    'source' in options
      ? resolveSourceOptions(where, options)
      : resolveBaseOptions(where, { ...options, baseSeed: options.baseSeed ?? seed }),
  );
  const engines = attempt(errors, () => resolveEngineOptions(where, options));
  const batch = attempt(errors, () => resolveBatch(where, options, defaults.promptsPerStep));
  throwTogether(where, errors);
  const stopWhenPassed = options.stopWhenPassed ?? true;
  if (typeof stopWhenPassed !== 'boolean') invalid(where, 'stopWhenPassed to be a boolean', stopWhenPassed);
  return {
    ...start!,
    ...engines!,
    ...batch!,
    algorithm: resolveAlgorithmSpec(where, options.algorithm ?? 'pg-seq-is'),
    algorithmParameters: options.algorithmParameters ?? {},
    truncated: checkChoice(where, 'truncated', options.truncated ?? 'train', truncatedModes),
    seed,
    steps: checkInteger(where, 'steps', options.steps ?? defaults.steps, 1, 1e6),
    learningRate: checkNumber(where, 'learningRate', options.learningRate ?? defaults.learningRate, 0),
    warmupSteps: checkInteger(where, 'warmupSteps', options.warmupSteps ?? defaults.warmupSteps, 0, 1e6),
    schedule: checkChoice(where, 'schedule', options.schedule ?? defaults.schedule, sanitySchedules),
    stopWhenPassed,
    overflow: checkChoice(where, 'overflow', options.overflow ?? 'skip', overflowModes),
    checkpointEvery: checkInteger(where, 'checkpointEvery', options.checkpointEvery ?? 10, 1, 1e6),
    recordEvery: checkInteger(where, 'recordEvery', options.recordEvery ?? 10, 0, 1e6),
  };
}

function resolveBatch(where: string, options: RunSettings, prompts: number) {
  const promptsPerStep = checkInteger(where, 'promptsPerStep', options.promptsPerStep ?? prompts, 1, 65536);
  const groupSize = checkInteger(where, 'groupSize', options.groupSize ?? 8, 2, 65536);
  const responses = promptsPerStep * groupSize;
  const updatesPerStep = checkInteger(where, 'updatesPerStep', options.updatesPerStep ?? 4, 1, responses);
  return { promptsPerStep, groupSize, updatesPerStep };
}

/** Most new tokens of a response. */
export function responseLengthOf(config: BaseConfig | SourceConfig): number {
  return 'source' in config ? config.source.responseLength : createTask(config.task).responseLength;
}
