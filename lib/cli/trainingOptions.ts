/** The options of reinforcement learning that `sanity` and `grid` share; a run's name for each is the flag's own. */
import type { Command } from 'commander';
import type { AlgorithmParameters } from '../rl/algorithms.js';
import type { NumericsMode } from '../rl/engineChoices.js';
import type { TruncatedMode } from '../rl/trainer.js';
import type { SanityOptions, SanitySchedule } from '../sanity/config.js';
import type { OverflowMode } from '../training/engine.js';
import { createLossScaler } from '../training/lossScaler.js';
import { checkedOption, choiceOption, integerOption, numberOption, parameterOption } from './options.js';

const modes = ['default', 'matched'] as const satisfies readonly NumericsMode[];
const schedules = ['linear', 'constant'] as const satisfies readonly SanitySchedule[];

const overflowModes = ['skip', 'retry'] as const satisfies readonly OverflowMode[];
const truncatedModes = ['train', 'mask'] as const satisfies readonly TruncatedMode[];

const names = [
  'numerics',
  'baseSeed',
  'steps',
  'promptsPerStep',
  'groupSize',
  'updatesPerStep',
  'learningRate',
  'warmupSteps',
  'schedule',
  'lossScaler',
  'stopWhenPassed',
  'checkpointEvery',
  'recordEvery',
  'truncated',
  'overflow',
] as const satisfies readonly (keyof SanityOptions)[];

export type TrainingFlags = Pick<SanityOptions, (typeof names)[number]> & {
  readonly set?: AlgorithmParameters;
};

/** Adds the options of how a run trains. */
export function trainingOptions(command: Command): Command {
  return command
    .addOption(choiceOption('--numerics <mode>', 'rounding and reduction choices of the engines', modes))
    .addOption(
      integerOption(
        '--base-seed <n>',
        'seed of the base: weights, problems, teaching (default: the seed of the run)',
        0,
      ),
    )
    .addOption(integerOption('--steps <n>', 'most training steps (default: 160)', 1))
    .addOption(integerOption('--prompts-per-step <n>', 'problems a step (default: 32)', 1))
    .addOption(integerOption('--group-size <n>', 'responses to each problem (default: 8)', 2))
    .addOption(integerOption('--updates-per-step <n>', 'optimizer updates a step (default: 4)', 1))
    .addOption(numberOption('--learning-rate <x>', 'highest learning rate (default: 1e-4)', 0))
    .addOption(
      integerOption('--warmup-steps <n>', 'steps until the learning rate is reached (default: 5)', 0),
    )
    .addOption(choiceOption('--schedule <kind>', 'learning rate after the warm-up', schedules, 'linear'))
    .addOption(
      checkedOption(
        '--loss-scaler <spec>',
        'torch, verl, deepspeed, none or static:N (default: verl where fp16 trains, none elsewhere)',
        createLossScaler,
      ),
    )
    .addOption(
      parameterOption('--set <name=value>', 'a parameter of the algorithm, as JSON; may be repeated'),
    )
    .addOption(choiceOption('--truncated <mode>', 'responses that are cut off', truncatedModes, 'train'))
    .addOption(
      choiceOption('--overflow <mode>', 'a mini-batch whose gradients overflow', overflowModes, 'skip'),
    )
    .addOption(integerOption('--checkpoint-every <n>', 'steps between checkpoints (default: 10)', 1))
    .addOption(
      integerOption('--record-every <n>', 'steps between recordings of log-probs; 0: none (default: 10)', 0),
    );
}

/** The options of a run among flags, those that were given. */
export function trainingOptionsOf(flags: TrainingFlags): SanityOptions {
  return {
    ...Object.fromEntries(
      names.filter((name) => flags[name] !== undefined).map((name) => [name, flags[name]]),
    ),
    ...(flags.set && { algorithmParameters: flags.set }),
  };
}
