/** What `isopolicy generate` prints beside the text itself. */
import { metricDefinitions } from '../mismatch/definitions.js';
import type { MismatchMetrics } from '../mismatch/metrics.js';
import { formatNumber, formatTable } from './format.js';

export interface GeneratedToken {
  readonly id: number;
  /** Its own text: a part of a character is U+FFFD. */
  readonly text: string;
  /** log mu. */
  readonly logprob: number;
  /** log pi. */
  readonly trainingLogprob?: number;
}

/** A token a row: id, log mu and, where it was scored, log pi and their difference, and its text in quotes. */
export function tokenTable(tokens: readonly GeneratedToken[]): string {
  const right = { align: 'right' } as const;
  const scored = tokens.some(({ trainingLogprob }) => trainingLogprob !== undefined);
  return formatTable(
    [
      { heading: 'id', ...right },
      { heading: 'log mu', ...right },
      ...(scored
        ? [
            { heading: 'log pi', ...right },
            { heading: 'log mu - log pi', ...right },
          ]
        : []),
      { heading: 'token' },
    ],
    tokens.map(({ id, text, logprob, trainingLogprob }) => [
      String(id),
      logprob.toFixed(5),
      ...(trainingLogprob === undefined
        ? []
        : [trainingLogprob.toFixed(5), formatNumber(logprob - trainingLogprob)]),
      JSON.stringify(text),
    ]),
  );
}

const shown = [
  'meanAbsLogRatio',
  'maxAbsLogRatio',
  'klMuPiK3',
  'differingShare',
  'maxAbsProbDiff',
] as const satisfies readonly (keyof MismatchMetrics)[];

/** The few numbers that say how far the engines are apart. */
export function mismatchText(metrics: MismatchMetrics, engines: string): string {
  const rows = shown.map((name) => [metricDefinitions[name].label, formatNumber(metrics[name])] as const);
  const width = Math.max(...rows.map(([label]) => label.length)) + 2;
  return [
    `mismatch of ${metrics.tokens} tokens, ${engines}:`,
    ...rows.map(([label, value]) => `  ${label.padEnd(width)}${value}`),
  ].join('\n');
}
