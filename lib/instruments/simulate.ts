import { join } from 'node:path';
import { checkChoice, InvalidArgumentError } from '../errors.js';
import { PointLog } from '../io/pointLog.js';
import { RunDirectory } from '../io/runDirectory.js';
import { type AlgorithmParameters, createAlgorithm, presetConfig } from '../rl/algorithms.js';
import { batchTotals } from '../rl/batch.js';
import type { AlgorithmConfig } from '../rl/config.js';
import {
  type Correction,
  type CorrectionOptions,
  correct,
  corrects,
  FROZEN_SHARE,
} from '../rl/corrections/correct.js';
import type { RatioBatch } from '../rl/corrections/ratioBatch.js';
import { losses } from '../rl/losses/index.js';
import { type PresetName, presetNames, presets } from '../rl/presets.js';
import { effectiveSampleSize } from '../rl/ratios.js';
import { readRecording, recordedSteps, type StepRecording } from '../rl/recording.js';

/** What one algorithm's correction would have done in one recorded step. */
export interface SimulatedStep {
  readonly step: number;
  /** Share of tokens that would still have taught: kept, with a weight above 0, in a group that has an advantage. */
  readonly keptShare: number;
  /** Effective sample size of the raw weights, as a share; NaN for a correction without weights. */
  readonly ess: number;
  /**
   * Effective sample size of the weights as the correction leaves them, 0 at what it rejects and 1 where it has none, as a
   * share of the tokens; 0 where nothing is left. Undefined in runs of before it was measured.
   */
  readonly essLeft?: number;
  readonly weightMax: number;
  /** Share of the responses of which nothing would have been left. */
  readonly droppedSequences: number;
  /** Share of the uncorrected gradient's coefficients (sum of |A| over tokens) that would have been left. */
  readonly signalShare: number;
}

/** One algorithm over a recorded run. */
export interface Simulation {
  readonly algorithm: PresetName;
  readonly steps: readonly SimulatedStep[];
  /** Means over the steps. */
  readonly keptShare: number;
  readonly ess: number;
  /** Undefined in runs of before it was measured. */
  readonly essLeft?: number;
  readonly droppedSequences: number;
  readonly signalShare: number;
  /** The first recorded step from which on less than {@link FROZEN_SHARE} is left at every step, or null. */
  readonly frozenAtStep: number | null;
}

/** What is asked for. */
export interface SimulateOptions {
  /** The folder of a sanity run. */
  readonly run: string;
  /** Default {@link correctingPresets}. */
  readonly algorithms?: readonly string[];
  /** Parameters that each of them is given, such as a veto. */
  readonly algorithmParameters?: AlgorithmParameters;
}

export interface SimulateConfig {
  readonly run: string;
  readonly algorithms: readonly PresetName[];
  /** Undefined in runs of before there were any. */
  readonly algorithmParameters?: AlgorithmParameters;
}

export interface SimulationSummary {
  readonly run: string;
  readonly algorithm: string;
  readonly precision: { readonly training: string; readonly rollout: string };
  readonly recordedSteps: readonly number[];
  readonly simulations: readonly Simulation[];
  readonly interrupted: boolean;
}

/** Presets with a correction, which are those that there is something to simulate of. */
export const correctingPresets: readonly PresetName[] = presetNames.filter((name) =>
  corrects(presets[name].config as AlgorithmConfig),
);

/**
 * Checks options and fills in the default, each algorithm once.
 *
 * @throws InvalidArgumentError on an unknown algorithm (naming the nearest) or bad parameters, or a folder without a
 * sanity run or without recorded log-probs
 */
export async function resolveSimulateOptions({
  run,
  algorithms,
  algorithmParameters = {},
}: SimulateOptions): Promise<SimulateConfig> {
  const names = (algorithms ?? correctingPresets).map((name) =>
    checkChoice('simulate', 'each algorithm', name as PresetName, presetNames),
  );
  for (const name of names) createAlgorithm(name, algorithmParameters);
  await openRecorded(run);
  return { run, algorithms: [...new Set(names)], algorithmParameters };
}

/** What a sanity run was and which of its steps are recorded. */
async function openRecorded(run: string): Promise<{ of: Record<string, unknown>; steps: number[] }> {
  const { config } = await RunDirectory.open(run);
  const of = config.config as Record<string, unknown> | undefined;
  if (config.command !== 'sanity' || of === undefined) {
    throw new InvalidArgumentError(
      `[simulate] expected the folder of a sanity run, got one of ${JSON.stringify(config.command)}: ${run}`,
    );
  }
  const steps = await recordedSteps(run);
  if (steps.length === 0) {
    throw new InvalidArgumentError(
      `[simulate] expected recorded log-probs in ${run}/logprobs, got none: run sanity with --record-every 1 or more`,
    );
  }
  return { of, steps };
}

/**
 * What each correction would have kept of a recorded run, without spending another: log mu, log pi_old and log pi of its
 * recorded steps, as they were. It says what a correction does to these samples; a run under it would soon have sampled
 * others. Steps that the directory has already are not looked at again.
 *
 * @throws InvalidArgumentError on a folder without a sanity run or without recorded log-probs
 */
export async function simulateCorrections(
  { run, algorithms, algorithmParameters }: SimulateConfig,
  options: {
    readonly directory: RunDirectory;
    readonly signal?: AbortSignal;
    readonly report?: (progress: { done: number; steps: number }) => void;
  },
): Promise<SimulationSummary> {
  const { directory, signal, report } = options;
  const { of, steps } = await openRecorded(run);
  const log = await PointLog.open<SimulatedStep[]>(join(directory.path, 'points.jsonl'));
  const points: SimulatedStep[][] = [];
  for (const step of steps) {
    if (signal?.aborted) break;
    report?.({ done: points.length, steps: steps.length });
    const point = await log.measured(`step ${step}`, async () => {
      const recording = await readRecording(run, step);
      return algorithms.map((name) => simulateStep(recording, presetConfig(name, algorithmParameters)));
    });
    points.push(point);
  }
  const summary: SimulationSummary = {
    run,
    algorithm: String(of.algorithm),
    precision: { training: String(of.trainingPrecision), rollout: String(of.rolloutPrecision) },
    recordedSteps: steps.slice(0, points.length),
    simulations: algorithms.map((algorithm, a) =>
      summarize(
        algorithm,
        points.map((point) => point[a]!),
      ),
    ),
    interrupted: points.length < steps.length,
  };
  if (!summary.interrupted) await directory.writeSummary(summary);
  return summary;
}

/** The correction of a configuration on one recorded step: of pi_old / mu, or of pi / mu as each update saw it. */
export function simulateStep(recording: StepRecording, config: AlgorithmConfig): SimulatedStep {
  const { step, offsets, mask, rollout, old, current, update, advantages } = recording;
  const ofOld = losses[config.loss].needsOld && config.mode !== 'bypass';
  // Where an update was left out, its responses were not looked at again.
  const seen = mask.map((counts, t) =>
    counts === 1 && Number.isFinite(ofOld ? old[t] : current[t]) ? 1 : 0,
  );
  const { kept, weights, metrics } = correctStep(
    { offsets, mask: seen, to: ofOld ? old : current, from: rollout },
    update,
    config,
  );
  const { tokens, sequences } = batchTotals(offsets, seen);
  let teaching = 0;
  let signal = 0;
  let all = 0;
  let dropped = 0;
  const logWeights: number[] = [];
  for (let s = 0; s + 1 < offsets.length; s++) {
    let counted = 0;
    let left = 0;
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (seen[t] === 0) continue;
      counted++;
      const weight = kept[t] === 1 ? (weights?.[t] ?? 1) : 0;
      logWeights.push(Math.log(weight));
      all += Math.abs(advantages[s]!);
      signal += Math.abs(advantages[s]!) * Math.min(weight, 1);
      if (weight > 0) left++;
      if (weight > 0 && advantages[s] !== 0) teaching++;
    }
    if (counted > 0 && left === 0) dropped++;
  }
  return {
    step,
    keptShare: teaching / tokens,
    ess: metrics.ess ?? Number.NaN,
    essLeft: logWeights.every((log) => log === -Infinity) ? 0 : effectiveSampleSize(logWeights),
    weightMax: metrics.weightMax ?? Number.NaN,
    droppedSequences: dropped / sequences,
    signalShare: all === 0 ? Number.NaN : signal / all,
  };
}

/** The correction of a whole step; weights that are normalised are so over each update's responses, as in training. */
function correctStep(batch: RatioBatch, update: Int32Array, options: CorrectionOptions): Correction {
  const whole = correct(batch, options);
  if (!options.importance?.batchNormalize) return whole;
  const weights = new Float64Array(batch.mask.length);
  for (const own of new Set(update)) {
    const mask = batch.mask.slice();
    update.forEach((of, s) => {
      if (of !== own) mask.fill(0, batch.offsets[s], batch.offsets[s + 1]);
    });
    // 0 at masked positions.
    correct({ ...batch, mask }, options).weights?.forEach((weight, t) => {
      weights[t]! += weight;
    });
  }
  return { ...whole, weights };
}

function summarize(algorithm: PresetName, steps: readonly SimulatedStep[]): Simulation {
  const mean = (of: (step: SimulatedStep) => number) => {
    const values = steps.map(of).filter((value) => !Number.isNaN(value));
    return values.reduce((sum, x) => sum + x, 0) / values.length;
  };
  // A step in which no response had an advantage has nothing to keep: it says nothing of a correction.
  const measurable = steps.filter(({ signalShare }) => !Number.isNaN(signalShare));
  const live = measurable.findLastIndex(({ signalShare }) => signalShare >= FROZEN_SHARE);
  return {
    algorithm,
    steps,
    keptShare: mean(({ keptShare }) => keptShare),
    ess: mean(({ ess }) => ess),
    essLeft: mean(({ essLeft = Number.NaN }) => essLeft),
    droppedSequences: mean(({ droppedSequences }) => droppedSequences),
    signalShare: mean(({ signalShare }) => signalShare),
    frozenAtStep: measurable[live + 1]?.step ?? null,
  };
}
