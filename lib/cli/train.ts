import { readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { Argument, Command, Option } from 'commander';
import { initialDevice } from '../device.js';
import { InvalidArgumentError, invalid } from '../errors.js';
import type { FloatDType } from '../tensor/dtype.js';
import type { TrainConfig, TrainOptions } from '../train/config.js';
import { assignment, overlay, splitAssignment } from '../train/layers.js';
import type { OpenedTraining } from '../train/open.js';
import { type TrainPresetName, trainPresetNames, trainPresets } from '../train/presets.js';
import { exitCodes } from './exitCodes.js';
import { type ExperimentFlags, experimentOptions, runExperiment } from './experiment.js';
import { toJson } from './format.js';
import { type ModelFlags, modelOptions, modelOptionsOf, noteLeftOut } from './modelOptions.js';
import { choiceOption, integerOption, numberOption, pathOption, precisionOption } from './options.js';
import { TrainProgress } from './trainProgress.js';
import { trainReport } from './trainReport.js';

/** What the command line gives, beside the options of a model and its data. */
interface Flags extends ExperimentFlags, ModelFlags {
  readonly preset?: TrainPresetName;
  readonly set?: readonly string[];
  readonly algorithm?: string;
  readonly precision?: FloatDType;
  readonly trainingPrecision?: FloatDType;
  readonly rolloutPrecision?: FloatDType;
  readonly numerics?: string;
  readonly steps?: number;
  readonly seed?: number;
  readonly promptsPerStep?: number;
  readonly groupSize?: number;
  readonly updatesPerStep?: number;
  readonly microBatchTokens?: number;
  readonly learningRate?: number;
  readonly loraRank?: number;
  readonly evalData?: string;
  readonly evalEvery?: number;
  readonly evalSamples?: number;
  readonly checkpointEvery?: number;
  readonly tensorboard?: string;
  readonly dryRun?: boolean;
  readonly printConfig?: boolean;
}

const modes = ['default', 'matched'] as const;

/** `isopolicy train`: reinforcement learning of a checkpoint on a data set. */
export function trainCommand(): Command {
  const command = new Command('train')
    .summary('train a checkpoint on the problems of a data set by reinforcement learning')
    .description(
      'Train a checkpoint in the layout of Hugging Face on the problems of a data set: any algorithm, any precision, ' +
        'with evaluation on a second set. Settings come from a preset, over it a YAML file, over that flags and --set.',
    )
    .addArgument(
      new Argument('[config]', 'a YAML (or JSON) file of settings; --print-config shows all of them'),
    )
    .addOption(choiceOption('--preset <name>', "settings of the paper's experiments", trainPresetNames))
    .addOption(
      new Option(
        '--set <name=value>',
        'any setting, as YAML: optimizer.eps=1e-15; may be repeated',
      ).argParser((text, before: readonly string[] = []) => {
        splitAssignment(text);
        return [...before, text];
      }),
    );
  modelOptions(command)
    .option(
      '--algorithm <name|file>',
      'a preset (isopolicy algorithms) or a .ts or .js file (default: pg-seq-is)',
    )
    .addOption(precisionOption('--precision <type>', 'both engines: fp16 (default), bf16, fp32, or as e8m4'))
    .addOption(precisionOption('--training-precision <type>', 'precision of the training engine'))
    .addOption(precisionOption('--rollout-precision <type>', 'precision of the rollout engine'))
    .addOption(choiceOption('--numerics <mode>', 'rounding and reduction choices of the engines', modes))
    .addOption(integerOption('--steps <n>', 'training steps (default: 100)', 1))
    .addOption(integerOption('--seed <n>', 'seed of order, sampling and mini-batches (default: 1)', 0))
    .addOption(integerOption('--prompts-per-step <n>', 'problems a step (default: 64)', 1))
    .addOption(integerOption('--group-size <n>', 'responses to each problem (default: 8)', 2))
    .addOption(integerOption('--updates-per-step <n>', 'optimizer updates a step (default: 4)', 1))
    .addOption(
      integerOption(
        '--micro-batch-tokens <n>',
        'most tokens of a pass, whose gradients add up (default: 4096)',
        1,
      ),
    )
    .addOption(numberOption('--learning-rate <x>', 'highest learning rate (default: 1e-6)', 0))
    .addOption(integerOption('--lora-rank <n>', 'train an adapter of this rank in place of the weights', 1))
    .addOption(pathOption('--eval-data <path>', 'problems to evaluate on'))
    .addOption(integerOption('--eval-every <n>', 'steps between evaluations (default: 16)', 1))
    .addOption(integerOption('--eval-samples <k>', 'responses to each problem, for avg@k (default: 32)', 1))
    .addOption(integerOption('--checkpoint-every <n>', 'steps between checkpoints (default: 10)', 1))
    .addOption(pathOption('--tensorboard <dir>', 'also write TensorBoard event files into this folder'))
    .option('--dry-run', 'say what would be trained and how much memory it takes, and end')
    .option('--print-config', 'print all settings as YAML, to be edited and given back, and end');
  experimentOptions(command).addHelpText(
    'after',
    `
Checkpoints are model folders: other tools load them. The first Ctrl-C finishes
the step and saves (an evaluation ends at once, and is made up for), the second
stops at once. Beside --resume, --model, --data and --eval-data say where these
have been moved.

Presets:
${Object.entries(trainPresets)
  .map(([name, { about }]) => `  ${name.padEnd(12)} ${about}`)
  .join('\n')}

Exit codes: ${exitCodes.success} done, ${exitCodes.failure} failed, ${exitCodes.usage} bad usage, ${exitCodes.doesNotFit} does not fit (--dry-run),
${exitCodes.interrupted} interrupted.

Examples:
  $ isopolicy train --model Qwen2.5-0.5B --data train.jsonl --dry-run
  $ isopolicy train config.yaml --set optimizer.learningRate=2e-6
  $ isopolicy train --preset sanity-oat --model R1-1.5B --data math_1460.arrow
  $ isopolicy train --resume runs/my-run`,
  );
  return command.action((file: string | undefined, flags: Flags) => train(file, flags, command));
}

async function train(file: string | undefined, flags: Flags, command: Command): Promise<void> {
  if (flags.resume !== undefined && file !== undefined) {
    invalid(
      'train',
      'no file of settings beside --resume, which goes on with the run as it was configured',
      file,
    );
  }
  const only = flags.printConfig ? '--print-config' : flags.dryRun ? '--dry-run' : undefined;
  if (flags.resume !== undefined && only !== undefined) {
    throw new InvalidArgumentError(
      `[train] expected no ${only} beside --resume: the settings of a run are in its config.yaml, which can be given`,
    );
  }
  const options = flags.resume === undefined ? await layered(file, flags) : {};
  if (flags.printConfig) return printConfig(options);
  if (flags.dryRun) return dryRun(options, flags);
  const progress = new TrainProgress();
  let opened: OpenedTraining | undefined;
  try {
    await runExperiment(
      command,
      flags,
      {
        options: options as unknown as TrainOptions,
        resolve: async (given) => {
          const { resolveTrainOptions } = await import('../train/config.js');
          const { openTraining } = await import('../train/open.js');
          const { checkMemory } = await import('../rl/checkMemory.js');
          const config = resolveTrainOptions(flags.resume === undefined ? given : moved(given, flags));
          // What is wrong with model, data or algorithm, and what does not fit, shows before a folder is made.
          opened = await openTraining(config);
          noteLeftOut(opened.source.problems, config.data);
          if (opened.evaluation) noteLeftOut(opened.evaluation, config.evaluation?.data);
          checkMemory(opened.memory);
          return config;
        },
        folders: { '--tensorboard': flags.tensorboard },
        name: runName,
        run: async (config, { directory, signal, progress: show }) => {
          const { runTrain } = await import('../train/run.js');
          return runTrain(config, {
            directory,
            signal,
            ...(opened && { opened }),
            ...(flags.tensorboard !== undefined && { tensorboard: flags.tensorboard }),
            report: (event) => show(progress.line(event)),
          });
        },
        text: trainReport,
        exitCode: ({ interrupted, divergence }) => {
          if (interrupted) return exitCodes.interrupted;
          return divergence === undefined ? exitCodes.success : exitCodes.failure;
        },
      },
      ['tensorboard', ...MOVABLE],
    );
  } finally {
    await opened?.[Symbol.asyncDispose]();
  }
}

/** Preset, file, flags and --set over one another. */
async function layered(file: string | undefined, flags: Flags): Promise<Readonly<Record<string, unknown>>> {
  const { parseValue, parseYaml } = await import('../train/yaml.js');
  let options: Readonly<Record<string, unknown>> = {};
  if (flags.preset !== undefined) options = { ...trainPresets[flags.preset].options };
  if (file !== undefined) options = overlay(options, parseYaml(await readText(file), file));
  options = overlay(options, flagOptions(flags));
  for (const text of flags.set ?? []) {
    options = overlay(
      options,
      assignment(text, (value) => parseValue(value, `--set ${text}`)),
    );
  }
  return options;
}

/** Options beside --resume: model and data may have been moved. That they are the same is checked. */
const MOVABLE = ['model', 'data', 'evalData'];

/** The settings of a run that is resumed, with its model and data where they are now. */
function moved(options: TrainOptions, { model, data, evalData }: Flags): TrainOptions {
  const { evaluation } = options;
  if (evalData !== undefined && !evaluation) {
    invalid('train', 'no --eval-data beside --resume of a run without evaluation', evalData);
  }
  return {
    ...options,
    ...(model !== undefined && { model }),
    ...(data !== undefined && { data }),
    ...(evalData !== undefined && { evaluation: { ...evaluation, data: evalData } }),
  };
}

async function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    throw new InvalidArgumentError(
      `[train] expected a file of settings that can be read (${cause.code}), got ${JSON.stringify(file)}`,
      { cause },
    );
  });
}

/** The settings among the flags, in their sections. */
function flagOptions(flags: Flags): Readonly<Record<string, unknown>> {
  const { precision } = flags;
  const defined = (values: object) => {
    const given = Object.entries(values).filter(([, value]) => value !== undefined);
    return given.length === 0 ? undefined : Object.fromEntries(given);
  };
  return {
    ...modelOptionsOf(flags),
    ...defined({
      algorithm: flags.algorithm,
      trainingPrecision: flags.trainingPrecision ?? precision,
      rolloutPrecision: flags.rolloutPrecision ?? precision,
      numerics: flags.numerics,
      steps: flags.steps,
      seed: flags.seed,
      batch: defined({
        promptsPerStep: flags.promptsPerStep,
        groupSize: flags.groupSize,
        updatesPerStep: flags.updatesPerStep,
        microBatchTokens: flags.microBatchTokens,
      }),
      optimizer: defined({ learningRate: flags.learningRate }),
      lora: defined({ rank: flags.loraRank }),
      evaluation: defined({ data: flags.evalData, every: flags.evalEvery, samples: flags.evalSamples }),
      checkpoint: defined({ every: flags.checkpointEvery }),
    }),
  };
}

/** Settings as YAML; those that are the user's to say are left out where they are not said. */
async function printConfig(options: Readonly<Record<string, unknown>>): Promise<void> {
  const { resolveTrainOptions } = await import('../train/config.js');
  const { formatYaml } = await import('../train/yaml.js');
  const paths = { model: '.', data: '.', evaluation: { data: '.' } };
  const { model, data, evaluation, ...others } = resolveTrainOptions(
    overlay(paths, options) as unknown as TrainOptions,
  );
  const evaluated = (options.evaluation as TrainOptions['evaluation'])?.data;
  const { data: problems, ...settings } = evaluation ?? { data: undefined };
  const comments = [
    ...(options.model === undefined ? ['# model: (a folder; also --model)'] : []),
    ...(options.data === undefined ? ['# data: (a file or folder; also --data)'] : []),
    ...(evaluation !== null && evaluated === undefined
      ? ['# evaluation.data: (a file or folder; also --eval-data); without it there is no evaluation']
      : []),
  ];
  const text = formatYaml({
    ...(options.model !== undefined && { model }),
    ...(options.data !== undefined && { data }),
    ...others,
    evaluation: evaluation && { ...(evaluated !== undefined && { data: problems }), ...settings },
  });
  process.stdout.write([...comments, text].join('\n'));
}

async function dryRun(options: Readonly<Record<string, unknown>>, flags: Flags): Promise<void> {
  const { resolveTrainOptions } = await import('../train/config.js');
  const { openTraining } = await import('../train/open.js');
  const { availableMemory, checkMemory } = await import('../rl/checkMemory.js');
  const { planOf, planText } = await import('./trainPlan.js');
  (await import('../runtime.js')).setDevice(flags.device ?? initialDevice());
  const config = resolveTrainOptions(options as unknown as TrainOptions);
  await using opened = await openTraining(config);
  const plan = planOf(config, opened, availableMemory());
  process.stdout.write(`${flags.json ? toJson(plan) : planText(plan, config)}\n`);
  if (plan.fits) return;
  process.exitCode = exitCodes.doesNotFit;
  try {
    checkMemory(opened.memory, plan.availableBytes);
  } catch (error) {
    process.stderr.write(`isopolicy: ${(error as Error).message}\n`);
  }
}

/** `train-<model>-<algorithm>-<precision>-seed<seed>`. */
function runName({ model, algorithm, trainingPrecision, rolloutPrecision, seed }: TrainConfig): string {
  const precision =
    trainingPrecision === rolloutPrecision ? trainingPrecision : `${trainingPrecision}-${rolloutPrecision}`;
  return `train-${basename(model)}-${basename(algorithm)}-${precision}-seed${seed}`;
}
