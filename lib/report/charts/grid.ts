import { join } from 'node:path';
import { type Cell, cellDirectory } from '../../grid/cell.js';
import type { GridSummary } from '../../grid/summary.js';
import { readMetrics } from '../../io/runDirectory.js';
import {
  type Figure,
  inline,
  lineLegend,
  lineMark,
  onPhone,
  precisionScale,
  type ReportRun,
  thin,
  thinned,
  told,
  wholeNumbers,
  zoom,
} from '../figure.js';
import { pairLabel } from './sanity.js';

interface Row {
  readonly algorithm: string;
  readonly precision: string;
  readonly seed: number;
  readonly step: number;
  readonly reward: number;
  readonly mismatch: number;
}

/** Algorithms against precisions: figures 1, 3, 4 and 5 of arXiv 2510.26788. */
export async function figuresOfGrid(run: ReportRun): Promise<Figure[]> {
  const summary = run.summary as unknown as GridSummary | null;
  // A grid that was killed has no summary, but runs.
  const cells = summary?.cells ?? (run.config.cells as readonly Cell[]);
  const groups = summary?.groups ?? [];
  const rows: Row[] = [];
  for (const cell of cells) {
    const metrics = await readMetrics(join(run.directory, cellDirectory(cell))).catch(() => []);
    for (const record of thin(metrics)) {
      rows.push({
        algorithm: cell.algorithm,
        precision: pairLabel(cell.training, cell.rollout),
        seed: cell.seed,
        step: record.step + 1,
        reward: Number(record['train/reward_window']),
        mismatch: Number(record['mismatch/meanAbsLogRatio']),
      });
    }
  }
  if (rows.length === 0) return [];
  // Matched numerics: a logarithm has no place for an exact 0.
  const isZero = rows.some(({ mismatch }) => mismatch === 0);
  const precisions = [...new Set(rows.map(({ precision }) => precision))];
  const curves = (id: string, title: string, caption: string, field: 'reward' | 'mismatch'): Figure => ({
    id,
    title,
    caption: `${caption} Thin lines are seeds, thick lines their mean. ${thinned}`,
    spec: {
      $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
      data: inline(
        rows.filter((row) => Number.isFinite(row[field]) && (field === 'reward' || row[field] > 0)),
      ),
      facet: { field: 'algorithm', type: 'nominal', title: null, sort: null },
      columns: 2,
      spec: {
        width: 280,
        height: 170,
        encoding: {
          x: { field: 'step', type: 'quantitative', title: 'step', axis: wholeNumbers },
          color: {
            field: 'precision',
            type: 'nominal',
            title: null,
            sort: precisions,
            scale: precisionScale(precisions),
            legend: lineLegend,
          },
        },
        layer: [
          {
            params: [zoom],
            mark: { ...lineMark, strokeWidth: 0.8, opacity: 0.45 },
            encoding: {
              y: yOf(field),
              detail: { field: 'seed', type: 'nominal' },
            },
          },
          {
            mark: { type: 'line', strokeWidth: 2.4 },
            encoding: { y: { ...yOf(field), aggregate: 'mean' } },
          },
        ],
      },
    },
  });
  const bars: Figure = {
    id: 'accuracy',
    title: 'Final and peak accuracy',
    caption:
      'Bars: the last ten steps, mean over the seeds; level lines: from the least seed to the greatest. Upright ticks: the ' +
      'best ten steps, mean over the seeds.',
    spec: {
      $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
      width: 'container',
      height: 18 * groups.length,
      data: inline(
        groups.map((group) => ({
          group: `${group.algorithm}, ${pairLabel(group.training, group.rollout)}`,
          precision: pairLabel(group.training, group.rollout),
          final: group.finalAccuracy.mean,
          low: group.finalAccuracy.min,
          high: group.finalAccuracy.max,
          peak: group.peakAccuracy.mean,
          collapsed: `${group.collapsedAt.length} of ${group.seeds.length}`,
          recovered: group.recovered ?? 0,
        })),
      ),
      encoding: {
        y: {
          field: 'group',
          type: 'nominal',
          title: null,
          sort: null,
          axis: { labelLimit: onPhone(190, 480) },
        },
        tooltip: [
          told('group', 'runs'),
          told('final', 'final accuracy', '.3f'),
          told('low', 'least seed', '.3f'),
          told('high', 'greatest seed', '.3f'),
          told('peak', 'peak accuracy', '.3f'),
          told('collapsed'),
          told('recovered', 'of them back at the end'),
        ],
      },
      layer: [
        {
          mark: { type: 'bar', height: 10 },
          encoding: {
            x: {
              field: 'final',
              type: 'quantitative',
              title: 'training accuracy',
              scale: { domain: [0, 1] },
            },
            color: {
              field: 'precision',
              type: 'nominal',
              title: null,
              scale: precisionScale(precisions),
            },
          },
        },
        {
          // Seen on light and on dark.
          mark: { type: 'rule', strokeWidth: 1.5, color: '#888888' },
          encoding: {
            x: { field: 'low', type: 'quantitative' },
            x2: { field: 'high' },
          },
        },
        {
          mark: { type: 'tick', thickness: 2, size: 14, color: '#888888' },
          encoding: { x: { field: 'peak', type: 'quantitative' } },
        },
      ],
    },
  };
  return [
    curves('grid-reward', 'Training accuracy by algorithm', 'Mean reward over ten steps.', 'reward'),
    curves(
      'grid-mismatch',
      'Mismatch by algorithm',
      `Mean |log pi - log mu| of a token, pi under the training engine and mu under the rollout engine.${isZero ? ' Runs whose engines agree to the bit have no line.' : ''}`,
      'mismatch',
    ),
    ...(groups.length > 0 ? [bars] : []),
  ].filter(({ spec }) => (spec.data as { values: object[] }).values.length > 0);
}

function yOf(field: 'reward' | 'mismatch') {
  return field === 'reward'
    ? { field, type: 'quantitative', title: 'training accuracy', scale: { domain: [0, 1] } }
    : { field, type: 'quantitative', title: 'nats per token', scale: { type: 'log' } };
}
