import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { Command } from 'commander';
import { InvalidArgumentError, invalid } from '../errors.js';
import { RunDirectory } from '../io/runDirectory.js';
import { algorithmNames } from '../rl/algorithms.js';
import type { NumericsMode, SanityConfig, SanityOptions } from '../sanity/config.js';
import { createTask, taskForms } from '../tasks/index.js';
import type { FloatDType } from '../tensor/dtype.js';
import { createLossScaler } from '../training/lossScaler.js';
import { exitCodes } from './exitCodes.js';
import { toJson, wantsColor } from './format.js';
import { checkedOption, choiceOption, integerOption, numberOption, pathOption } from './options.js';
import { ProgressWriter } from './progress.js';
import { SanityProgress } from './sanityProgress.js';
import { sanityReport } from './sanityReport.js';
import { version } from './version.js';

/** What the command line gives: options of a run under their own names, and a few of the command's. */
interface Flags extends Omit<SanityOptions, 'numLayers'> {
  readonly precision?: FloatDType;
  readonly layers?: number;
  readonly threads?: number;
  readonly out?: string;
  readonly resume?: string;
  readonly json?: boolean;
}

/** Options that may stand beside --resume: they don't change the run. */
const RESUME_OPTIONS = ['resume', 'threads', 'json'];
const precisions = ['fp16', 'bf16', 'fp32'] as const satisfies readonly FloatDType[];
const modes = ['default', 'matched'] as const satisfies readonly NumericsMode[];

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
    .addOption(checkedOption('--task <spec>', `${taskForms.join(', ')} (default: sort:16:10)`, createTask))
    .addOption(integerOption('--seed <n>', 'seed of everything that is random (default: 1)', 0))
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
    .addOption(integerOption('--hidden-size <n>', 'width of the model (default: 64)', 32))
    .addOption(integerOption('--layers <n>', 'depth of the model (default: 4)', 1))
    .addOption(integerOption('--candidates <n>', 'problems tried for the set (default: 400)', 1))
    .addOption(
      integerOption('--samples-per-problem <n>', 'responses that decide on a problem (default: 40)', 1),
    )
    .addOption(numberOption('--base-accuracy <x>', 'accuracy at which teaching stops (default: 0.55)', 0, 1))
    .addOption(integerOption('--checkpoint-every <n>', 'steps between checkpoints (default: 10)', 1))
    .addOption(integerOption('--threads <n>', 'native threads; results are the same at any number', 1, 256))
    .addOption(pathOption('--out <dir>', 'folder of the run (default: a new one in runs/)'))
    .addOption(pathOption('--resume <dir>', 'go on with the run in this folder, as it was configured'))
    .option('--json', 'print the summary as one JSON object')
    .addHelpText(
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
  const options = sanityOptions(flags);
  if (flags.resume !== undefined) await checkResume(flags.resume, command);

  const { resolveSanityOptions } = await import('../sanity/config.js');
  const { runSanity } = await import('../sanity/run.js');
  const { setThreads } = await import('../runtime.js');

  let config: SanityConfig;
  let directory: RunDirectory;
  if (flags.resume === undefined) {
    config = resolveSanityOptions(options);
    const out = flags.out ?? defaultDirectory(config, new Date());
    directory = await RunDirectory.create(out, { command: 'sanity', version, config });
  } else {
    directory = await RunDirectory.open(flags.resume);
    config = resolveSanityOptions(storedOptions(directory));
  }
  if (flags.threads !== undefined) setThreads(flags.threads);

  const writer = new ProgressWriter();
  const progress = new SanityProgress();
  if (flags.resume !== undefined && directory.config.version !== version) {
    writer.note(
      `isopolicy: the run was started by version ${directory.config.version}, this is ${version}: ` +
        'it may not end with the same bits',
    );
  }
  const interruption = interruptible(writer);
  try {
    const summary = await runSanity(config, {
      directory,
      signal: interruption.signal,
      report: (event) => writer.update(progress.line(event)),
    });
    writer.end();
    // Before the output, which may find nobody reading it and end the process.
    process.exitCode = exitCodeOf(summary);
    const { path } = directory;
    const text = flags.json
      ? toJson({ ...summary, directory: path })
      : sanityReport(summary, config, path, wantsColor(process.stdout));
    process.stdout.write(`${text}\n`);
  } finally {
    writer.end();
    interruption.release();
  }
}

/** The options of a run among those of the command line. */
function sanityOptions(flags: Flags): SanityOptions {
  const { precision, layers, threads, out, resume, json, ...own } = flags;
  for (const [flag, value] of [
    ['--training-precision', own.trainingPrecision],
    ['--rollout-precision', own.rolloutPrecision],
  ]) {
    if (precision !== undefined && value !== undefined && value !== precision) {
      throw new InvalidArgumentError(
        `[sanity] expected ${flag} to agree with --precision, which sets both engines, got ${value} and ${precision}`,
      );
    }
  }
  return {
    ...own,
    ...(precision !== undefined && { trainingPrecision: precision, rolloutPrecision: precision }),
    ...(layers !== undefined && { numLayers: layers }),
  };
}

/** Refuses what --resume can't follow, before anything is loaded. */
async function checkResume(dir: string, command: Command): Promise<void> {
  for (const option of command.options) {
    const name = option.attributeName();
    if (command.getOptionValueSource(name) !== undefined && !RESUME_OPTIONS.includes(name)) {
      throw new InvalidArgumentError(
        `[sanity] expected no ${option.long} beside --resume, which goes on with the run as it was configured`,
      );
    }
  }
  const file = join(dir, 'config.json');
  try {
    await access(file, constants.R_OK);
  } catch (cause) {
    throw new InvalidArgumentError(
      `[sanity] expected --resume to be the folder of a run, with a config.json, got ${JSON.stringify(dir)}`,
      { cause },
    );
  }
}

function storedOptions({ path, config }: RunDirectory): SanityOptions {
  if (config.command !== 'sanity' || typeof config.config !== 'object' || config.config === null) {
    invalid('sanity', '--resume to be the folder of a sanity run', path);
  }
  return config.config;
}

/** `runs/sanity-<task>-<algorithm>-<precision>-seed<seed>-<time>`. */
export function defaultDirectory(config: SanityConfig, now: Date): string {
  const { task, algorithm, trainingPrecision, rolloutPrecision, seed } = config;
  const precision =
    trainingPrecision === rolloutPrecision ? trainingPrecision : `${trainingPrecision}-${rolloutPrecision}`;
  const time = now
    .toISOString()
    .replace(/\.\d+Z$/, 'Z')
    .replace(/[-:]/g, '');
  const name = `sanity-${task}-${algorithm}-${precision}-seed${seed}-${time}`;
  return join('runs', name.replaceAll(':', '-'));
}

function exitCodeOf({ passed, interrupted }: { passed: boolean; interrupted: boolean }): number {
  if (interrupted) return exitCodes.interrupted;
  return passed ? exitCodes.success : exitCodes.notPassed;
}

/** A signal that the first SIGINT or SIGTERM aborts; the second ends the process. */
function interruptible(writer: ProgressWriter): { signal: AbortSignal; release: () => void } {
  const controller = new AbortController();
  const onSignal = () => {
    if (controller.signal.aborted) {
      writer.end();
      process.exit(exitCodes.interrupted);
    }
    controller.abort();
    writer.note('finishing this step, then saving (again to stop at once)');
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  return {
    signal: controller.signal,
    release: () => {
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
    },
  };
}
