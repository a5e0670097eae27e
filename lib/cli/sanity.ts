import { basename } from 'node:path';
import { Command, Option } from 'commander';
import { attempt, InvalidArgumentError, throwTogether } from '../errors.js';
import { resolveAlgorithmSpec } from '../rl/load.js';
import type { SanityConfig, SanityOptions } from '../sanity/config.js';
import type { FloatDType } from '../tensor/dtype.js';
import { type BaseFlags, baseOptions, baseOptionsOf } from './baseOptions.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { integerOption, pathOption, precisionOption } from './options.js';
import { SanityProgress } from './sanityProgress.js';
import { sanityReport } from './sanityReport.js';
import { type TrainingFlags, trainingOptions, trainingOptionsOf } from './trainingOptions.js';

/** What the command line gives: options of a run under their own names, and a few of the command's. */
interface Flags
  extends Pick<SanityOptions, 'algorithm' | 'seed' | 'trainingPrecision' | 'rolloutPrecision'>,
    TrainingFlags,
    Omit<BaseFlags, 'baseSeed'>,
    ExperimentFlags {
  readonly precision?: FloatDType;
  readonly base?: string;
  readonly tensorboard?: string;
}

/** `isopolicy sanity`: the sanity test of arXiv 2510.26788. */
export function sanityCommand(): Command {
  const command = new Command('sanity')
    .summary('run the sanity test: train a small model to 95 % on a set that it can solve')
    .description(
      'Teach a small model until it is partly right, keep the problems that it solves 20 % to 80 % of the time, and ' +
        'train on those: a sound setup reaches 95 % training accuracy.',
    )
    .addOption(
      precisionOption(
        '--precision <type>',
        'both engines: fp16, bf16, fp32, or an emulated format such as e8m4 (default: fp16)',
      ),
    )
    .addOption(precisionOption('--training-precision <type>', 'precision of the training engine'))
    .addOption(precisionOption('--rollout-precision <type>', 'precision of the rollout engine'))
    .addOption(
      new Option(
        '--algorithm <name|file>',
        'a preset (isopolicy algorithms lists them) or a .ts or .js file (default: pg-seq-is)',
      ).argParser((text) => resolveAlgorithmSpec('cli', text, '--algorithm')),
    )
    .addOption(integerOption('--seed <n>', 'seed of everything that is random (default: 1)', 0))
    .option('--no-stop-when-passed', 'go on to the last step after the run has passed')
    .addOption(
      pathOption('--base <dir>', 'a folder that keeps the base: taken from there, or made and left there'),
    );
  command.addOption(pathOption('--tensorboard <dir>', 'also write TensorBoard event files into this folder'));
  experimentOptions(baseOptions(trainingOptions(command))).addHelpText(
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
      resolve: async (given) => {
        const { resolveSanityOptions } = await import('../sanity/config.js');
        const { configuredAlgorithm } = await import('../sanity/run.js');
        const errors: unknown[] = [];
        const config = attempt(errors, () => resolveSanityOptions(given));
        // A file that does not run, or a parameter that is wrong, shows before a folder is made, and beside what else is.
        const { task, algorithm, algorithmParameters } = resolveSanityOptions({
          ...(given.task !== undefined && { task: given.task }),
          ...(given.algorithm !== undefined && { algorithm: given.algorithm }),
          ...(given.algorithmParameters && { algorithmParameters: given.algorithmParameters }),
        });
        await configuredAlgorithm({ task, algorithm, algorithmParameters }).catch((error) =>
          errors.push(error),
        );
        throwTogether('sanity', errors);
        return config!;
      },
      folders: { '--base': flags.base, '--tensorboard': flags.tensorboard },
      name: runName,
      run: async (config, { directory, signal, progress: show }) => {
        const { runSanity } = await import('../sanity/run.js');
        return runSanity(config, {
          directory,
          signal,
          ...(flags.base !== undefined && { base: flags.base }),
          ...(flags.tensorboard !== undefined && { tensorboard: flags.tensorboard }),
          report: (event) => show(progress.line(event)),
        });
      },
      text: sanityReport,
      exitCode: exitCodeOf,
    },
    ['base', 'tensorboard'],
  );
}

/** The options of a run among those of the command line. */
function sanityOptions(flags: Flags, command: Command): SanityOptions {
  const { precision, trainingPrecision, rolloutPrecision, algorithm, seed } = flags;
  for (const [flag, value] of [
    ['--training-precision', trainingPrecision],
    ['--rollout-precision', rolloutPrecision],
  ]) {
    if (precision !== undefined && value !== undefined && value !== precision) {
      throw new InvalidArgumentError(
        `[${command.name()}] expected ${flag} to agree with --precision, which sets both engines, got ${value} and ${precision}`,
      );
    }
  }
  const own = {
    algorithm,
    seed,
    trainingPrecision: trainingPrecision ?? precision,
    rolloutPrecision: rolloutPrecision ?? precision,
  };
  return {
    ...Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)),
    ...trainingOptionsOf(flags),
    ...baseOptionsOf(flags),
  };
}

/** `sanity-<task>-<algorithm>-<precision>-seed<seed>`. */
export function runName(config: SanityConfig): string {
  const { task, trainingPrecision, rolloutPrecision, seed } = config;
  const algorithm = basename(config.algorithm);
  const precision =
    trainingPrecision === rolloutPrecision ? trainingPrecision : `${trainingPrecision}-${rolloutPrecision}`;
  return `sanity-${task}-${algorithm}-${precision}-seed${seed}`;
}

function exitCodeOf({ passed, interrupted }: { passed: boolean; interrupted: boolean }): number {
  if (interrupted) return exitCodes.interrupted;
  return passed ? exitCodes.success : exitCodes.notPassed;
}
