import { checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';
import type { DecoderConfig } from '../models/config.js';
import { type Numerics, type NumericsPreset, numerics } from '../numerics.js';
import { type AlgorithmName, algorithmNames } from '../rl/algorithms.js';
import { createTask } from '../tasks/index.js';
import { type FloatDType, floatDtypes } from '../tensor/dtype.js';
import { createLossScaler } from '../training/lossScaler.js';

export const numericsModes = ['default', 'matched'] as const;
export type NumericsMode = (typeof numericsModes)[number];

/** What a sanity run can be asked for; everything is optional. */
export interface SanityOptions {
  /** A spec of createTask; default `sort:16:10`. */
  readonly task?: string;
  /** Default fp16. */
  readonly trainingPrecision?: FloatDType;
  /** Default the training precision. */
  readonly rolloutPrecision?: FloatDType;
  /** Default `pg-seq-is`. */
  readonly algorithm?: AlgorithmName;
  /** `matched`: both engines make the same numeric choices and agree to the bit. */
  readonly numerics?: NumericsMode;
  readonly seed?: number;
  /** Most RL steps. */
  readonly steps?: number;
  readonly promptsPerStep?: number;
  readonly groupSize?: number;
  readonly updatesPerStep?: number;
  readonly learningRate?: number;
  readonly warmupSteps?: number;
  /** A spec of createLossScaler; default `verl` in fp16, `none` otherwise. */
  readonly lossScaler?: string;
  /** Width of the model; default 64. */
  readonly hiddenSize?: number;
  /** Depth of the model; default 4. */
  readonly numLayers?: number;
  /** Problems tried for the set. */
  readonly candidates?: number;
  /** Responses that decide whether a problem is in the set; default 40, the paper's. */
  readonly samplesPerProblem?: number;
  /** Supervised learning stops at this sampled accuracy. */
  readonly baseAccuracy?: number;
  /** Steps between checkpoints. */
  readonly checkpointEvery?: number;
}

export type SanityConfig = Required<SanityOptions>;

/** The set keeps problems that the base solves at least and at most this often; the paper's bounds. */
export const SOLVED_AT_LEAST = 0.2;
export const SOLVED_AT_MOST = 0.8;
/** Training accuracy that passes the test; the paper's. */
export const PASS_ACCURACY = 0.95;

/**
 * Fills in the defaults and checks everything.
 *
 * @throws InvalidArgumentError naming the option
 */
export function resolveSanityOptions(options: SanityOptions = {}): SanityConfig {
  const where = 'sanity';
  const task = createTask(options.task ?? 'sort:16:10').name;
  const trainingPrecision = checkChoice(
    where,
    'trainingPrecision',
    options.trainingPrecision ?? 'fp16',
    floatDtypes,
  );
  const rolloutPrecision = checkChoice(
    where,
    'rolloutPrecision',
    options.rolloutPrecision ?? trainingPrecision,
    floatDtypes,
  );
  const mode = checkChoice(where, 'numerics', options.numerics ?? 'default', numericsModes);
  if (mode === 'matched' && rolloutPrecision !== trainingPrecision) {
    invalid(
      where,
      'one precision for both engines with numerics matched',
      `${trainingPrecision} and ${rolloutPrecision}`,
    );
  }
  const promptsPerStep = checkInteger(where, 'promptsPerStep', options.promptsPerStep ?? 32, 1, 65536);
  const groupSize = checkInteger(where, 'groupSize', options.groupSize ?? 8, 2, 65536);
  const hiddenSize = checkInteger(where, 'hiddenSize', options.hiddenSize ?? 64, 32, 65536);
  if (hiddenSize % 32 !== 0)
    invalid(where, 'hiddenSize to be a multiple of 32, the size of a head', hiddenSize);
  const lossScaler = options.lossScaler ?? (trainingPrecision === 'fp16' ? 'verl' : 'none');
  createLossScaler(lossScaler);
  return {
    task,
    trainingPrecision,
    rolloutPrecision,
    algorithm: checkChoice(where, 'algorithm', options.algorithm ?? 'pg-seq-is', algorithmNames),
    numerics: mode,
    seed: checkInteger(where, 'seed', options.seed ?? 1, 0, 2 ** 31 - 1),
    steps: checkInteger(where, 'steps', options.steps ?? 160, 1, 1e6),
    promptsPerStep,
    groupSize,
    updatesPerStep: checkInteger(
      where,
      'updatesPerStep',
      options.updatesPerStep ?? 4,
      1,
      promptsPerStep * groupSize,
    ),
    learningRate: checkNumber(where, 'learningRate', options.learningRate ?? 1e-4, 0),
    warmupSteps: checkInteger(where, 'warmupSteps', options.warmupSteps ?? 5, 0, 1e6),
    lossScaler,
    hiddenSize,
    numLayers: checkInteger(where, 'numLayers', options.numLayers ?? 4, 1, 1024),
    candidates: checkInteger(where, 'candidates', options.candidates ?? 400, 1, 1e6),
    samplesPerProblem: checkInteger(where, 'samplesPerProblem', options.samplesPerProblem ?? 40, 2, 1e4),
    baseAccuracy: checkNumber(where, 'baseAccuracy', options.baseAccuracy ?? 0.55, 0, 1),
    checkpointEvery: checkInteger(where, 'checkpointEvery', options.checkpointEvery ?? 10, 1, 1e6),
  };
}

/** The decoder of a run: heads of 32, a feed-forward block of three times the width, a head of its own. */
export function decoderConfig({ task, hiddenSize, numLayers }: SanityConfig): DecoderConfig {
  const { vocabSize, promptLength, responseLength } = createTask(task);
  return {
    vocabSize,
    hiddenSize,
    intermediateSize: 3 * hiddenSize,
    numLayers,
    numHeads: hiddenSize / 32,
    maxPositionEmbeddings: promptLength + responseLength,
    ropeTheta: 1000,
  };
}

/** The numeric choices of both engines in a mode. */
export function engineNumerics(mode: NumericsMode): { rollout: Numerics; training: Numerics } {
  const preset = (own: NumericsPreset) => numerics(mode === 'matched' ? 'matched' : own);
  return { rollout: preset('rollout'), training: preset('training') };
}
