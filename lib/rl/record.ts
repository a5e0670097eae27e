import type { WarningInput } from '../mismatch/earlyWarning.js';
import type { MismatchMetrics } from '../mismatch/metrics.js';
import { memory } from '../runtime.js';
import type { StepResult } from '../training/engine.js';
import type { TrainerStep } from './trainer.js';

/** Steps that rewards are averaged over. */
export const WINDOW = 10;

/** A line of metrics.jsonl. */
export type StepRecord = { readonly step: number } & Readonly<Record<string, number>>;

/** The part of the mismatch metrics that summaries show. */
export interface MismatchSummary {
  /** KL[mu || pi] per token, first-order estimate, in nats. */
  readonly klMuPiK1: number;
  /** KL[mu || pi] per token, low-variance estimate, in nats. */
  readonly klMuPiK3: number;
  /** Greatest |pi - mu| of a token. */
  readonly maxProbDiff: number;
  /** Mean |log pi - log mu| per token, in nats. */
  readonly meanAbsLogRatio: number;
  /** Nats of log pi - log mu per 1,000 tokens. */
  readonly seqLogRatioPer1k: number;
}

export function summarizeMismatch(metrics: MismatchMetrics): MismatchSummary {
  const { klMuPiK1, klMuPiK3, meanAbsLogRatio, seqLogRatioPer1k, maxProbDiff, minProbDiff } = metrics;
  return {
    klMuPiK1,
    klMuPiK3,
    maxProbDiff: Math.max(maxProbDiff, -minProbDiff),
    meanAbsLogRatio,
    seqLogRatioPer1k,
  };
}

/** One flat record of a step, under `group/name` keys. Times and memory are the only values that differ between runs. */
export function recordOf(
  { step, reward, mismatch, routing, entropy, updates, logprobs, trajectories, seconds }: TrainerStep,
  run: { window: number; overflows: number; lossScale: number; warned: boolean; totalSeconds: number },
): StepRecord {
  const last = updates.at(-1)!;
  const tokens = trajectories.reduce((sum, { completion }) => sum + completion.tokens.length, 0);
  const stepSeconds = seconds.rollout + seconds.score + seconds.train;
  const record: Record<string, number> & { step: number } = {
    step,
    'train/reward': reward,
    'train/reward_window': run.window,
    'train/loss': mean(updates.map(({ loss }) => loss)),
    'train/grad_norm': mean(updates.map(({ gradNorm }) => gradNorm)),
    'train/learning_rate': last.learningRate,
    'train/entropy': entropy,
    'train/response_tokens': tokens / trajectories.length,
    'train/truncated_share':
      trajectories.filter(({ completion }) => completion.finishReason === 'length').length /
      trajectories.length,
    'train/skipped_updates': updates.filter(({ skipped }) => skipped).length,
    'train/saved_updates': updates.filter(saved).length,
    'train/saved_responses': logprobs.update.filter((u) => saved(updates[u]!)).length,
    'scaler/scale': run.lossScale,
    'scaler/overflows': run.overflows,
    'warning/fired': run.warned ? 1 : 0,
    'memory/peak_bytes': memory().peakBytes,
    'time/rollout_s': seconds.rollout,
    'time/score_s': seconds.score,
    'time/train_s': seconds.train,
    'time/step_s': stepSeconds,
    'time/total_s': run.totalSeconds,
    'time/tokens_per_s': tokens / stepSeconds,
  };
  for (const [name, value] of Object.entries(mismatch)) {
    // Where all responses have one length there is no slope, which isn't news at every step.
    if (name !== 'seqLogRatioSlopePer1k' || !Number.isNaN(value)) record[`mismatch/${name}`] = value;
  }
  if (routing) {
    record['routing/flip_share'] = routing.flipShare;
    record['routing/auxiliary_loss'] = routing.auxiliaryLoss;
    record['routing/max_expert_share'] = routing.maxExpertShare;
  }
  // Of the last update, where the policy has moved furthest from the one that sampled.
  for (const [name, value] of Object.entries(last.metrics)) record[`algorithm/${name}`] = value;
  return record;
}

/** Mean of the last {@link WINDOW} rewards up to `step` (of fewer at the beginning). */
export function windowMean(rewards: readonly number[], step: number): number {
  const window = rewards.slice(Math.max(0, step + 1 - WINDOW), step + 1);
  return window.length === 0 ? 0 : window.reduce((sum, r) => sum + r, 0) / window.length;
}

/** Whether an update overflowed, and a retry at a lower scale saved its responses. */
function saved({ skipped, retries }: StepResult): boolean {
  return !skipped && retries > 0;
}

/** What the early warning reads of a step, from its record. */
export function warningInput(record: StepRecord): WarningInput {
  const value = (name: keyof WarningInput) => record[`mismatch/${name}`] ?? Number.NaN;
  return {
    maxProbDiff: value('maxProbDiff'),
    minProbDiff: value('minProbDiff'),
    meanAbsLogRatio: value('meanAbsLogRatio'),
  };
}

/** Means over steps; of the greatest probability difference, the greatest. */
export function meanMismatch(records: readonly StepRecord[]): MismatchSummary {
  const column = (name: string) => records.map((record) => record[`mismatch/${name}`]!);
  return {
    klMuPiK1: mean(column('klMuPiK1')),
    klMuPiK3: mean(column('klMuPiK3')),
    maxProbDiff: Math.max(...column('maxProbDiff'), ...column('minProbDiff').map((x) => -x)),
    meanAbsLogRatio: mean(column('meanAbsLogRatio')),
    seqLogRatioPer1k: mean(column('seqLogRatioPer1k')),
  };
}

function mean(values: readonly number[]): number {
  return values.length === 0 ? Number.NaN : values.reduce((sum, x) => sum + x, 0) / values.length;
}
