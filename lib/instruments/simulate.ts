import { InvalidArgumentError } from '../errors.js';
import { RunDirectory } from '../io/runDirectory.js';
import { presetConfig } from '../rl/algorithms.js';
import { batchTotals } from '../rl/batch.js';
import type { AlgorithmConfig } from '../rl/config.js';
import { type CorrectionOptions, correct, corrects } from '../rl/corrections/correct.js';
import { losses } from '../rl/losses/index.js';
import { type PresetName, presetNames, presets } from '../rl/presets.js';
import { readRecording, recordedSteps, type StepRecording } from '../sanity/recording.js';

/** What one algorithm's correction would have done in one recorded step. */
export interface SimulatedStep {
  readonly step: number;
  /** Share of tokens that would still have taught: kept, with a weight above 0, in a group that has an advantage. */
  readonly keptShare: number;
  /** Effective sample size of the raw weights, as a share. */
  readonly ess: number;
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
  readonly droppedSequences: number;
  readonly signalShare: number;
  /** The first recorded step from which on so little is left that the policy would hardly have moved, or null. */
  readonly frozenAtStep: number | null;
}

export interface SimulationSummary {
  readonly run: string;
  readonly algorithm: string;
  readonly precision: { readonly training: string; readonly rollout: string };
  readonly recordedSteps: readonly number[];
  readonly simulations: readonly Simulation[];
}

/** Below this share of the signal, in every step from some step on, a policy counts as frozen. */
export const FROZEN_SHARE = 0.05;

/** Presets with a correction, which are those that there is something to simulate of. */
export const correctingPresets: readonly PresetName[] = presetNames.filter((name) =>
  corrects(presets[name].config as AlgorithmConfig),
);

/**
 * What each correction would have kept of a recorded run, without spending another: log mu, log pi_old and log pi of its
 * recorded steps, as they were. It says what a correction does to these samples; a run under it would soon have sampled
 * others.
 *
 * @throws InvalidArgumentError on a folder without a sanity run or without recorded log-probs
 */
export async function simulateCorrections(
  run: string,
  algorithms: readonly PresetName[] = correctingPresets,
  report?: (progress: { done: number; steps: number }) => void,
): Promise<SimulationSummary> {
  const { config } = await RunDirectory.open(run);
  const stored = config.config as Record<string, unknown> | undefined;
  if (config.command !== 'sanity' || stored === undefined) {
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
  const bySteps = new Map<PresetName, SimulatedStep[]>(algorithms.map((name) => [name, []]));
  for (const [i, step] of steps.entries()) {
    report?.({ done: i, steps: steps.length });
    const recording = await readRecording(run, step);
    for (const [name, list] of bySteps) list.push(simulateStep(recording, presetConfig(name)));
  }
  return {
    run,
    algorithm: String(stored.algorithm),
    precision: { training: String(stored.trainingPrecision), rollout: String(stored.rolloutPrecision) },
    recordedSteps: steps,
    simulations: [...bySteps].map(([algorithm, list]) => summarize(algorithm, list)),
  };
}

/** The correction of a configuration on one recorded step: of pi_old / mu, or of pi / mu as each update saw it. */
export function simulateStep(recording: StepRecording, config: AlgorithmConfig): SimulatedStep {
  const { step, offsets, mask, rollout, old, current, advantages } = recording;
  const ofOld = losses[config.loss].needsOld && config.mode !== 'bypass';
  // Where an update was left out, its responses were not looked at again.
  const seen = mask.map((counts, t) =>
    counts === 1 && Number.isFinite(ofOld ? old[t] : current[t]) ? 1 : 0,
  );
  const options: CorrectionOptions = config;
  const { kept, weights, metrics } = correct(
    { offsets, mask: seen, to: ofOld ? old : current, from: rollout },
    options,
  );
  const { tokens, sequences } = batchTotals(offsets, seen);
  let teaching = 0;
  let signal = 0;
  let all = 0;
  let dropped = 0;
  for (let s = 0; s + 1 < offsets.length; s++) {
    let counted = 0;
    let left = 0;
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
      if (seen[t] === 0) continue;
      counted++;
      const weight = kept[t] === 1 ? (weights?.[t] ?? 1) : 0;
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
    weightMax: metrics.weightMax ?? Number.NaN,
    droppedSequences: dropped / sequences,
    signalShare: all === 0 ? Number.NaN : signal / all,
  };
}

function summarize(algorithm: PresetName, steps: readonly SimulatedStep[]): Simulation {
  const mean = (of: (step: SimulatedStep) => number) => {
    const values = steps.map(of).filter((value) => !Number.isNaN(value));
    return values.reduce((sum, x) => sum + x, 0) / values.length;
  };
  const live = steps.findLastIndex(({ signalShare }) => signalShare >= FROZEN_SHARE);
  const measurable = steps.some(({ signalShare }) => !Number.isNaN(signalShare));
  return {
    algorithm,
    steps,
    keptShare: mean(({ keptShare }) => keptShare),
    ess: mean(({ ess }) => ess),
    droppedSequences: mean(({ droppedSequences }) => droppedSequences),
    signalShare: mean(({ signalShare }) => signalShare),
    frozenAtStep: measurable && live + 1 < steps.length ? steps[live + 1]!.step : null,
  };
}
