import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { makeWritableFolder } from '../io/folder.js';
import type { RunDirectory } from '../io/runDirectory.js';
import type { Warning } from '../mismatch/earlyWarning.js';
import { Decoder } from '../models/decoder.js';
import type { TokenSequence } from '../models/sequences.js';
import type { Algorithm } from '../rl/batch.js';
import { engineNumerics } from '../rl/engineChoices.js';
import { taskEnvironment } from '../rl/environment.js';
import { loadAlgorithm } from '../rl/load.js';
import {
  type MismatchSummary,
  meanMismatch,
  type StepRecord,
  summarizeMismatch,
  WINDOW,
} from '../rl/record.js';
import { Trainer } from '../rl/trainer.js';
import { findStart, type LoopResult, recordsBefore, trainingLoop } from '../rl/trainingLoop.js';
import { RolloutEngine } from '../rollout/engine.js';
import { createTask } from '../tasks/index.js';
import type { Task } from '../tasks/task.js';
import { loadCheckpoint, saveCheckpoint } from '../training/checkpoint.js';
import { TrainingEngine } from '../training/engine.js';
import { type BaseEvent, prepareBase } from './base.js';
import { decoderConfig } from './baseConfig.js';
import type { SanityConfig } from './config.js';
import { effectSettings, measureMismatch, type Setting } from './effect.js';
import type { PerfectibleSet } from './perfectible.js';
import { judge, type Verdict } from './verdict.js';

export interface SanitySummary extends Verdict {
  readonly steps: number;
  readonly seconds: number;
  readonly precision: { readonly training: string; readonly rollout: string };
  readonly algorithm: string;
  readonly numerics: string;
  readonly task: string;
  readonly seed: number;
  /** Whether it was stopped before its end; such a run can be resumed. */
  readonly interrupted: boolean;
  /**
   * Why nothing could be sampled in the step after the last: logits that are not finite. Such a run counts as collapsed in
   * that step. Undefined where that did not happen.
   */
  readonly divergence?: string;
  /** Means over the last window of steps (maxProbDiff: the greatest over it); null before the first step. */
  readonly mismatch: MismatchSummary | null;
  readonly lossScale: {
    readonly final: number;
    /** Tries that overflowed. */
    readonly overflows: number;
    /** Mini-batches that were lost to overflow, and those that a retry at a lower scale saved. */
    readonly lostUpdates: number;
    readonly savedUpdates: number;
    /** Responses of the saved mini-batches; undefined in runs of before they were counted. */
    readonly savedResponses?: number;
  };
  /** The first warning of a growing mismatch, or null; beside `collapsedAtStep` it tells how long before. */
  readonly warning: Warning | null;
  /** Problems in the set, problems tried, and the base's accuracy on those. */
  readonly set: { readonly problems: number; readonly tried: number; readonly baseAccuracy: number };
  /** The final weights on the same tokens in other settings; empty when interrupted. */
  readonly effect: readonly (Setting & MismatchSummary)[];
}

/** What a run tells while it goes on. */
export type SanityEvent =
  | BaseEvent
  | { readonly kind: 'resume'; readonly step: number }
  | { readonly kind: 'step'; readonly record: StepRecord; readonly steps: number }
  | { readonly kind: 'effect'; readonly setting: Setting };

export interface RunOptions {
  readonly directory: RunDirectory;
  /** A folder for TensorBoard event files, beside metrics.jsonl. */
  readonly tensorboard?: string;
  /** A folder that keeps the base; see {@link prepareBase}. */
  readonly base?: string;
  /** Aborting it ends the run after the step that is running, with a checkpoint. */
  readonly signal?: AbortSignal;
  readonly report?: (event: SanityEvent) => void;
}

const SET_FILE = 'set.json';
const EFFECT_SEQUENCES = 512;
/** Draw names beyond those of any step. */
const EFFECT_PROMPTS = 2 ** 30;

/**
 * The paper's sanity test (arXiv 2510.26788): teach a small model until it is partly right, keep the problems that it
 * solves 20 % to 80 % of the time, and train on those; a sound setup reaches 95 % training accuracy.
 *
 * Everything is a function of the configuration: a run that was stopped, or killed, and resumed ends with the same
 * bits as one that was not.
 */
export async function runSanity(config: SanityConfig, options: RunOptions): Promise<SanitySummary> {
  const { directory, signal, report } = options;
  const started = performance.now();
  const task = createTask(config.task);
  const algorithm = await configuredAlgorithm(config);
  if (options.tensorboard !== undefined) {
    await makeWritableFolder('sanity', 'tensorboard', options.tensorboard);
  }
  const checkpoint = await findStart('sanity', directory);
  const start = checkpoint
    ? {
        model: new Decoder(decoderConfig(config), { seed: config.baseSeed }),
        set: await readSet(directory.path),
      }
    : await newStart(config, options);
  using model = start.model;
  const { set } = start;

  const numerics = engineNumerics(config.numerics);
  const totalUpdates = config.steps * config.updatesPerStep;
  const warmup = Math.min(config.warmupSteps * config.updatesPerStep, totalUpdates - 1);
  using training = new TrainingEngine(model, {
    precision: config.trainingPrecision,
    numerics: numerics.training,
    schedule: {
      kind: config.schedule,
      learningRate: config.learningRate,
      warmupSteps: warmup,
      totalSteps: totalUpdates,
      minRatio: 0.02,
    },
    lossScaler: config.lossScaler,
    overflow: config.overflow,
  });
  using rollout = new RolloutEngine(model, {
    precision: config.rolloutPrecision,
    numerics: numerics.rollout,
  });
  const save = (step: number) =>
    directory.saveCheckpoint(step, (dir) => saveCheckpoint(dir, model, training));

  const records: StepRecord[] = [];
  if (checkpoint) {
    await loadCheckpoint(checkpoint.path, model, training);
    records.push(...(await recordsBefore(directory, checkpoint)));
    report?.({ kind: 'resume', step: checkpoint.step });
  } else if (!signal?.aborted) {
    await save(0);
  }
  const secondsBefore = records.at(-1)?.['time/total_s'] ?? 0;
  const seconds = () => secondsBefore + (performance.now() - started) / 1e3;

  const responsesPerStep = config.promptsPerStep * config.groupSize;
  // Where the making of the base was interrupted there is nothing to train on.
  const nothing: LoopResult = { step: 0, records: [], rewards: [], measured: {}, warning: null };
  const run = () => {
    const prompts = set.indices.map((index) => task.problem(config.baseSeed, index));
    return trainingLoop({
      directory,
      trainer: new Trainer(rollout, training, taskEnvironment(task, prompts), { ...config, algorithm }),
      scaler: training.scaler,
      records,
      steps: config.steps,
      format: (tokens) => task.format(tokens),
      save,
      saves: (step) => step % config.checkpointEvery === 0,
      recordEvery: config.recordEvery,
      ended: (rewards) => config.stopWhenPassed && judge(rewards, responsesPerStep).passed,
      seconds,
      tensorboard: options.tensorboard,
      signal,
      report: (record) => report?.({ kind: 'step', record, steps: config.steps }),
    });
  };
  const loop = signal?.aborted && !checkpoint ? nothing : await run();
  const { step, rewards, divergence } = loop;

  const judged = judge(rewards, responsesPerStep);
  const verdict =
    divergence === undefined
      ? judged
      : { ...judged, passed: false, collapsedAtStep: judged.collapsedAtStep ?? step, recovered: false };
  const ended = step >= config.steps || divergence !== undefined || (config.stopWhenPassed && verdict.passed);
  const interrupted = signal?.aborted === true && !ended;
  const effect: (Setting & MismatchSummary)[] = [];
  if (!interrupted && divergence === undefined) {
    const sequences = await sampleSequences(rollout, task, set.indices, config);
    for (const setting of effectSettings) {
      report?.({ kind: 'effect', setting });
      effect.push({ ...setting, ...summarizeMismatch(await measureMismatch(model, sequences, setting)) });
    }
  }
  const summary: SanitySummary = {
    ...verdict,
    steps: step,
    seconds: seconds(),
    precision: { training: config.trainingPrecision, rollout: config.rolloutPrecision },
    algorithm: config.algorithm,
    numerics: config.numerics,
    task: config.task,
    seed: config.seed,
    interrupted,
    ...(divergence !== undefined && { divergence }),
    mismatch: loop.records.length === 0 ? null : meanMismatch(loop.records.slice(-WINDOW)),
    lossScale: {
      final: training.scaler.scale,
      overflows: training.scaler.state().overflows,
      lostUpdates: total(loop.records, 'train/skipped_updates'),
      savedUpdates: total(loop.records, 'train/saved_updates'),
      savedResponses: total(loop.records, 'train/saved_responses'),
    },
    warning: loop.warning,
    set: { problems: set.indices.length, tried: set.tried, baseAccuracy: set.accuracy },
    effect,
  };
  await directory.writeSummary(summary);
  return summary;
}

function total(records: readonly StepRecord[], key: string): number {
  return records.reduce((sum, record) => sum + (record[key] ?? 0), 0);
}

/**
 * The algorithm of a run. Constant-length norms divide by the longest response there can be, as the paper does with its
 * 8192.
 */
export async function configuredAlgorithm({
  task,
  algorithm,
  algorithmParameters,
}: Pick<SanityConfig, 'task' | 'algorithm' | 'algorithmParameters'>): Promise<Algorithm> {
  const { responseLength } = createTask(task);
  return loadAlgorithm(algorithm, algorithmParameters, { constantLength: responseLength });
}

/** The base of a run that begins, and where it was interrupted a set without problems. */
async function newStart(
  config: SanityConfig,
  { directory, base: folder, signal, report }: RunOptions,
): Promise<{ model: Decoder; set: PerfectibleSet }> {
  const base = await prepareBase(config, {
    ...(folder !== undefined && { directory: folder }),
    ...(signal && { signal }),
    ...(report && { report }),
  });
  if (base === null) {
    const model = new Decoder(decoderConfig(config), { seed: config.baseSeed });
    return { model, set: { indices: [], tried: 0, accuracy: 0 } };
  }
  await atomicWriteFile(join(directory.path, SET_FILE), `${JSON.stringify(base.set)}\n`);
  return base;
}

/** The perfectible set of the run in `path`. */
export async function readSet(path: string): Promise<PerfectibleSet> {
  const file = join(path, SET_FILE);
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new InvalidArgumentError(`[sanity] expected ${file} to be readable JSON`, { cause });
  }
}

/** Responses of the final policy to the problems of the set, for both engines to score. */
async function sampleSequences(
  rollout: RolloutEngine,
  task: Task,
  indices: readonly number[],
  { baseSeed, seed }: SanityConfig,
): Promise<TokenSequence[]> {
  rollout.syncWeights();
  const requests = Array.from({ length: EFFECT_SEQUENCES }, (_, i) => ({
    prompt: task.problem(baseSeed, indices[i % indices.length]!),
    promptId: EFFECT_PROMPTS + i,
    sampleId: 0,
  }));
  const completions = await rollout.generate(requests, {
    seed,
    maxNewTokens: task.responseLength,
    stopTokens: task.stopToken === undefined ? [] : [task.stopToken],
  });
  return completions.map(({ tokens }, i) => ({ prompt: requests[i]!.prompt, response: tokens }));
}
