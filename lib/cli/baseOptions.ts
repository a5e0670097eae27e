/** The options of the model that an experiment starts from or measures. */
import type { Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import { type BaseOptions, baseKeys, resolveBaseOptions } from '../sanity/baseConfig.js';
import type { SubjectSource } from '../sanity/subject.js';
import { createTask, taskForms } from '../tasks/index.js';
import { checkedOption, integerOption, numberOption, pathOption } from './options.js';

/** What the command line gives of a base. */
export interface BaseFlags extends Omit<BaseOptions, 'numLayers'> {
  readonly layers?: number;
}

/** Adds the options of a base; its seed is an option of its own only where the command has another seed. */
export function baseOptions(command: Command): Command {
  return command
    .addOption(checkedOption('--task <spec>', `${taskForms.join(', ')} (default: sort:16:10)`, createTask))
    .addOption(integerOption('--hidden-size <n>', 'width of the model (default: 64)', 32))
    .addOption(integerOption('--layers <n>', 'depth of the model (default: 4)', 1))
    .addOption(numberOption('--base-accuracy <x>', 'accuracy at which teaching stops (default: 0.55)', 0, 1))
    .addOption(integerOption('--teach-steps <n>', 'most steps of teaching (default: 4000)', 1))
    .addOption(integerOption('--candidates <n>', 'problems tried for the set (default: 400)', 1))
    .addOption(
      integerOption('--samples-per-problem <n>', 'responses that decide on a problem (default: 40)', 1),
    )
    .addOption(
      numberOption('--solved-at-least <x>', 'keep problems solved this often or more (default: 0.2)', 0, 1),
    )
    .addOption(
      numberOption('--solved-at-most <x>', 'and this often or less (default: 0.8); 0 to 1 keeps all', 0, 1),
    );
}

/** The options of a base among flags, under their own names. */
export function baseOptionsOf(flags: BaseFlags): BaseOptions {
  const options: BaseOptions = { ...flags, ...(flags.layers !== undefined && { numLayers: flags.layers }) };
  return Object.fromEntries(
    baseKeys.filter((key) => options[key] !== undefined).map((key) => [key, options[key]]),
  );
}

/** What measures a model takes: the newest weights of a run, or a base. */
export interface SubjectFlags extends BaseFlags {
  readonly run?: string;
  readonly base?: string;
}

/** Adds the options that name the model to measure. */
export function subjectOptions(command: Command): Command {
  return baseOptions(
    command
      .addOption(pathOption('--run <dir>', 'measure the newest weights of this sanity run'))
      .addOption(
        pathOption('--base <dir>', 'a folder that keeps the base: taken from there, or made and left there'),
      )
      .addOption(integerOption('--base-seed <n>', 'seed of the base (default: 1)', 0)),
  );
}

/** Refuses options of a base beside a run, which brings its own. */
export function checkSubjectFlags(where: string, flags: SubjectFlags): void {
  if (flags.run === undefined) return;
  const beside = [...Object.keys(baseOptionsOf(flags)), ...(flags.base === undefined ? [] : ['base'])];
  if (beside.length > 0) {
    const names = beside.map((name) => `--${name.replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)}`);
    throw new InvalidArgumentError(
      `[${where}] expected no ${names.join(', ').replace('--num-layers', '--layers')} beside --run, whose model is measured as it is`,
    );
  }
}

/**
 * The model to measure, from options whose base is not yet filled in.
 *
 * @throws InvalidArgumentError where the run is none to measure, before a folder is made for what is measured of it
 */
export async function resolveSubject(
  where: string,
  { run, base }: { readonly run?: string; readonly base?: BaseOptions },
): Promise<SubjectSource> {
  if (run === undefined) return { base: resolveBaseOptions(where, base) };
  const { readSubjectRun } = await import('../sanity/subject.js');
  await readSubjectRun(run);
  return { run };
}
