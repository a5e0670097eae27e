/** An algorithm as plain data, and its checks. */
import { InvalidArgumentError, nearest } from '../errors.js';
import { type AdvantageOptions, resolveAdvantageOptions } from './advantages.js';
import { type AggregationOptions, aggregations, resolveAggregation } from './aggregation.js';
import { type CorrectionOptions, corrects } from './corrections/correct.js';
import { importanceLevels, importanceRules } from './corrections/importance.js';
import { rejectionLevels, rejectionMeasures } from './corrections/rejection.js';
import { type LossName, losses, lossNames } from './losses/index.js';

export const modes = ['decoupled', 'bypass'] as const;

/**
 * Which policies an algorithm has. `decoupled`: mu sampled, pi_old is recomputed by the training engine, pi learns;
 * corrections are of pi_old / mu, the loss is of pi / pi_old. `bypass`: pi_old is taken to be mu, which saves the pass;
 * the loss is of pi / mu, and so are corrections.
 */
export type Mode = (typeof modes)[number];

export const denominators = ['fixed', 'kept'] as const;

/** Whether rejected tokens still count in the loss's denominators (`fixed`) or leave them (`kept`). */
export type Denominator = (typeof denominators)[number];

/** Everything an algorithm is made of; JSON. What is left out has the loss's default. */
export interface AlgorithmConfig extends AdvantageOptions, AggregationOptions, CorrectionOptions {
  readonly loss: LossName;
  /** Of ppo-clip, gspo and cispo. */
  readonly clipLow?: number;
  readonly clipHigh?: number;
  /** Of ppo-clip. */
  readonly dualClip?: number | null;
  /** Of dppo-tv. */
  readonly deltaLow?: number;
  readonly deltaHigh?: number;
  readonly maxRatio?: number;
  /** Default `decoupled`; `reinforce` has no pi_old and corrects pi / mu in any mode. */
  readonly mode?: Mode;
  /** Default `fixed`. */
  readonly denominator?: Denominator;
}

const common = [
  'loss',
  'baseline',
  'normalizeStd',
  'epsilon',
  'aggregation',
  'constantLength',
  'importance',
  'rejections',
  'vetoBelow',
  'logClamp',
  'mode',
  'denominator',
];

/** The parameters that an algorithm with this loss has. */
export function parameterNames(loss: LossName): readonly string[] {
  return [...common.slice(1), ...losses[loss].options];
}

/**
 * Checks a configuration as a whole.
 *
 * @throws InvalidArgumentError that lists everything that is wrong, contradictions among them
 */
export function checkAlgorithmConfig(where: string, config: AlgorithmConfig): void {
  const problems: string[] = [];
  if (!isRecord(config)) fail(where, [`an algorithm's configuration to be an object, got ${String(config)}`]);
  const choice = (name: string, value: unknown, choices: readonly string[]) => {
    if (value === undefined || choices.includes(value as string)) return true;
    const near = typeof value === 'string' ? nearest(value, choices) : undefined;
    problems.push(
      `${name} to be one of ${choices.join(', ')}, got ${JSON.stringify(value)}` +
        (near === undefined ? '' : ` (did you mean ${near}?)`),
    );
    return false;
  };
  const check = (body: () => unknown) => {
    try {
      body();
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error;
      problems.push(error.message.replace(/^\[[^\]]*\] expected /, ''));
    }
  };
  if (config.loss === undefined || !choice('loss', config.loss, lossNames)) {
    if (config.loss === undefined) problems.push(`loss to be one of ${lossNames.join(', ')}, got undefined`);
    fail(where, problems);
  }
  const entry = losses[config.loss];
  const known = ['loss', ...parameterNames(config.loss)];
  for (const name of Object.keys(config)) choice('each parameter', name, known);
  choice('aggregation', config.aggregation, aggregations);
  // One at a time: a check stops at the first that is wrong.
  const each = (names: readonly (keyof AlgorithmConfig)[], body: (option: object) => unknown) => {
    for (const name of names) {
      if (config[name] !== undefined) check(() => body({ [name]: config[name] }));
    }
  };
  each(['constantLength'], (option) => resolveAggregation(where, option, 'token-mean'));
  each(['baseline', 'normalizeStd', 'epsilon'], (option) => resolveAdvantageOptions(where, option));
  each(entry.options, (option) => entry.check(where, option));
  choice('mode', config.mode, modes);
  choice('denominator', config.denominator, denominators);
  checkCorrection(config, problems, choice);
  fail(where, problems);
}

/** Whether a value is an object with names, as JSON has them. */
export function isRecord(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function fail(where: string, problems: readonly string[]): void {
  const [first, ...others] = [...new Set(problems)];
  if (first === undefined) return;
  const rest = others.map((problem) => `; and ${problem}`).join('');
  throw new InvalidArgumentError(`[${where}] expected ${first}${rest}`);
}

function checkCorrection(
  config: AlgorithmConfig,
  problems: string[],
  choice: (name: string, value: unknown, choices: readonly string[]) => boolean,
): void {
  const { importance, rejections = [], vetoBelow, logClamp, mode = 'decoupled', denominator } = config;
  const positive = (name: string, value: unknown) => {
    if (value == null || (typeof value === 'number' && value > 0 && Number.isFinite(value))) return true;
    problems.push(`${name} to be a finite number above 0 or null, got ${String(value)}`);
    return false;
  };
  const bounds = (name: string, low: number | null | undefined, high: number | null | undefined) => {
    const both = [positive(`${name}.low`, low), positive(`${name}.high`, high)].every(Boolean);
    if (both && low != null && high != null && low >= high) {
      problems.push(`${name}.low to be below ${name}.high = ${high}, got ${low}`);
    }
    return both;
  };
  positive('logClamp', logClamp);
  if (importance != null && !isRecord(importance)) {
    problems.push(`importance to be an object or null, got ${String(importance)}`);
  } else if (importance != null) {
    const { level, rule = 'plain', low, high, batchNormalize } = importance;
    names('importance', importance, ['level', 'rule', 'low', 'high', 'batchNormalize'], choice);
    if (level === undefined) problems.push('importance.level to be token or sequence, got undefined');
    choice('importance.level', level, importanceLevels);
    choice('importance.rule', rule, importanceRules);
    bounds('importance', low, high);
    if (rule === 'plain' && (low != null || high != null)) {
      problems.push('importance without low and high where its rule is plain, or rule truncate or mask');
    }
    if (rule === 'truncate' && high == null)
      problems.push('importance.high where its rule is truncate, got none');
    if (rule === 'mask' && low == null && high == null) {
      problems.push('importance.low or importance.high where its rule is mask, got neither');
    }
    excludesOne('importance', rule === 'mask', low, high, problems);
    if (batchNormalize !== undefined && typeof batchNormalize !== 'boolean') {
      problems.push(`importance.batchNormalize to be a boolean, got ${String(batchNormalize)}`);
    }
    if (mode === 'bypass' && losses[config.loss].needsOld) {
      problems.push(
        `importance null in mode bypass, where the ratio of ${config.loss} is pi / mu already and a weight would count it twice`,
      );
    }
  }
  if (!Array.isArray(rejections)) problems.push(`rejections to be an array, got ${String(rejections)}`);
  else {
    rejections.forEach((rejection, i) => {
      const name = `rejections[${i}]`;
      if (!isRecord(rejection)) {
        problems.push(`${name} to be an object, got ${String(rejection)}`);
        return;
      }
      names(name, rejection, ['level', 'measure', 'low', 'high'], choice);
      for (const [key, choices] of [
        ['level', rejectionLevels],
        ['measure', rejectionMeasures],
      ] as const) {
        if (rejection[key] === undefined)
          problems.push(`${name}.${key} to be one of ${choices.join(', ')}, got none`);
        if (key === 'measure' && (rejection[key] as string) === 'k1') {
          problems.push(`${name}.measure ratio for k1, with bounds of r itself, got k1`);
        } else choice(`${name}.${key}`, rejection[key], choices);
      }
      bounds(name, rejection.low, rejection.high);
      if (rejection.measure === 'ratio') excludesOne(name, true, rejection.low, rejection.high, problems);
      else if (rejection.low != null)
        problems.push(`${name}.low with measure ratio alone, got ${rejection.low}`);
      if (rejection.low == null && rejection.high == null) {
        problems.push(`${name}.low or ${name}.high, got neither`);
      }
      // The lower bound of a greatest ratio would pass a response with one good token: vetoBelow looks at the least.
      if (rejection.level === 'sequence-max' && rejection.measure === 'ratio' && rejection.low != null) {
        problems.push(
          `${name} at level sequence-max without low (vetoBelow bounds the least ratio), got ${rejection.low}`,
        );
      }
    });
  }
  if (positive('vetoBelow', vetoBelow) && vetoBelow != null && vetoBelow >= 1) {
    problems.push(`vetoBelow below 1, got ${vetoBelow}: it would veto what the policies agree on`);
  }
  if (denominator === 'kept' && !corrects(config)) {
    problems.push('denominator fixed where nothing is rejected, got kept');
  }
}

/** Bounds that leave out a ratio of 1 reject everything where the policies agree. */
function excludesOne(
  name: string,
  rejecting: boolean,
  low: number | null | undefined,
  high: number | null | undefined,
  problems: string[],
): void {
  if (typeof high === 'number' && high < 1) {
    problems.push(`${name}.high of at least 1, the ratio of policies that agree, got ${high}`);
  }
  if (rejecting && typeof low === 'number' && low > 1) {
    problems.push(`${name}.low of at most 1, the ratio of policies that agree, got ${low}`);
  }
}

function names(
  name: string,
  value: object,
  known: readonly string[],
  choice: (name: string, value: unknown, choices: readonly string[]) => boolean,
): void {
  for (const key of Object.keys(value)) choice(`each name of ${name}`, key, known);
}
