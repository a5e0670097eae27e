/** A checkpoint and a data set, as runs and instruments are told of them. */
import { resolve } from 'node:path';
import { promptTemplates } from '../data/promptTemplates.js';
import { attempt, checkChoice, checkInteger, invalid, throwTogether } from '../errors.js';
import { type OverlongPrompts, overlongPromptModes } from './overlongPrompts.js';
import { resolveVerifierSpec } from './verifier.js';

/** A data set and the columns that are read of it. */
export interface DataOptions {
  /** A file or folder: JSON lines, Parquet, Arrow; see `openDataset`. */
  readonly data: string;
  /** Part of a folder with several: `train`, `test`. */
  readonly split?: string;
  readonly promptColumn?: string;
  readonly answerColumn?: string;
  readonly idColumn?: string;
  /** How many problems to take, drawn by `dataSeed`; default all. */
  readonly count?: number;
  /** Default 0. */
  readonly dataSeed?: number;
  /** A name or a file, see `loadVerifier`; default `math`. */
  readonly verifier?: string;
}

export interface ModelSourceOptions extends DataOptions {
  /** The folder of a model in Hugging Face's layout. */
  readonly model: string;
  /** A prompt template; default `chat-math`, the model's own chat template and a line that asks for a box. */
  readonly template?: string;
  /** Most tokens of a prompt; default 1024, the paper's. */
  readonly maxPromptLength?: number;
  /** What becomes of problems whose prompts are longer; default `error`. */
  readonly overlongPrompts?: OverlongPrompts;
  /** Most new tokens of a response; default 1024. */
  readonly responseLength?: number;
}

type Defaulted =
  | 'template'
  | 'verifier'
  | 'maxPromptLength'
  | 'overlongPrompts'
  | 'responseLength'
  | 'dataSeed';

/** With defaults filled in and paths made absolute, so that a run can be resumed from any folder. */
export type ModelSource = Omit<ModelSourceOptions, Defaulted> & Required<Pick<ModelSourceOptions, Defaulted>>;

/** The same without a verifier, for what needs no rewards; without data the prompts are the built-in `questions`. */
export type PromptSource = Omit<ModelSource, 'data' | 'verifier'> & {
  readonly data?: string;
  readonly verifier?: never;
};

/** Names of all options. */
export const modelSourceKeys: readonly (keyof ModelSourceOptions)[] = [
  'model',
  'data',
  'split',
  'promptColumn',
  'answerColumn',
  'idColumn',
  'count',
  'dataSeed',
  'template',
  'verifier',
  'maxPromptLength',
  'overlongPrompts',
  'responseLength',
];

/**
 * Fills in the defaults and checks everything that needs no file.
 *
 * @throws InvalidArgumentError listing all that is wrong
 */
export function resolveModelSource(where: string, options: ModelSourceOptions): ModelSource {
  const errors: unknown[] = [];
  const text = (name: 'model' | 'data' | 'split' | 'promptColumn' | 'answerColumn' | 'idColumn') =>
    attempt(errors, () => {
      const value: unknown = options[name];
      if (typeof value !== 'string' || value === '') invalid(where, `${name} to be text`, value);
      return value;
    })!;
  const path = (name: 'model' | 'data') => resolve(text(name) ?? '');
  const optional = (name: 'split' | 'promptColumn' | 'answerColumn' | 'idColumn') =>
    options[name] === undefined ? {} : { [name]: text(name) };
  const integer = (
    name: 'maxPromptLength' | 'responseLength' | 'count' | 'dataSeed',
    value: unknown,
    min: number,
  ) => attempt(errors, () => checkInteger(where, name, value, min))!;
  const source: ModelSource = {
    model: path('model'),
    data: path('data'),
    ...optional('split'),
    ...optional('promptColumn'),
    ...optional('answerColumn'),
    ...optional('idColumn'),
    ...(options.count !== undefined && { count: integer('count', options.count, 1) }),
    dataSeed: integer('dataSeed', options.dataSeed ?? 0, 0),
    template: attempt(errors, () =>
      checkChoice(where, 'template', options.template ?? 'chat-math', [...promptTemplates.keys()]),
    )!,
    verifier: attempt(errors, () => resolveVerifierSpec(where, options.verifier ?? 'math'))!,
    maxPromptLength: integer('maxPromptLength', options.maxPromptLength ?? 1024, 1),
    overlongPrompts: attempt(errors, () =>
      checkChoice(where, 'overlongPrompts', options.overlongPrompts ?? 'error', overlongPromptModes),
    )!,
    responseLength: integer('responseLength', options.responseLength ?? 1024, 1),
  };
  throwTogether(where, errors);
  return source;
}

/**
 * The same for prompts whose responses nobody judges.
 *
 * @throws InvalidArgumentError listing all that is wrong
 */
export function resolvePromptSource(
  where: string,
  options: Omit<ModelSourceOptions, 'data' | 'verifier'> & { readonly data?: string },
): PromptSource {
  const {
    data,
    verifier: _,
    ...source
  } = resolveModelSource(where, { ...options, data: options.data ?? '.' });
  return options.data === undefined ? source : { ...source, data };
}
