import type { DialPoint, DialSummary, LawTarget } from '../../instruments/dial.js';
import { precisionLabel } from '../../tensor/dtype.js';
import {
  type Figure,
  healthyText,
  inline,
  palette,
  powersOfTen,
  type ReportRun,
  told,
  wholeNumbers,
  zoom,
} from '../figure.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';

/** The mismatch against mantissa bits. */
export function figuresOfDial(run: ReportRun): Figure[] {
  const summary = run.summary as unknown as DialSummary | null;
  if (summary === null || summary.points.length === 0) return [];
  const rows = summary.points.map((point) => ({
    format: precisionLabel(point.format),
    bits: point.mantissaBits,
    base: baseLabel(point, summary.points),
    seed: point.baseSeed,
    mismatch: point.meanAbsLogRatio,
    kl: point.klMuPiK3,
    spread: point.seqLogRatioStd,
    ess: point.ess,
    length: point.length,
  }));
  const bases = [...new Set(rows.map(({ base }) => base))];
  const chart = (
    [id, title, what]: readonly [string, string, string],
    target: LawTarget,
    field: 'mismatch' | 'spread' | 'kl',
    axis: string,
  ): Figure => ({
    id,
    title,
    caption: `${what} ${EMULATED}${summary.laws[target] === null ? '' : ' Dashed: the law, at the mean of all bases, over the formats that it was fitted to.'}`,
    spec: {
      $schema: SCHEMA,
      width: 'container',
      height: 280,
      // A logarithm has no place for an exact 0.
      data: inline(rows.filter((row) => Number(row[field]) > 0)),
      encoding: {
        x: {
          field: 'bits',
          type: 'quantitative',
          title: 'mantissa bits',
          axis: wholeNumbers,
          // Room for the points at both ends.
          scale: { zero: false, padding: 12 },
        },
        color: {
          field: 'base',
          type: 'nominal',
          title: null,
          scale: { domain: bases, range: palette },
          legend: { symbolOpacity: 1 },
        },
      },
      layer: [
        {
          params: [zoom],
          mark: { type: 'point', filled: true, size: 45, opacity: 0.75 },
          encoding: {
            tooltip: [
              told('base'),
              told('seed', 'base seed'),
              told('format'),
              told('mismatch', 'mean |log pi - log mu|', '.3~g'),
              told('kl', 'KL[mu||pi], k3', '.3~g'),
              told('spread', 'std of L', '.3~g'),
              told('ess', 'effective sample size', '.3~g'),
              told('length', 'mean tokens', '.3~g'),
            ],
            y: {
              field,
              type: 'quantitative',
              title: axis,
              scale: { type: 'log' },
              ...(field === 'kl' && { axis: powersOfTen }),
            },
          },
        },
        {
          mark: { type: 'line', strokeWidth: 1.4, opacity: 0.9 },
          encoding: { y: { field, type: 'quantitative', aggregate: 'mean' } },
        },
        {
          data: inline(lawLine(summary, target)),
          mark: { type: 'line', strokeWidth: 2, strokeDash: [5, 4] },
          encoding: { y: { field: 'law', type: 'quantitative' }, color: { value: '#888888' } },
        },
      ],
    },
  });
  return [
    chart(
      ['bits', 'Mismatch against mantissa bits', 'Mean of |log pi - log mu| over tokens.'],
      'meanAbsLogRatio',
      'mismatch',
      'mean |log pi - log mu|, nats',
    ),
    chart(
      [
        'spread',
        'Spread of whole responses',
        'Standard deviation over responses of L, the sum of log pi - log mu: what a weight exp(L) has as its exponent.',
      ],
      'seqLogRatioStd',
      'spread',
      'std of log pi(y) - log mu(y), nats',
    ),
    chart(
      [
        'kl',
        'KL[mu||pi] per token',
        `Estimated by k3, the mean of r - 1 - log r with r = pi / mu.${healthyText('klMuPiK3')}`,
      ],
      'klMuPiK3',
      'kl',
      'k3, nats',
    ),
  ];
}

/** A base by its task, and by whatever else sets it apart from the others. */
function baseLabel(point: DialPoint, points: readonly DialPoint[]): string {
  const parts = [
    ['d', 'hiddenSize'],
    ['l', 'numLayers'],
    ['a', 'baseAccuracy'],
  ] as const;
  return [
    point.task,
    ...parts.flatMap(([letter, key]) =>
      points.some((other) => other[key] !== point[key]) ? [`${letter}${point[key]}`] : [],
    ),
  ].join(' ');
}

const EMULATED =
  'Formats without kernels of their own are emulated. Points are bases, lines join the means over base seeds.';

/** Least squares with an intercept goes through the mean of what was fitted: two points make the line. */
function lawLine({ points, laws, fitFrom }: DialSummary, target: LawTarget): { bits: number; law: number }[] {
  const slope = laws[target]?.coefficients.mantissaBits?.value;
  const fitted = points.filter((point) => point.mantissaBits >= fitFrom && point[target] > 0);
  if (slope === undefined) return [];
  const mean = (of: (point: DialPoint) => number) =>
    fitted.reduce((sum, point) => sum + of(point), 0) / fitted.length;
  const [bits, y] = [mean((point) => point.mantissaBits), mean((point) => Math.log2(point[target]))];
  const ends = fitted.map(({ mantissaBits }) => mantissaBits);
  return [Math.min(...ends), Math.max(...ends)].map((end) => ({
    bits: end,
    law: 2 ** (y + slope * (end - bits)),
  }));
}
