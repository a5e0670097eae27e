import type { LossScaler } from '../training/lossScaler.js';
import type { StepRecord } from './record.js';

/** What loss scaling did in a run. */
export interface ScalingSummary {
  readonly final: number;
  /** Tries that overflowed. */
  readonly overflows: number;
  /** Mini-batches that were lost to overflow, and those that a retry at a lower scale saved. */
  readonly lostUpdates: number;
  readonly savedUpdates: number;
  /** Responses of the saved mini-batches; undefined in runs of before they were counted. */
  readonly savedResponses?: number;
}

export function summarizeScaling(
  records: readonly StepRecord[],
  scaler: Pick<LossScaler, 'scale' | 'state'>,
): ScalingSummary {
  const total = (key: string) => records.reduce((sum, record) => sum + (record[key] ?? 0), 0);
  return {
    final: scaler.scale,
    overflows: scaler.state().overflows,
    lostUpdates: total('train/skipped_updates'),
    savedUpdates: total('train/saved_updates'),
    savedResponses: total('train/saved_responses'),
  };
}
