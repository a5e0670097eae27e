import { attempt, checkChoice, checkInteger, checkNumber, invalid, throwTogether } from '../errors.js';
import type { AlgorithmParameters } from '../rl/algorithms.js';
import { type EngineOptions, resolveEngineOptions } from '../rl/engineChoices.js';
import { resolveAlgorithmSpec } from '../rl/load.js';
import { type TruncatedMode, truncatedModes } from '../rl/trainer.js';
import { type OverflowMode, overflowModes } from '../training/engine.js';
import { type BaseConfig, type BaseOptions, resolveBaseOptions } from './baseConfig.js';

export const sanitySchedules = ['linear', 'constant'] as const;
export type SanitySchedule = (typeof sanitySchedules)[number];

/** What a sanity run can be asked for; everything is optional. */
export interface SanityOptions extends BaseOptions, EngineOptions {
  /** A preset or the path of a file, see {@link loadAlgorithm}; default `pg-seq-is`. */
  readonly algorithm?: string;
  /** Parameters that differ from the preset's. */
  readonly algorithmParameters?: AlgorithmParameters;
  /** Whether responses that are cut off are trained on (default; their reward is 0) or masked. */
  readonly truncated?: TruncatedMode;
  /** Of the order of problems, sampling and mini-batches, and of the base unless baseSeed says otherwise; default 1. */
  readonly seed?: number;
  /** Most RL steps. */
  readonly steps?: number;
  readonly promptsPerStep?: number;
  readonly groupSize?: number;
  readonly updatesPerStep?: number;
  readonly learningRate?: number;
  readonly warmupSteps?: number;
  /** How the learning rate goes on after the warm-up: `linear` (default) falls to 2 % at the last step. */
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

export type SanityConfig = Required<SanityOptions> & BaseConfig;

/** Training accuracy that passes the test; the paper's. */
export const PASS_ACCURACY = 0.95;

/**
 * Fills in the defaults and checks everything.
 *
 * @throws InvalidArgumentError naming the option, or every one of the base, the engines and the batch that is wrong
 */
export function resolveSanityOptions(options: SanityOptions = {}): SanityConfig {
  const where = 'sanity';
  const seed = checkInteger(where, 'seed', options.seed ?? 1, 0, 2 ** 31 - 1);
  const errors: unknown[] = [];
  const base = attempt(errors, () =>
    resolveBaseOptions(where, { ...options, baseSeed: options.baseSeed ?? seed }),
  );
  const engines = attempt(errors, () => resolveEngineOptions(where, options));
  const batch = attempt(errors, () => resolveBatch(where, options));
  throwTogether(where, errors);
  const stopWhenPassed = options.stopWhenPassed ?? true;
  if (typeof stopWhenPassed !== 'boolean') invalid(where, 'stopWhenPassed to be a boolean', stopWhenPassed);
  return {
    ...base!,
    ...engines!,
    ...batch!,
    algorithm: resolveAlgorithmSpec(where, options.algorithm ?? 'pg-seq-is'),
    algorithmParameters: options.algorithmParameters ?? {},
    truncated: checkChoice(where, 'truncated', options.truncated ?? 'train', truncatedModes),
    seed,
    steps: checkInteger(where, 'steps', options.steps ?? 160, 1, 1e6),
    learningRate: checkNumber(where, 'learningRate', options.learningRate ?? 1e-4, 0),
    warmupSteps: checkInteger(where, 'warmupSteps', options.warmupSteps ?? 5, 0, 1e6),
    schedule: checkChoice(where, 'schedule', options.schedule ?? 'linear', sanitySchedules),
    stopWhenPassed,
    overflow: checkChoice(where, 'overflow', options.overflow ?? 'skip', overflowModes),
    checkpointEvery: checkInteger(where, 'checkpointEvery', options.checkpointEvery ?? 10, 1, 1e6),
    recordEvery: checkInteger(where, 'recordEvery', options.recordEvery ?? 10, 0, 1e6),
  };
}

function resolveBatch(where: string, options: SanityOptions) {
  const promptsPerStep = checkInteger(where, 'promptsPerStep', options.promptsPerStep ?? 32, 1, 65536);
  const groupSize = checkInteger(where, 'groupSize', options.groupSize ?? 8, 2, 65536);
  const responses = promptsPerStep * groupSize;
  const updatesPerStep = checkInteger(where, 'updatesPerStep', options.updatesPerStep ?? 4, 1, responses);
  return { promptsPerStep, groupSize, updatesPerStep };
}
