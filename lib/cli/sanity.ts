import { basename, resolve as resolvePath } from 'node:path';
import { Command, Option } from 'commander';
import { attempt, InvalidArgumentError, throwTogether } from '../errors.js';
import { resolveAlgorithmSpec } from '../rl/load.js';
import type { ModelSourceOptions } from '../rl/modelSource.js';
import type { SanityConfig, SanityOptions, SourceSanityOptions } from '../sanity/config.js';
import { taskName } from '../sanity/sourceConfig.js';
import type { FloatDType } from '../tensor/dtype.js';
import { type BaseFlags, baseOptions, baseOptionsOf } from './baseOptions.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { type ModelFlags, modelOptions, modelOptionsOf, noteLeftOut } from './modelOptions.js';
import { integerOption, pathOption, precisionOption } from './options.js';
import { SanityProgress } from './sanityProgress.js';
import { sanityReport } from './sanityReport.js';
import { refuse } from './subjectOptions.js';
import { type TrainingFlags, trainingOptions, trainingOptionsOf } from './trainingOptions.js';

/** What the command line gives: options of a run under their own names, and a few of the command's. */
interface Flags
  extends Pick<SanityOptions, 'algorithm' | 'seed' | 'trainingPrecision' | 'rolloutPrecision'>,
    TrainingFlags,
    Omit<BaseFlags, 'baseSeed'>,
    ModelFlags,
    ExperimentFlags {
  readonly precision?: FloatDType;
  readonly base?: string;
  readonly filterPrecision?: FloatDType;
  readonly tensorboard?: string;
}

/** `isopolicy sanity`: the sanity test of arXiv 2510.26788. */
export function sanityCommand(): Command {
  const command = new Command('sanity')
    .summary('run the sanity test: train a model to 95 % on a set that it can solve')
    .description(
      'Take a checkpoint and a data set, or teach a small model until it is partly right; keep the problems that it solves ' +
        '20 % to 80 % of the time, and train on those: a sound setup reaches 95 % training accuracy.',
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
      pathOption(
        '--base <dir>',
        'a folder that keeps the base, with --model the set (that of another run, too): taken from there, or made and left there',
      ),
    );
  modelOptions(command).addOption(
    precisionOption('--filter-precision <type>', 'with --model: in which the filter samples (default: fp32)'),
  );
  command.addOption(pathOption('--tensorboard <dir>', 'also write TensorBoard event files into this folder'));
  experimentOptions(baseOptions(trainingOptions(command))).addHelpText(
    'after',
    `
With --model and --data the checkpoint is trained as it is, on the problems that
it solves sometimes by --samples-per-problem, --solved-at-least and
--solved-at-most; options of a taught model are refused. Defaults are then the
paper's: --steps 2000 --prompts-per-step 64 --learning-rate 1e-6
--schedule constant --warmup-steps 0, and --base-seed 1, so that runs of all
seeds and precisions share a set. What the filter has sampled is kept;
--resume goes on with it.

The first Ctrl-C finishes the step and saves, the second stops at once.

Exit codes: ${exitCodes.success} passed, ${exitCodes.failure} failed, ${exitCodes.usage} bad usage, ${
      exitCodes.notPassed
    } not passed, ${exitCodes.interrupted} interrupted.

Examples:
  $ isopolicy sanity --precision bf16 --algorithm grpo --seed 2
  $ isopolicy sanity --training-precision bf16 --rollout-precision fp32
  $ isopolicy sanity --model models/Qwen2.5-Math-1.5B --data math.jsonl \\
      --precision bf16 --out runs/bf16
  $ isopolicy sanity --model models/Qwen2.5-Math-1.5B --data math.jsonl \\
      --precision fp16 --base runs/bf16
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
      resolve,
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

type Options = SanityOptions | SourceSanityOptions;

/**
 * Fills in the defaults. A file that does not run, a parameter that is wrong, or data that is none for the model shows before
 * a folder is made, and beside what else is.
 */
async function resolve(given: Options): Promise<SanityConfig> {
  const { resolveSanityOptions } = await import('../sanity/config.js');
  const { configuredAlgorithm } = await import('../sanity/run.js');
  const errors: unknown[] = [];
  const keep = (error: unknown) => void errors.push(error);
  const config = attempt(errors, () => resolveSanityOptions(given));
  const { algorithm, algorithmParameters } = given;
  const own = {
    ...(algorithm !== undefined && { algorithm }),
    ...(algorithmParameters && { algorithmParameters }),
  };
  const task = 'task' in given && given.task !== undefined ? { task: given.task } : {};
  await configuredAlgorithm(config ?? resolveSanityOptions({ ...own, ...task })).catch(keep);
  if (config && 'source' in config) {
    const { openModelSource } = await import('../rl/openModelSource.js');
    const opened = await openModelSource(config.source).catch(keep);
    if (opened) noteLeftOut(opened.problems, config.source.data);
    await opened?.[Symbol.asyncDispose]();
  }
  throwTogether('sanity', errors);
  return config!;
}

/** The options of a run among those of the command line. */
function sanityOptions(flags: Flags, command: Command): Options {
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
  const run = {
    ...Object.fromEntries(Object.entries(own).filter(([, value]) => value !== undefined)),
    ...trainingOptionsOf(flags),
  };
  const { model, filterPrecision } = flags;
  if (model === undefined) {
    refuse(
      command.name(),
      { ...modelOptionsOf(flags), filterPrecision },
      'a taught model: these are options of --model',
    );
    return { ...run, ...baseOptionsOf(flags) };
  }
  const { task, hiddenSize, numLayers, baseAccuracy, teachSteps, candidates, ...filter } =
    baseOptionsOf(flags);
  const ofBase = { task, hiddenSize, numLayers, baseAccuracy, teachSteps, candidates };
  refuse(command.name(), ofBase, '--model, which is not taught');
  if (flags.data === undefined) {
    throw new InvalidArgumentError(
      `[${command.name()}] expected --data beside --model, the problems to train on`,
    );
  }
  return {
    ...run,
    ...filter,
    ...(filterPrecision !== undefined && { filterPrecision }),
    ...(flags.base !== undefined && { base: resolvePath(flags.base) }),
    source: modelOptionsOf(flags) as ModelSourceOptions,
  };
}

/** `sanity-<task>-<algorithm>-<precision>-seed<seed>`, of a checkpoint the names of its folder and data for the task. */
export function runName(config: SanityConfig): string {
  const { trainingPrecision, rolloutPrecision, seed } = config;
  const task = taskName(config).replaceAll(/[\s/]+/g, '-');
  const algorithm = basename(config.algorithm);
  const precision =
    trainingPrecision === rolloutPrecision ? trainingPrecision : `${trainingPrecision}-${rolloutPrecision}`;
  return `sanity-${task}-${algorithm}-${precision}-seed${seed}`;
}

function exitCodeOf({ passed, interrupted }: { passed: boolean; interrupted: boolean }): number {
  if (interrupted) return exitCodes.interrupted;
  return passed ? exitCodes.success : exitCodes.notPassed;
}
