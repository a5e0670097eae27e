/** The end of a sanity run as text on stdout. */
import type { SanityConfig } from '../sanity/config.js';
import type { SanitySummary } from '../sanity/run.js';
import { taskName } from '../sanity/sourceConfig.js';
import {
  colored,
  count,
  formatDuration,
  formatNumber,
  formatShare,
  formatTable,
  quoted,
  wrap,
} from './format.js';
import { precisionText, scalingText, warningText } from './runText.js';

/** Training accuracy is averaged over this many steps, fewer in a shorter run. */
const WINDOW = 10;

/** Verdict, settings, the effect, and where the run is. */
export function sanityReport(
  summary: SanitySummary,
  config: SanityConfig,
  directory: string,
  color = false,
): string {
  const lines = [
    ...verdictLines(summary, directory, color),
    ...wrap(settingsLine(config)),
    ...wrap(outcomeLine(summary, config)),
  ];
  const { warning, collapsedAtStep } = summary;
  // Undefined in runs of before there were warnings.
  if (warning) {
    const lead =
      collapsedAtStep === null
        ? 'no collapse followed'
        : `${collapsedAtStep - warning.step} steps before the collapse`;
    lines.push(...wrap(`${warningText(warning)}; ${lead}`));
  }
  const table = effectTable(summary);
  if (table !== undefined) lines.push('', table);
  lines.push('', `run directory: ${directory}`);
  return lines.join('\n');
}

function verdictLines(summary: SanitySummary, directory: string, color: boolean): string[] {
  const { passed, finalAccuracy, peakAccuracy, collapsedAtStep, recovered } = summary;
  const { steps, seconds, interrupted, divergence } = summary;
  const verdict = interrupted ? 'INTERRUPTED' : divergence ? 'DIVERGED' : passed ? 'PASSED' : 'NOT PASSED';
  const after = `after ${count(steps, 'step')}, ${formatDuration(seconds)}`;
  const accuracy =
    `training accuracy ${formatShare(finalAccuracy)} over the last ${Math.min(WINDOW, steps)} ` +
    `${steps === 1 ? 'step' : 'steps'} (peak ${formatShare(peakAccuracy)}) ${after}`;
  const tail = divergence
    ? `; then there was nothing to sample from: ${divergence}`
    : collapsedAtStep === null
      ? ''
      : `; collapsed at step ${collapsedAtStep + 1}${recovered ? ', and recovered' : ''}`;
  // A command stays on a line, to be copied.
  const lines = interrupted
    ? [`${verdict}  ${after}; resume with:`, `isopolicy sanity --resume ${quoted(directory)}`]
    : wrap(`${verdict}  ${accuracy}${tail}`);
  return lines.map((line, i) =>
    i === 0 ? line.replace(verdict, colored(verdict, passed ? 'green' : 'red', color)) : line,
  );
}

function settingsLine(config: SanityConfig): string {
  const { algorithm, trainingPrecision, rolloutPrecision, numerics, seed } = config;
  const precision = precisionText(trainingPrecision, rolloutPrecision);
  return `${taskName(config)}, ${algorithm}, ${precision}, ${numerics} numerics, seed ${seed}`;
}

function outcomeLine({ set, lossScale }: SanitySummary, { lossScaler }: SanityConfig): string {
  return (
    `${set.problems} of ${set.tried} problems kept (base accuracy ${formatShare(set.baseAccuracy)}), ` +
    scalingText(lossScale, lossScaler)
  );
}

/** The mismatch of the final weights in each setting, and what it says; nothing where it was not measured. */
function effectTable({ effect }: SanitySummary): string | undefined {
  if (effect.length === 0) return undefined;
  const of = (precision: string, numerics: string) =>
    effect.find((row) => row.precision === precision && row.numerics === numerics)?.meanAbsLogRatio;
  const fp16 = of('fp16', 'default');
  const timesFp16 = (value: number | undefined): string =>
    value === undefined || !fp16 ? '-' : formatNumber(value / fp16);
  const right = { align: 'right' } as const;
  const table = formatTable(
    [
      { heading: 'setting' },
      { heading: 'mean\n|log pi - log mu|', ...right },
      { heading: 'KL[mu||pi]\nk3', ...right },
      { heading: 'max\n|pi - mu|', ...right },
      { heading: 'nats per\n1,000 tokens', ...right },
      { heading: 'times\nfp16', ...right },
    ],
    effect.map((row) => [
      row.numerics === 'default' ? row.precision : `${row.precision} ${row.numerics}`,
      formatNumber(row.meanAbsLogRatio),
      formatNumber(row.klMuPiK3),
      formatNumber(row.maxProbDiff),
      formatNumber(row.seqLogRatioPer1k),
      timesFp16(row.meanAbsLogRatio),
    ]),
  );
  const sentence = effectSentence(timesFp16(of('bf16', 'default')), timesFp16(of('fp16', 'matched')));
  return [
    'The final weights on the same tokens, scored by both engines:',
    table,
    '',
    ...wrap(sentence).filter((line) => line !== ''),
    'pi: probability of a token in the training engine; mu: in the rollout engine.',
  ].join('\n');
}

function effectSentence(bf16: string, matched: string): string {
  const sentences: string[] = [];
  if (bf16 !== '-') sentences.push(`In bf16 the two engines are ${bf16} times as far apart as in fp16.`);
  if (matched === '0') sentences.push('With matched numerics they agree to the bit.');
  else if (matched !== '-')
    sentences.push(`With matched numerics fp16 has ${matched} times its own mismatch.`);
  return sentences.join(' ');
}
