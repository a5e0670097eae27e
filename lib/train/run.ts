import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { invalid } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { makeWritableFolder } from '../io/folder.js';
import { isObject, readJsonObject } from '../io/jsonFile.js';
import type { Checkpoint, RunDirectory } from '../io/runDirectory.js';
import type { Warning } from '../mismatch/earlyWarning.js';
import { readCompanionFiles } from '../models/companionFiles.js';
import { Decoder } from '../models/decoder.js';
import type { HuggingFaceConfig } from '../models/huggingFaceConfig.js';
import { loadModel, readHuggingFaceConfig } from '../models/loadModel.js';
import { addLora } from '../models/lora.js';
import { digestModel } from '../models/modelDigest.js';
import { checkMemory } from '../rl/checkMemory.js';
import { engineNumerics } from '../rl/engineChoices.js';
import { type MismatchSummary, meanMismatch, type StepRecord, WINDOW } from '../rl/record.js';
import { type ScalingSummary, summarizeScaling } from '../rl/scaling.js';
import { Trainer } from '../rl/trainer.js';
import {
  findStart,
  type LoopResult,
  type Measured,
  recordsBefore,
  trainingLoop,
} from '../rl/trainingLoop.js';
import { RolloutEngine } from '../rollout/engine.js';
import { type CheckpointSource, loadCheckpoint, saveCheckpoint } from '../training/checkpoint.js';
import { TrainingEngine } from '../training/engine.js';
import type { TrainConfig } from './config.js';
import { evaluate, evaluationKeys } from './evaluation.js';
import { adapterOf, type OpenedTraining, openTraining, problemsDigest } from './open.js';
import { WHERE } from './section.js';
import { formatYaml } from './yaml.js';

/** An evaluation in a summary. */
export interface EvaluationSummary {
  /** Steps behind the weights. */
  readonly step: number;
  /** avg@k. */
  readonly average: number;
  /** pass@k. */
  readonly pass: number;
}

export interface TrainSummary {
  readonly steps: number;
  readonly seconds: number;
  readonly model: string;
  readonly data: string;
  /** Problems trained on, and evaluated on. */
  readonly problems: { readonly training: number; readonly evaluation: number };
  /** Problems of both that were left out, since their prompts are too long. */
  readonly leftOut: { readonly training: number; readonly evaluation: number };
  readonly precision: { readonly training: string; readonly rollout: string };
  readonly algorithm: string;
  readonly numerics: string;
  readonly seed: number;
  /** Whether it was stopped before its end; such a run can be resumed. */
  readonly interrupted: boolean;
  /** Why nothing could be sampled after the last step: logits that are not finite. */
  readonly divergence?: string;
  /** Mean rewards over windows of ten steps: the first, the greatest and the last; null before the first step. */
  readonly reward: { readonly first: number; readonly peak: number; readonly last: number } | null;
  /** The first evaluation, the best and the last; null where there was none. */
  readonly evaluation: {
    readonly samples: number;
    readonly first: EvaluationSummary;
    readonly best: EvaluationSummary;
    readonly last: EvaluationSummary;
  } | null;
  /** Means over the last window of steps (maxProbDiff: the greatest over it); null before the first step. */
  readonly mismatch: MismatchSummary | null;
  readonly lossScale: ScalingSummary;
  /** The first warning of a growing mismatch, or null. */
  readonly warning: Warning | null;
  /** Folders of the newest checkpoint and of the best, relative to the run's; null where there is none. */
  readonly checkpoints: { readonly last: string | null; readonly best: string | null };
}

/** What a run tells while it goes on. */
export type TrainEvent =
  | { readonly kind: 'load'; readonly model: string }
  | { readonly kind: 'resume'; readonly step: number }
  | { readonly kind: 'evaluate'; readonly step: number; readonly responses: number }
  | { readonly kind: 'step'; readonly record: StepRecord; readonly steps: number };

export interface TrainRunOptions {
  readonly directory: RunDirectory;
  /** A folder for TensorBoard event files, beside metrics.jsonl. */
  readonly tensorboard?: string;
  /** What the configuration names, where it is open already; it stays open. */
  readonly opened?: OpenedTraining;
  /** Bytes that the run may take; default what is available. */
  readonly availableMemory?: number;
  /** Aborting it ends the run after the step that is running, or in an evaluation at once, with a checkpoint. */
  readonly signal?: AbortSignal;
  readonly report?: (event: TrainEvent) => void;
}

/** Of the run, beside what the engines have to keep; draws are functions of seed, step and place alone. */
interface TrainerState {
  readonly step: number;
  readonly seed: number;
  /** Prompts drawn so far, whose number is the place in the shuffled epochs. */
  readonly promptsDrawn: number;
  readonly problems: string;
  /** Of those evaluated on; null for none. */
  readonly evaluated: string | null;
  /** Of the folder whose weights an adapter is of; null where the weights are the checkpoint's own. */
  readonly base: string | null;
  /** What was measured of these weights; empty where nothing was. */
  readonly measured: Measured;
}

type Digests = Pick<TrainerState, 'problems' | 'evaluated' | 'base'>;

const STATE = 'trainer.json';

/**
 * Trains a checkpoint on the problems of a data set by reinforcement learning.
 *
 * Everything is a function of the configuration, model and data: a run that was stopped, or killed, and resumed ends with
 * the same bits as one that was not. Its checkpoints are model folders that `loadModel` and other tools read.
 *
 * @throws InvalidArgumentError as {@link openTraining} does; where it does not fit into memory, before weights are read;
 *   and where a run that goes on finds other problems, or under an adapter another model, than it began with
 */
export async function runTrain(config: TrainConfig, options: TrainRunOptions): Promise<TrainSummary> {
  if (options.opened) return train(config, options.opened, options);
  await using opened = await openTraining(config);
  return await train(config, opened, options);
}

async function train(
  config: TrainConfig,
  opened: OpenedTraining,
  options: TrainRunOptions,
): Promise<TrainSummary> {
  const { directory, report } = options;
  const started = performance.now();
  if (options.tensorboard !== undefined) await makeWritableFolder(WHERE, 'tensorboard', options.tensorboard);
  const checkpoint = await findStart(WHERE, directory);
  checkMemory(opened.memory, options.availableMemory);
  await atomicWriteFile(join(directory.path, 'config.yaml'), formatYaml(config));
  const digests = {
    problems: problemsDigest(opened.source.problems),
    evaluated: opened.evaluation && problemsDigest(opened.evaluation),
    base: config.lora ? await digestModel(config.model) : null,
  };
  const { config: described } = opened.source.text;
  const measured = checkpoint && (await readMeasured(checkpoint, digests, config, described));
  const kept = { config: described, files: await readCompanionFiles(config.model), path: config.model };
  if (!checkpoint || config.lora) report?.({ kind: 'load', model: config.model });
  using model = await modelOf(config, opened, checkpoint);
  using training = trainingEngine(model, config);
  using rollout = new RolloutEngine(model, {
    precision: config.rolloutPrecision,
    numerics: engineNumerics(config.numerics).rollout,
    ...(config.lora && { lora: config.lora.rollout }),
    ...config.rollout,
    maxBatch: opened.maxBatch,
  });
  const records: StepRecord[] = [];
  if (checkpoint) {
    await loadCheckpoint(checkpoint.path, model, training);
    records.push(...(await recordsBefore(directory, checkpoint)));
    report?.({ kind: 'resume', step: checkpoint.step });
  }
  const secondsBefore = records.at(-1)?.['time/total_s'] ?? 0;
  const seconds = () => secondsBefore + (performance.now() - started) / 1e3;
  const { algorithm, source, evaluation } = opened;
  const loop = await trainingLoop({
    directory,
    trainer: new Trainer(rollout, training, source.problems, { ...config, ...config.batch, algorithm }),
    scaler: training.scaler,
    records,
    measured,
    steps: config.steps,
    format: (tokens) => source.problems.format(tokens),
    ...(await saving(config, directory, { digests, kept, model, training })),
    measure: async (step) => {
      if (!evaluation || !config.evaluation || !evaluatedAt(step, config)) return {};
      report?.({ kind: 'evaluate', step, responses: evaluation.prompts.length * config.evaluation.samples });
      return (await evaluate(rollout, evaluation, config.evaluation, config.seed, options.signal)) ?? {};
    },
    recordEvery: config.recordEvery,
    seconds,
    tensorboard: options.tensorboard,
    signal: options.signal,
    report: (record) => report?.({ kind: 'step', record, steps: config.steps }),
  });
  const summary: TrainSummary = {
    steps: loop.step,
    seconds: seconds(),
    model: config.model,
    data: config.data,
    problems: {
      training: source.problems.prompts.length,
      evaluation: evaluation?.prompts.length ?? 0,
    },
    leftOut: { training: source.problems.leftOut, evaluation: evaluation?.leftOut ?? 0 },
    precision: { training: config.trainingPrecision, rollout: config.rolloutPrecision },
    algorithm: config.algorithm,
    numerics: config.numerics,
    seed: config.seed,
    interrupted: options.signal?.aborted === true && !isDone(config, loop),
    ...(loop.divergence !== undefined && { divergence: loop.divergence }),
    reward: summarizeReward(loop.records),
    evaluation: summarizeEvaluation(config, loop),
    mismatch: loop.records.length === 0 ? null : meanMismatch(loop.records.slice(-WINDOW)),
    lossScale: summarizeScaling(loop.records, training.scaler),
    warning: loop.warning,
    checkpoints: {
      last: nameOf(await directory.latestCheckpoint(), directory),
      best: nameOf(await directory.bestCheckpoint(), directory),
    },
  };
  await directory.writeSummary(summary);
  return summary;
}

/** The model to begin with, or one whose weights, or adapter, are yet to be loaded. */
async function modelOf(
  { model: path, lora, seed }: TrainConfig,
  { source, maxLength }: OpenedTraining,
  checkpoint: Checkpoint | undefined,
): Promise<Decoder> {
  if (checkpoint && !lora) {
    return new Decoder({ ...source.text.config.decoder, maxPositionEmbeddings: maxLength }, { seed: null });
  }
  // A checkpoint of an adapter has the adapter alone.
  const { model } = await loadModel(path, { maxLength });
  if (lora) addLora(model, adapterOf(lora), { seed: checkpoint ? null : seed });
  return model;
}

function trainingEngine(model: Decoder, config: TrainConfig): TrainingEngine {
  const { batch, optimizer, steps } = config;
  const { learningRate, schedule: kind, minRatio, warmupSteps, betas, eps, weightDecay } = optimizer;
  const totalSteps = steps * batch.updatesPerStep;
  return new TrainingEngine(model, {
    precision: config.trainingPrecision,
    numerics: engineNumerics(config.numerics).training,
    schedule: {
      kind,
      learningRate,
      warmupSteps: Math.min(warmupSteps * batch.updatesPerStep, totalSteps - 1),
      totalSteps,
      minRatio,
    },
    optimizer: { betas, eps, weightDecay },
    maxGradNorm: optimizer.maxGradNorm,
    lossScaler: config.lossScaler,
    overflow: config.overflow,
    microBatchTokens: batch.microBatchTokens,
    recompute: batch.recompute,
  });
}

/** Whether nothing is left to do, the last evaluation included. */
function isDone({ steps, evaluation }: TrainConfig, { step, measured, divergence }: LoopResult): boolean {
  return (
    divergence !== undefined || (step >= steps && (evaluation === null || Object.keys(measured).length > 0))
  );
}

function evaluatedAt(step: number, { evaluation, steps }: TrainConfig): boolean {
  if (evaluation === null) return false;
  if (step === 0) return evaluation.atStart;
  return step === steps || step % evaluation.every === 0;
}

/** When and how a run saves: at every so many steps, and where an evaluation is better than those of all that is kept. */
async function saving(
  config: TrainConfig,
  directory: RunDirectory,
  run: { digests: Digests; kept: CheckpointSource; model: Decoder; training: TrainingEngine },
) {
  const { checkpoint, evaluation, seed, batch } = config;
  let best = (await directory.bestCheckpoint())?.score ?? Number.NEGATIVE_INFINITY;
  const scoreOf = (records: readonly StepRecord[], measured: Measured) =>
    evaluation
      ? measured[evaluationKeys(evaluation.samples).average]
      : records.at(-1)?.['train/reward_window'];
  return {
    saves: (step: number, measured: Measured) => {
      const better = evaluation !== null && (scoreOf([], measured) ?? Number.NEGATIVE_INFINITY) > best;
      return step % checkpoint.every === 0 || (checkpoint.keepBest > 0 && better);
    },
    save: async (step: number, records: readonly StepRecord[], measured: Measured) => {
      const score = scoreOf(records, measured);
      const state: TrainerState = {
        step,
        seed,
        promptsDrawn: step * batch.promptsPerStep,
        ...run.digests,
        measured,
      };
      const write = async (dir: string) => {
        await saveCheckpoint(dir, run.model, run.training, run.kept);
        await atomicWriteFile(join(dir, STATE), `${JSON.stringify(state, null, 2)}\n`);
      };
      const { keepLast, keepBest } = checkpoint;
      await directory.saveCheckpoint(step, write, { keepLast, keepBest, score });
      best = Math.max(best, score ?? best);
    },
  };
}

/** What was measured of the weights of a checkpoint, which has to be of the problems, and the base, that there are. */
async function readMeasured(
  { path }: Checkpoint,
  { problems, evaluated, base }: Digests,
  { data, model, evaluation }: TrainConfig,
  described: HuggingFaceConfig,
): Promise<Measured | undefined> {
  const state = await readJsonObject(WHERE, join(path, STATE));
  for (const [path, kept, found] of [
    [data, state.problems, problems],
    [evaluation?.data, state.evaluated ?? null, evaluated],
  ]) {
    if (kept === found) continue;
    invalid(WHERE, `${path} to have the problems that the run began with, by the same verifier`, 'others');
  }
  // An adapter's checkpoint has no configuration of a model.
  if (base === null) {
    const { decoder } = await readHuggingFaceConfig(path);
    if (!isDeepStrictEqual(decoder, described.decoder)) {
      invalid(WHERE, `${model} to be described as the run's checkpoints are (config.json)`, 'another model');
    }
  }
  if ((state.base ?? null) !== base) {
    invalid(WHERE, `${model} to be the model that the run's adapter was trained on`, 'another');
  }
  const measured = (isObject(state.measured) ? state.measured : {}) as Measured;
  // Where the run was interrupted before it is made up for.
  return Object.keys(measured).length === 0 ? undefined : measured;
}

function summarizeReward(records: readonly StepRecord[]): TrainSummary['reward'] {
  if (records.length === 0) return null;
  const windows = records.map((record) => record['train/reward_window']!);
  const first = windows[Math.min(WINDOW, windows.length) - 1]!;
  const full = windows.slice(WINDOW - 1);
  return { first, peak: Math.max(...(full.length > 0 ? full : windows)), last: windows.at(-1)! };
}

function summarizeEvaluation(
  { evaluation }: TrainConfig,
  { records, step, measured }: LoopResult,
): TrainSummary['evaluation'] {
  if (evaluation === null) return null;
  const { average, pass } = evaluationKeys(evaluation.samples);
  const all = [...records, { ...measured, step }].flatMap((record): EvaluationSummary[] => {
    const { step: at, [average]: mean, [pass]: passed } = record as StepRecord;
    return mean === undefined ? [] : [{ step: at!, average: mean, pass: passed! }];
  });
  const [first] = all;
  if (first === undefined) return null;
  const best = all.reduce((a, b) => (b.average >= a.average ? b : a));
  return { samples: evaluation.samples, first, best, last: all.at(-1)! };
}

function nameOf(checkpoint: Checkpoint | undefined, directory: RunDirectory): string | null {
  return checkpoint === undefined ? null : checkpoint.path.slice(directory.path.length + 1);
}
