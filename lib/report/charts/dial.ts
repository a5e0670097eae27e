import type { DialSummary } from '../../instruments/dial.js';
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
  const chart = (id: string, title: string, field: string, axis: string, caption: string): Figure => ({
    id,
    title,
    caption,
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
      ],
    },
  });
  const emulated = 'Formats without kernels of their own are emulated. Lines join the means over base seeds.';
  return [
    chart('bits', 'Mismatch against mantissa bits', 'mismatch', 'mean |log pi - log mu|, nats', emulated),
    chart('spread', 'Spread of whole responses', 'spread', 'std of log pi(y) - log mu(y), nats', emulated),
    chart('kl', 'KL[mu||pi] per token', 'kl', 'k3, nats', emulated),
  ];
}
