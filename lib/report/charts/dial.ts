import type { DialPoint, DialSummary, LawTarget } from '../../instruments/dial.js';
import { precisionLabel } from '../../tensor/dtype.js';
import { type Figure, inline, palette, type ReportRun, zoom } from '../figure.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';

/** The mismatch against mantissa bits. */
export function figuresOfDial(run: ReportRun): Figure[] {
  const summary = run.summary as unknown as DialSummary | null;
  if (summary === null || summary.points.length === 0) return [];
  const rows = summary.points.map((point) => ({
    format: precisionLabel(point.format),
    bits: point.mantissaBits,
    base: `${point.task}${summary.points.some((p) => p.hiddenSize !== point.hiddenSize) ? ` d${point.hiddenSize}` : ''}`,
    seed: point.baseSeed,
    mismatch: point.meanAbsLogRatio,
    kl: point.klMuPiK3,
    spread: point.seqLogRatioStd,
    ess: point.ess,
    length: point.length,
  }));
  const chart = (id: string, title: string, target: LawTarget, field: string, axis: string): Figure => ({
    id,
    title,
    caption: `${EMULATED}${summary.laws[target] === null ? '' : ' Dashed: the law, at the mean of all bases.'}`,
    spec: {
      $schema: SCHEMA,
      width: 'container',
      height: 280,
      data: inline(rows),
      encoding: {
        x: { field: 'bits', type: 'quantitative', title: 'mantissa bits', scale: { zero: false } },
        color: { field: 'base', type: 'nominal', title: null, scale: { range: palette } },
      },
      layer: [
        {
          params: [zoom],
          mark: { type: 'point', filled: true, size: 45, opacity: 0.75, tooltip: { content: 'data' } },
          encoding: { y: { field, type: 'quantitative', title: axis, scale: { type: 'log' } } },
        },
        {
          mark: { type: 'line', strokeWidth: 1.2, opacity: 0.7 },
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
      'bits',
      'Mismatch against mantissa bits',
      'meanAbsLogRatio',
      'mismatch',
      'mean |log pi - log mu|, nats',
    ),
    chart(
      'spread',
      'Spread of whole responses',
      'seqLogRatioStd',
      'spread',
      'std of log pi(y) - log mu(y), nats',
    ),
    chart('kl', 'KL[mu||pi] per token', 'klMuPiK3', 'kl', 'k3, nats'),
  ];
}

const EMULATED = 'Formats without kernels of their own are emulated. Lines join the means over base seeds.';

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
