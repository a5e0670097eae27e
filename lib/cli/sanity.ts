import { Command } from 'commander';
import { InvalidArgumentError } from '../errors.js';
import { algorithmNames } from '../rl/algorithms.js';
import type { NumericsMode, SanityConfig, SanityOptions, SanitySchedule } from '../sanity/config.js';
import type { FloatDType } from '../tensor/dtype.js';
import { createLossScaler } from '../training/lossScaler.js';
import { type BaseFlags, baseOptions, baseOptionsOf } from './baseOptions.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { checkedOption, choiceOption, integerOption, numberOption, pathOption } from './options.js';
import { SanityProgress } from './sanityProgress.js';
import { sanityReport } from './sanityReport.js';

/** What the command line gives: options of a run under their own names, and a few of the command's. */
interface Flags extends Omit<SanityOptions, 'numLayers'>, BaseFlags, ExperimentFlags {
  readonly precision?: FloatDType;
  readonly base?: string;
}

const precisions = ['fp16', 'bf16', 'fp32'] as const satisfies readonly FloatDType[];
const modes = ['default', 'matched'] as const satisfies readonly NumericsMode[];
const schedules = ['linear', 'constant'] as const satisfies readonly SanitySchedule[];

/** `isopolicy sanity`: the sanity test of arXiv 2510.26788. */
export function sanityCommand(): Command {
  const command = new Command('sanity')
    .summary('run the sanity test: train a small model to 95 % on a set that it can solve')
    .description(
      'Teach a small model until it is partly right, keep the problems that it solves 20 % to 80 % of the time, and ' +
        'train on those: a sound setup reaches 95 % training accuracy.',
    )
    .addOption(choiceOption('--precision <type>', 'precision of both engines', precisions, 'fp16'))
    .addOption(choiceOption('--training-precision <type>', 'precision of the training engine', precisions))
    .addOption(choiceOption('--rollout-precision <type>', 'precision of the rollout engine', precisions))
    .addOption(choiceOption('--algorithm <name>', 'policy-gradient algorithm', algorithmNames, 'pg-seq-is'))
    .addOption(choiceOption('--numerics <mode>', 'rounding and reduction choices of the engines', modes))
    .addOption(integerOption('--seed <n>', 'seed of everything that is random (default: 1)', 0))
    .addOption(
      integerOption('--base-seed <n>', 'seed of the base: weights, problems, teaching (default: --seed)', 0),
    )
    .addOption(integerOption('--steps <n>', 'most training steps (default: 160)', 1))
    .addOption(integerOption('--prompts-per-step <n>', 'problems a step (default: 32)', 1))
    .addOption(integerOption('--group-size <n>', 'responses to each problem (default: 8)', 2))
    .addOption(integerOption('--updates-per-step <n>', 'optimizer updates a step (default: 4)', 1))
    .addOption(numberOption('--learning-rate <x>', 'highest learning rate (default: 1e-4)', 0))
    .addOption(
      integerOption('--warmup-steps <n>', 'steps until the learning rate is reached (default: 5)', 0),
    )
    .addOption(
      checkedOption(
        '--loss-scaler <spec>',
        'torch, verl, deepspeed, none or static:N (default: verl where fp16 trains, none elsewhere)',
        createLossScaler,
      ),
    )
    .addOption(choiceOption('--schedule <kind>', 'learning rate after the warm-up', schedules, 'linear'))
    .option('--no-stop-when-passed', 'go on to the last step after the run has passed')
    .addOption(integerOption('--checkpoint-every <n>', 'steps between checkpoints (default: 10)', 1))
    .addOption(
      pathOption('--base <dir>', 'a folder that keeps the base: taken from there, or made and left there'),
    );
  experimentOptions(baseOptions(command)).addHelpText(
    'after',
    `
The first Ctrl-C finishes the step and saves, the second stops at once.

Exit codes: ${exitCodes.success} passed, ${exitCodes.failure} failed, ${exitCodes.usage} bad usage, ${
      exitCodes.notPassed
    } not passed, ${exitCodes.interrupted} interrupted.

Examples:
  $ isopolicy sanity --precision bf16 --algorithm grpo --seed 2
  $ isopolicy sanity --training-precision bf16 --rollout-precision fp32
  $ isopolicy sanity --resume runs/my-run`,
  );
  return command.action((flags: Flags) => sanity(flags, command));
}

async function sanity(flags: Flags, command: Command): Promise<void> {
  const options = sanityOptions(flags, command);
  const progress = new SanityProgress();
  await runExperiment(
    command,
    flags,
    {
      options,
      resolve: async (given) => (await import('../sanity/config.js')).resolveSanityOptions(given),
      name: runName,
      run: async (config, { directory, signal, progress: show }) => {
        const { runSanity } = await import('../sanity/run.js');
        return runSanity(config, {
          directory,
          signal,
          ...(flags.base !== undefined && { base: flags.base }),
          report: (event) => show(progress.line(event)),
        });
      },
      text: sanityReport,
      exitCode: exitCodeOf,
    },
    ['base'],
  );
}

/** The options of a run among those of the command line. */
function sanityOptions(flags: Flags, command: Command): SanityOptions {
  const { precision, layers, threads, out, resume, json, base, ...own } = flags;
  for (const [flag, value] of [
    ['--training-precision', own.trainingPrecision],
    ['--rollout-precision', own.rolloutPrecision],
  ]) {
    if (precision !== undefined && value !== undefined && value !== precision) {
      throw new InvalidArgumentError(
        `[${command.name()}] expected ${flag} to agree with --precision, which sets both engines, got ${value} and ${precision}`,
      );
    }
  }
  return {
    ...own,
    ...baseOptionsOf(flags),
    ...(precision !== undefined && { trainingPrecision: precision, rolloutPrecision: precision }),
  };
}

/** `sanity-<task>-<algorithm>-<precision>-seed<seed>`. */
export function runName(config: SanityConfig): string {
  const { task, algorithm, trainingPrecision, rolloutPrecision, seed } = config;
  const precision =
    trainingPrecision === rolloutPrecision ? trainingPrecision : `${trainingPrecision}-${rolloutPrecision}`;
  return `sanity-${task}-${algorithm}-${precision}-seed${seed}`;
}

function exitCodeOf({ passed, interrupted }: { passed: boolean; interrupted: boolean }): number {
  if (interrupted) return exitCodes.interrupted;
  return passed ? exitCodes.success : exitCodes.notPassed;
}
