/** The options of the model that an instrument measures. */
import type { Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import type { ModelSourceOptions } from '../rl/modelSource.js';
import { type BaseOptions, resolveBaseOptions } from '../sanity/baseConfig.js';
import type { SubjectSource } from '../sanity/openSubject.js';
import { type BaseFlags, baseOptions, baseOptionsOf } from './baseOptions.js';
import { type ModelFlags, modelOptions, modelOptionsOf, noteLeftOut } from './modelOptions.js';
import { integerOption, pathOption } from './options.js';

/** What measures a model takes: the newest weights of a run, a base, or a checkpoint. */
export interface SubjectFlags extends BaseFlags, ModelFlags {
  readonly run?: string;
  readonly base?: string;
  readonly prompts?: string;
}

/** The model to measure, as far as the command line says it. */
export interface SubjectOptions {
  readonly run?: string;
  readonly base?: BaseOptions;
  /** Without data or verifier where nobody judges the responses. */
  readonly source?: Omit<ModelSourceOptions, 'data'> & { readonly data?: string; readonly judged: boolean };
}

/** Adds the options that name the model to measure. */
export function subjectOptions(command: Command): Command {
  return baseOptions(
    modelOptions(
      command.addOption(pathOption('--run <dir>', 'measure the newest weights of this sanity run')),
    )
      .addOption(
        pathOption(
          '--prompts <path>',
          'in place of --data: prompts whose responses need no answers to compare with',
        ),
      )
      .addOption(
        pathOption('--base <dir>', 'a folder that keeps the base: taken from there, or made and left there'),
      )
      .addOption(integerOption('--base-seed <n>', 'seed of the base (default: 1)', 0)),
  );
}

/**
 * The model to measure among flags.
 *
 * @throws InvalidArgumentError where two are named, or there are options of another than the one that is
 */
export function subjectOptionsOf(where: string, flags: SubjectFlags): SubjectOptions {
  const { run, base, model, data, prompts } = flags;
  const ofModel = { ...modelOptionsOf(flags), ...(prompts !== undefined && { prompts }) };
  const ofBase = { ...baseOptionsOf(flags), ...(base !== undefined && { base }) };
  if (run !== undefined) {
    refuse(where, { ...ofModel, ...ofBase }, '--run, whose model is measured as it is');
    return { run };
  }
  if (model === undefined) {
    refuse(where, ofModel, 'a taught model: these are options of --model');
    return { base: baseOptionsOf(flags) };
  }
  refuse(where, ofBase, '--model, which is not taught');
  if (prompts !== undefined) {
    const { data: given, verifier, answerColumn } = flags;
    refuse(where, { data: given, verifier, answerColumn }, '--prompts, whose responses nobody judges');
  }
  if (data === undefined && prompts === undefined) {
    const { split, promptColumn, answerColumn, idColumn, count, verifier } = flags;
    refuse(
      where,
      { split, promptColumn, answerColumn, idColumn, count, verifier },
      '--model without --data: the prompts are then built-in questions, whose responses nobody judges',
    );
  }
  const from = data ?? prompts;
  return {
    source: {
      ...modelOptionsOf(flags),
      model,
      ...(from !== undefined && { data: from }),
      judged: data !== undefined,
    },
  };
}

/** Refuses options that were given beside something that they don't go with. */
export function refuse(where: string, options: object, beside: string): void {
  const given = Object.entries(options).flatMap(([name, value]) => (value === undefined ? [] : [name]));
  if (given.length === 0) return;
  const names = given.map((name) => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`);
  throw new InvalidArgumentError(
    `[${where}] expected no ${names.join(', ').replace(/--num-(layers|experts)/g, '--$1')} beside ${beside}`,
  );
}

/**
 * The model to measure, from options whose defaults are not yet filled in.
 *
 * @throws InvalidArgumentError where there is none to measure, or its data is none to measure it on, before a folder is made
 *   for what is measured
 */
export async function resolveSubject(
  where: string,
  { run, base, source }: SubjectOptions,
): Promise<SubjectSource> {
  if (run !== undefined) {
    const { readSubjectRun } = await import('../sanity/openSubject.js');
    await readSubjectRun(run);
    return { run };
  }
  if (source === undefined) return { base: resolveBaseOptions(where, base) };
  const { resolveModelSource, resolvePromptSource } = await import('../rl/modelSource.js');
  const { openModelSource } = await import('../rl/openModelSource.js');
  const { judged, data, ...options } = source;
  const resolved =
    judged && data !== undefined
      ? resolveModelSource(where, { ...options, data })
      : resolvePromptSource(where, { ...options, ...(data !== undefined && { data }) });
  await using opened = await openModelSource(resolved);
  noteLeftOut(opened.problems, resolved.data);
  return { source: resolved };
}
