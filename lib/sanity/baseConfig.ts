import { checkInteger, checkNumber, invalid } from '../errors.js';
import type { DecoderConfig } from '../models/config.js';
import { createTask } from '../tasks/index.js';
import { type FilterOptions, filterKeys, resolveFilterOptions } from './filterConfig.js';

/** What a base can be asked for; everything is optional. */
export interface BaseOptions extends FilterOptions {
  /** A spec of createTask; default `sort:16:10`. */
  readonly task?: string;
  /** Of the model's weights, the problems, the teaching and the selection; default 1. */
  readonly baseSeed?: number;
  /** Width of the model; default 64. */
  readonly hiddenSize?: number;
  /** Depth of the model; default 4. */
  readonly numLayers?: number;
  /** Experts of each layer, of which a token goes to two that are half as wide as a dense block; default 0, a dense model. */
  readonly numExperts?: number;
  /** Sampled accuracy at which supervised learning stops; default 0.55. */
  readonly baseAccuracy?: number;
  /** Most steps of supervised learning; default 4000. */
  readonly teachSteps?: number;
  /** Problems tried for the perfectible set; default 400. */
  readonly candidates?: number;
}

/** A dense base has no `numExperts`, as bases of before there were others. */
export type BaseConfig = Required<Omit<BaseOptions, 'numExperts'>> & Pick<BaseOptions, 'numExperts'>;

const EXPERTS_PER_TOKEN = 2;

/** Every option of a base. */
export const baseKeys = [
  'task',
  'baseSeed',
  'hiddenSize',
  'numLayers',
  'numExperts',
  'baseAccuracy',
  'teachSteps',
  'candidates',
  ...filterKeys,
] as const satisfies readonly (keyof BaseOptions)[];

/**
 * Fills in the defaults and checks everything; other properties are left out.
 *
 * @throws InvalidArgumentError naming the option
 */
export function resolveBaseOptions(where: string, options: BaseOptions = {}): BaseConfig {
  const task = createTask(options.task ?? 'sort:16:10').name;
  const hiddenSize = checkInteger(where, 'hiddenSize', options.hiddenSize ?? 64, 32, 65536);
  if (hiddenSize % 32 !== 0)
    invalid(where, 'hiddenSize to be a multiple of 32, the size of a head', hiddenSize);
  const numExperts = checkInteger(where, 'numExperts', options.numExperts ?? 0, 0, 1024);
  if (numExperts !== 0 && numExperts <= EXPERTS_PER_TOKEN)
    invalid(where, `numExperts to be 0 or above ${EXPERTS_PER_TOKEN}`, numExperts);
  const filter = resolveFilterOptions(where, options);
  return {
    task,
    baseSeed: checkInteger(where, 'baseSeed', options.baseSeed ?? 1, 0, 2 ** 31 - 1),
    hiddenSize,
    numLayers: checkInteger(where, 'numLayers', options.numLayers ?? 4, 1, 1024),
    ...(numExperts > 0 && { numExperts }),
    baseAccuracy: checkNumber(where, 'baseAccuracy', options.baseAccuracy ?? 0.55, 0, 1),
    teachSteps: checkInteger(where, 'teachSteps', options.teachSteps ?? 4000, 1, 1e7),
    candidates: checkInteger(where, 'candidates', options.candidates ?? 400, 1, 1e6),
    ...filter,
  };
}

/** The part of a configuration that makes its base. */
export function baseConfigOf(config: BaseConfig): BaseConfig {
  const keys = baseKeys.filter((key) => config[key] !== undefined);
  return Object.fromEntries(keys.map((key) => [key, config[key]])) as unknown as BaseConfig;
}

/**
 * The decoder of a base: heads of 32, a feed-forward block of three times the width, or experts of half of that, a head of its
 * own.
 */
export function decoderConfig({ task, hiddenSize, numLayers, numExperts }: BaseConfig): DecoderConfig {
  const { vocabSize, promptLength, responseLength } = createTask(task);
  return {
    vocabSize,
    hiddenSize,
    intermediateSize: (3 * hiddenSize) / (numExperts === undefined ? 1 : EXPERTS_PER_TOKEN),
    numLayers,
    numHeads: hiddenSize / 32,
    maxPositionEmbeddings: promptLength + responseLength,
    ropeTheta: 1000,
    ...(numExperts !== undefined && { numExperts, numExpertsPerToken: EXPERTS_PER_TOKEN }),
  };
}
