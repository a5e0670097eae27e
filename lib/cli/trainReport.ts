/** The end of a training run as text on stdout. */
import { join } from 'node:path';
import type { TrainConfig } from '../train/config.js';
import type { TrainSummary } from '../train/run.js';
import { colored, count, formatDuration, formatNumber, formatShare, quoted, wrap } from './format.js';
import { precisionText, scalingText, warningText } from './runText.js';

/** Outcome, settings, and where run and checkpoints are. */
export function trainReport(
  summary: TrainSummary,
  config: TrainConfig,
  directory: string,
  color = false,
): string {
  const { mismatch, warning, checkpoints } = summary;
  const lines = [
    ...outcomeLines(summary, directory, color),
    ...rewardLines(summary),
    ...evaluationLines(summary, config),
    '',
    `model: ${summary.model}`,
    ...wrap(dataLine(summary, config)),
    ...wrap(settingsLine(summary)),
    ...wrap(scalingText(summary.lossScale, config.lossScaler)),
  ];
  if (mismatch !== null) {
    const { klMuPiK3, meanAbsLogRatio, maxProbDiff } = mismatch;
    lines.push(
      ...wrap(
        `mismatch of the last steps: mean |log pi - log mu| ${formatNumber(meanAbsLogRatio)}, ` +
          `KL[mu||pi] ${formatNumber(klMuPiK3)}, max |pi - mu| ${formatNumber(maxProbDiff)}`,
      ),
    );
  }
  if (warning !== null) lines.push(...wrap(warningText(warning)));
  lines.push('');
  if (checkpoints.last !== null) lines.push(`last checkpoint: ${join(directory, checkpoints.last)}`);
  if (checkpoints.best !== null) lines.push(`best checkpoint: ${join(directory, checkpoints.best)}`);
  lines.push(`run directory: ${directory}`);
  return lines.join('\n');
}

function outcomeLines(summary: TrainSummary, directory: string, color: boolean): string[] {
  const { steps, seconds, interrupted, divergence } = summary;
  const after = `after ${count(steps, 'step')}, ${formatDuration(seconds)}`;
  // A command stays on a line, to be copied.
  if (interrupted) {
    return [
      `${colored('INTERRUPTED', 'red', color)}  ${after}; resume with:`,
      `isopolicy train --resume ${quoted(directory)}`,
    ];
  }
  if (divergence === undefined) return [`${colored('DONE', 'green', color)}  ${after}`];
  const lines = wrap(`DIVERGED  ${after}; then there was nothing to sample from: ${divergence}`);
  return lines.map((line, i) =>
    i === 0 ? line.replace('DIVERGED', colored('DIVERGED', 'red', color)) : line,
  );
}

function rewardLines({ reward, steps }: TrainSummary): string[] {
  if (reward === null) return [];
  const window = Math.min(10, steps);
  return wrap(
    `training reward ${formatShare(reward.last)} over the last ${count(window, 'step')} ` +
      `(${formatShare(reward.first)} over the first, peak ${formatShare(reward.peak)})`,
  );
}

function evaluationLines({ evaluation }: TrainSummary, config: TrainConfig): string[] {
  if (config.evaluation === null) return ['no evaluation: evaluation.data (--eval-data) names no problems'];
  if (evaluation === null) return [];
  const { samples: k, first, best, last } = evaluation;
  const of = (name: 'average' | 'pass') =>
    first.step === last.step
      ? formatShare(last[name])
      : `${formatShare(first[name])} -> ${formatShare(last[name])}`;
  return wrap(
    `evaluation avg@${k} ${of('average')} (best ${formatShare(best.average)} after step ${best.step}), ` +
      `pass@${k} ${of('pass')}`,
  );
}

function dataLine({ data, problems, leftOut }: TrainSummary, { evaluation }: TrainConfig): string {
  const without = (n: number) => (n === 0 ? '' : ` (${n} left out: their prompts are too long)`);
  const evaluated =
    evaluation === null
      ? ''
      : `; evaluation: ${evaluation.data}, ${count(problems.evaluation, 'problem')}${without(leftOut.evaluation)}`;
  return `data: ${data}, ${count(problems.training, 'problem')}${without(leftOut.training)}${evaluated}`;
}

function settingsLine({ algorithm, precision, numerics, seed }: TrainSummary): string {
  return `${algorithm}, ${precisionText(precision.training, precision.rollout)}, ${numerics} numerics, seed ${seed}`;
}
