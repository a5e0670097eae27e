import { join } from 'node:path';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { makeWritableFolder } from '../io/folder.js';
import type { Checkpoint, RunDirectory } from '../io/runDirectory.js';
import type { Warning } from '../mismatch/earlyWarning.js';
import type { TokenSequence } from '../models/sequences.js';
import type { Algorithm } from '../rl/batch.js';
import { engineNumerics } from '../rl/engineChoices.js';
import { sampleDraws } from '../rl/environment.js';
import { loadAlgorithm } from '../rl/load.js';
import {
  type MismatchSummary,
  meanMismatch,
  type StepRecord,
  summarizeMismatch,
  WINDOW,
} from '../rl/record.js';
import { type ScalingSummary, summarizeScaling } from '../rl/scaling.js';
import { Trainer } from '../rl/trainer.js';
import { findStart, type LoopResult, recordsBefore, trainingLoop } from '../rl/trainingLoop.js';
import { RolloutEngine } from '../rollout/engine.js';
import { loadCheckpoint, saveCheckpoint } from '../training/checkpoint.js';
import { TrainingEngine } from '../training/engine.js';
import { createLossScaler, type LossScaler } from '../training/lossScaler.js';
import { prepareBase } from './base.js';
import { responseLengthOf, type SanityConfig } from './config.js';
import { effectSettings, measureMismatch, type Setting } from './effect.js';
import { reopen } from './openSubject.js';
import { SET_FILE } from './setFile.js';
import { prepareSource } from './source.js';
import { taskName } from './sourceConfig.js';
import type { Start, StartEvent, Subject } from './subject.js';
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
  readonly lossScale: ScalingSummary;
  /** The first warning of a growing mismatch, or null; beside `collapsedAtStep` it tells how long before. */
  readonly warning: Warning | null;
  /** Problems in the set, problems tried, and the base's accuracy on those. */
  readonly set: { readonly problems: number; readonly tried: number; readonly baseAccuracy: number };
  /** The final weights on the same tokens in other settings; empty when interrupted. */
  readonly effect: readonly (Setting & MismatchSummary)[];
}

/** What a run tells while it goes on. */
export type SanityEvent =
  | StartEvent
  | { readonly kind: 'resume'; readonly step: number }
  | { readonly kind: 'step'; readonly record: StepRecord; readonly steps: number }
  | { readonly kind: 'effect'; readonly setting: Setting };

export interface RunOptions {
  readonly directory: RunDirectory;
  /** A folder for TensorBoard event files, beside metrics.jsonl. */
  readonly tensorboard?: string;
  /** A folder that keeps the base, or the set of a checkpoint; see {@link prepareBase} and `selectProblems`. */
  readonly base?: string;
  /** Aborting it ends the run after the step that is running, with a checkpoint. */
  readonly signal?: AbortSignal;
  readonly report?: (event: SanityEvent) => void;
}

const EFFECT_SEQUENCES = 512;
/** Draw names beyond those of any step. */
const EFFECT_PROMPTS = 2 ** 30;

/**
 * The paper's sanity test (arXiv 2510.26788): take a checkpoint, or teach a small model until it is partly right, keep the
 * problems that it solves 20 % to 80 % of the time, and train on those; a sound setup reaches 95 % training accuracy.
 *
 * Everything is a function of the configuration: a run that was stopped, or killed, and resumed ends with the same
 * bits as one that was not.
 */
export async function runSanity(config: SanityConfig, options: RunOptions): Promise<SanitySummary> {
  const { directory, signal, report } = options;
  const started = performance.now();
  const algorithm = await configuredAlgorithm(config);
  if (options.tensorboard !== undefined) {
    await makeWritableFolder('sanity', 'tensorboard', options.tensorboard);
  }
  const checkpoint = await findStart('sanity', directory);
  await using start = checkpoint
    ? await reopen(config, directory.path, checkpoint.path)
    : await newStart(config, options);
  const secondsIn = () => (performance.now() - started) / 1e3;
  if (start === null || (signal?.aborted && !checkpoint)) {
    return summarize(config, directory, {
      loop: { step: 0, records: [], rewards: [], measured: {}, warning: null },
      seconds: secondsIn(),
      scaler: createLossScaler(config.lossScaler),
      set: start?.set ?? { indices: [], tried: 0, accuracy: 0 },
      interrupted: true,
      effect: [],
    });
  }
  const trained = await train(config, start, { ...options, checkpoint, algorithm, secondsIn });
  const effect: (Setting & MismatchSummary)[] = [];
  const { sequences } = trained;
  // The engines of the run are gone by now: each setting has engines of its own.
  for (const setting of sequences.length === 0 ? [] : effectSettings) {
    report?.({ kind: 'effect', setting });
    effect.push({
      ...setting,
      ...summarizeMismatch(await measureMismatch(start.model, sequences, setting)),
    });
  }
  return summarize(config, directory, {
    ...trained,
    seconds: trained.secondsBefore + secondsIn(),
    set: start.set,
    effect,
  });
}

/** What the steps of a run leave to its summary. */
interface Trained {
  readonly loop: LoopResult;
  readonly interrupted: boolean;
  readonly scaler: LossScaler;
  /** Seconds of the run before it was resumed. */
  readonly secondsBefore: number;
  /** What the effect is measured on; none of a run that was interrupted or diverged. */
  readonly sequences: readonly TokenSequence[];
}

/** Runs the steps that are left. */
async function train(
  config: SanityConfig,
  start: Start,
  options: RunOptions & {
    readonly checkpoint: Checkpoint | undefined;
    readonly algorithm: Algorithm;
    readonly secondsIn: () => number;
  },
): Promise<Trained> {
  const { directory, signal, report, checkpoint, algorithm, secondsIn } = options;
  const { model } = start;
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
    directory.saveCheckpoint(step, (dir) => saveCheckpoint(dir, model, training, start.origin));

  const records: StepRecord[] = [];
  if (checkpoint) {
    await loadCheckpoint(checkpoint.path, model, training);
    records.push(...(await recordsBefore(directory, checkpoint)));
    report?.({ kind: 'resume', step: checkpoint.step });
  } else {
    await save(0);
  }
  const secondsBefore = records.at(-1)?.['time/total_s'] ?? 0;
  const passed = (rewards: readonly number[]) =>
    config.stopWhenPassed && judge(rewards, responsesPerStep(config)).passed;
  const loop = await trainingLoop({
    directory,
    trainer: new Trainer(rollout, training, start.environment, { ...config, algorithm }),
    scaler: training.scaler,
    records,
    steps: config.steps,
    format: (tokens) => start.format(tokens),
    save,
    saves: (step) => step % config.checkpointEvery === 0,
    recordEvery: config.recordEvery,
    ended: passed,
    seconds: () => secondsBefore + secondsIn(),
    tensorboard: options.tensorboard,
    signal,
    report: (record) => report?.({ kind: 'step', record, steps: config.steps }),
  });
  const { step, divergence, rewards } = loop;
  const ended = step >= config.steps || divergence !== undefined || passed(rewards);
  const interrupted = signal?.aborted === true && !ended;
  return {
    loop,
    interrupted,
    scaler: training.scaler,
    secondsBefore,
    sequences:
      interrupted || divergence !== undefined ? [] : await sampleSequences(rollout, start, config.seed),
  };
}

function responsesPerStep({ promptsPerStep, groupSize }: SanityConfig): number {
  return promptsPerStep * groupSize;
}

/** Judges a run and writes its summary. */
async function summarize(
  config: SanityConfig,
  directory: RunDirectory,
  run: {
    readonly loop: LoopResult;
    readonly seconds: number;
    readonly scaler: LossScaler;
    readonly set: Start['set'];
    readonly interrupted: boolean;
    readonly effect: SanitySummary['effect'];
  },
): Promise<SanitySummary> {
  const { loop, set } = run;
  const { step, divergence } = loop;
  const judged = judge(loop.rewards, responsesPerStep(config));
  const verdict =
    divergence === undefined
      ? judged
      : { ...judged, passed: false, collapsedAtStep: judged.collapsedAtStep ?? step, recovered: false };
  const summary: SanitySummary = {
    ...verdict,
    steps: step,
    seconds: run.seconds,
    precision: { training: config.trainingPrecision, rollout: config.rolloutPrecision },
    algorithm: config.algorithm,
    numerics: config.numerics,
    task: taskName(config),
    seed: config.seed,
    interrupted: run.interrupted,
    ...(divergence !== undefined && { divergence }),
    mismatch: loop.records.length === 0 ? null : meanMismatch(loop.records.slice(-WINDOW)),
    lossScale: summarizeScaling(loop.records, run.scaler),
    warning: loop.warning,
    set: { problems: set.indices.length, tried: set.tried, baseAccuracy: set.accuracy },
    effect: run.effect,
  };
  await directory.writeSummary(summary);
  return summary;
}

/**
 * The algorithm of a run. Constant-length norms divide by the longest response there can be, as the paper does with its
 * 8192.
 */
export async function configuredAlgorithm(config: SanityConfig): Promise<Algorithm> {
  const { algorithm, algorithmParameters } = config;
  return loadAlgorithm(algorithm, algorithmParameters, { constantLength: responseLengthOf(config) });
}

/** What a run begins from, or null where the making of it was interrupted. */
async function newStart(
  config: SanityConfig,
  { directory, base: folder, signal, report }: RunOptions,
): Promise<Start | null> {
  const kept = folder ?? ('source' in config ? config.base : undefined);
  const options = {
    ...(kept !== undefined && { directory: kept }),
    ...(signal && { signal }),
    ...(report && { report }),
  };
  if ('source' in config) return prepareSource(config, directory.path, options);
  const base = await prepareBase(config, options);
  if (base !== null) {
    await atomicWriteFile(join(directory.path, SET_FILE), `${JSON.stringify(base.set)}\n`);
  }
  return base;
}

/** Responses of the final policy to the problems of the set, for both engines to score. */
async function sampleSequences(
  rollout: RolloutEngine,
  { environment }: Subject,
  seed: number,
): Promise<TokenSequence[]> {
  rollout.syncWeights();
  const { prompts } = environment;
  const draws = Array.from({ length: EFFECT_SEQUENCES }, (_, i) => ({
    prompt: i % prompts.length,
    promptId: EFFECT_PROMPTS + i,
    sampleId: 0,
  }));
  const completions = await sampleDraws(rollout, environment, draws, seed);
  return completions.map(({ tokens }, i) => ({ prompt: prompts[draws[i]!.prompt]!, response: tokens }));
}
