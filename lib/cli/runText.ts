/** What the reports of all training runs say in the same words. */
import type { Warning } from '../mismatch/earlyWarning.js';
import type { ScalingSummary } from '../rl/scaling.js';
import { count, formatNumber, formatScale } from './format.js';

export function precisionText(training: string, rollout: string): string {
  return training === rollout ? training : `${training} training, ${rollout} rollout`;
}

/** What the loss scaler did. */
export function scalingText(scaling: ScalingSummary, lossScaler: string): string {
  const { final, overflows, savedUpdates, savedResponses, lostUpdates } = scaling;
  const rollouts = savedResponses === undefined ? '' : `, with ${count(savedResponses, 'rollout')}`;
  const fate = [
    ...(savedUpdates > 0 ? [`${savedUpdates} saved by a retry${rollouts}`] : []),
    ...(lostUpdates > 0 ? [`${lostUpdates} lost`] : []),
  ];
  const text = lossScaler === 'none' ? 'no loss scaling' : `${lossScaler} loss scale ${formatScale(final)}`;
  const updates = fate.length === 0 ? '' : ` (updates: ${fate.join(', ')})`;
  return `${text}${lossScaler === 'none' && overflows === 0 ? '' : `, ${count(overflows, 'overflow')}`}${updates}`;
}

/** The first warning of a growing mismatch. */
export function warningText({ step, signal, value }: Warning): string {
  const what =
    signal === 'growth'
      ? `the mismatch was ${formatNumber(value, 2)} times what it was at the start`
      : `single tokens differed by ${formatNumber(value, 2)} in probability`;
  return `early warning at step ${step + 1}: ${what}`;
}
