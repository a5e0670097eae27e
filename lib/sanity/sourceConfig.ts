import { basename } from 'node:path';
import { attempt, checkInteger, InvalidArgumentError, invalid, throwTogether } from '../errors.js';
import {
  type ModelSource,
  type ModelSourceOptions,
  type PromptSource,
  resolveModelSource,
} from '../rl/modelSource.js';
import { checkFloatDtype, type FloatDType } from '../tensor/dtype.js';
import { type BaseConfig, baseKeys } from './baseConfig.js';
import { type FilterConfig, type FilterOptions, filterKeys, resolveFilterOptions } from './filterConfig.js';

/** What a run on a checkpoint and a data set starts from: the model as it is, and the problems that it solves sometimes. */
export interface SourceOptions extends FilterOptions {
  readonly source: ModelSourceOptions;
  /** Of the filter's draws; default 1 whatever the seed of the run, so that runs share a set. */
  readonly baseSeed?: number;
  /** In which the filter samples; default fp32, so that runs of different precisions train on the same set. */
  readonly filterPrecision?: FloatDType;
  /** A folder that keeps the set; remembered, so that a run that is resumed finds the filter's progress. */
  readonly base?: string;
}

export interface SourceConfig extends FilterConfig {
  readonly source: ModelSource;
  readonly baseSeed: number;
  readonly filterPrecision: FloatDType;
  readonly base?: string;
}

/** Options that a taught base has, too. */
const sharedKeys: readonly string[] = ['baseSeed', ...filterKeys];

/**
 * Fills in the defaults and checks everything that needs no file; other properties are left out.
 *
 * @throws InvalidArgumentError listing all that is wrong, options of a taught base among it
 */
export function resolveSourceOptions(where: string, options: SourceOptions): SourceConfig {
  const errors: unknown[] = [];
  const foreign = baseKeys.filter((key) => !sharedKeys.includes(key) && key in options);
  if (foreign.length > 0) {
    errors.push(new InvalidArgumentError(`[${where}] expected no ${foreign.join(', ')} beside a model`));
  }
  const source = attempt(errors, () => resolveModelSource(where, options.source));
  const filter = attempt(errors, () => resolveFilterOptions(where, options));
  const baseSeed = attempt(errors, () =>
    checkInteger(where, 'baseSeed', options.baseSeed ?? 1, 0, 2 ** 31 - 1),
  );
  const filterPrecision = attempt(errors, () =>
    checkFloatDtype(where, 'filterPrecision', options.filterPrecision ?? 'fp32'),
  );
  const { base } = options;
  if (base !== undefined && typeof base !== 'string') {
    attempt(errors, () => invalid(where, 'base to be a path', base));
  }
  throwTogether(where, errors);
  return {
    source: source!,
    ...filter!,
    baseSeed: baseSeed!,
    filterPrecision: filterPrecision!,
    ...(base !== undefined && { base }),
  };
}

/** What records and charts call a model with its data: `Qwen2.5-Math-1.5B on math_1460`. */
export function sourceName({ model, data, split }: ModelSource | PromptSource): string {
  const name = (path: string) => basename(path).replace(/\.(jsonl?|parquet|arrow)$/, '');
  const on = data === undefined ? 'built-in questions' : `${name(data)}${split ? `/${split}` : ''}`;
  return `${basename(model)} on ${on}`;
}

/** What records and charts call the problems of a run: a task's spec, or a model and its data set. */
export function taskName(config: BaseConfig | SourceConfig): string {
  return 'source' in config ? sourceName(config.source) : config.task;
}
