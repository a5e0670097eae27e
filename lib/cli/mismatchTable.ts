import { isHealthy, metricDefinitions, rangeText } from '../mismatch/definitions.js';
import type { MismatchMetrics } from '../mismatch/metrics.js';
import { formatNumber, formatTable } from './format.js';

/** What a table shows unless it is asked for more. */
const shown: readonly (keyof MismatchMetrics)[] = [
  'klMuPiK3',
  'klMuPiK1',
  'sequenceKlMuPi',
  'seqLogRatioStd',
  'ess',
  'meanAbsLogRatio',
  'meanProbDiff',
  'maxProbDiff',
  'minProbDiff',
  'saturatedShare',
  'chi2Token',
  'tokenMultProbError',
  'probCorrelation',
];

/**
 * Metrics of one or several settings beside their healthy ranges: a row a metric, with its source. A value outside of
 * its range has a `!` behind it, which a line below the table then explains.
 */
export function mismatchTable(
  settings: readonly { readonly name: string; readonly metrics: Partial<MismatchMetrics> }[],
  names: readonly (keyof MismatchMetrics)[] = shown,
): string {
  const right = { align: 'right' } as const;
  const table = formatTable(
    [
      { heading: 'metric' },
      ...settings.map(({ name }) => ({ heading: name, ...right })),
      { heading: 'healthy', ...right },
      { heading: 'says who' },
    ],
    names
      .filter((name) => settings.some(({ metrics }) => Number.isFinite(metrics[name])))
      .map((name) => {
        const { label, healthy } = metricDefinitions[name];
        const cells = settings.map(({ metrics }) => {
          const value = metrics[name] ?? Number.NaN;
          return `${formatNumber(value)}${isHealthy(name, value) === false ? '!' : ' '}`;
        });
        return [label, ...cells, healthy ? rangeText(healthy) : '', healthy?.source ?? ''];
      }),
  );
  const outside = settings.some(({ metrics }) =>
    names.some((name) => isHealthy(name, metrics[name] ?? Number.NaN) === false),
  );
  return outside ? `${table}\n!: outside of the healthy range` : table;
}
