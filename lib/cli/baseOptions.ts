/** The options of a model that is taught. */
import type { Command } from 'commander';
import { type BaseOptions, baseKeys } from '../sanity/baseConfig.js';
import { createTask, taskForms } from '../tasks/index.js';
import { checkedOption, integerOption, numberOption } from './options.js';

/** What the command line gives of a base. */
export interface BaseFlags extends Omit<BaseOptions, 'numLayers' | 'numExperts'> {
  readonly layers?: number;
  /** An option of commands that have a use for mixtures. */
  readonly experts?: number;
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
  const { layers, experts } = flags;
  const options: BaseOptions = {
    ...flags,
    ...(layers !== undefined && { numLayers: layers }),
    ...(experts !== undefined && { numExperts: experts }),
  };
  return Object.fromEntries(
    baseKeys.filter((key) => options[key] !== undefined).map((key) => [key, options[key]]),
  );
}
