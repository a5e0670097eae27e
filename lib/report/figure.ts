import type { MetricsRecord } from '../io/runDirectory.js';
import { metricDefinitions, rangeText } from '../mismatch/definitions.js';
import type { MismatchMetrics } from '../mismatch/metrics.js';

/** A Vega-Lite spec. (Its own types need a browser's, which this package has not.) */
export type ChartSpec = Readonly<Record<string, unknown>>;

/** A chart: one Vega-Lite spec with its data, from which both the SVG and the page are drawn. */
export interface Figure {
  /** A file name without its ending, unique within a report. */
  readonly id: string;
  readonly title: string;
  readonly caption: string;
  readonly spec: ChartSpec;
}

/** A run directory as charts read it. */
export interface ReportRun {
  readonly directory: string;
  /** The folder's name. */
  readonly name: string;
  readonly command: string;
  readonly version: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Null where the run has not come to its end. */
  readonly summary: Readonly<Record<string, unknown>> | null;
  readonly metrics: readonly MetricsRecord[];
  /** What the reader should know: no summary yet, a torn line. */
  readonly notes: readonly string[];
}

/** Colours that people with any kind of colour vision tell apart (Okabe and Ito 2008), on light and on dark. */
export const palette = [
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#8c6bb1',
  '#999999',
];

/** Precisions that have one colour in every chart, so that two charts can be read together. */
const precisionColors: Readonly<Record<string, string>> = {
  bf16: '#d55e00',
  fp16: '#0072b2',
  fp32: '#009e73',
};

/** A scale of precisions or pairs of them: common ones in their colours, others in those that are left. */
export function precisionScale(labels: readonly string[]): { domain: string[]; range: string[] } {
  const left = palette.filter((color) => !Object.values(precisionColors).includes(color));
  let next = 0;
  const range = labels.map((label) => precisionColors[label] ?? left[next++ % left.length]!);
  return { domain: [...labels], range };
}

/** Colours that are too dark on the dark page, and what stands for them there. */
export const onDark: Readonly<Record<string, string>> = { '#0072b2': '#3a96d6' };

/** The data of a spec, inline. */
export function inline(values: readonly object[]): { values: object[] } {
  return { values: [...values] };
}

/** An axis of whole numbers: between two steps there is no tick. */
export const wholeNumbers = { tickMinStep: 1 } as const;

/** A legend of lines in the colours of the lines, however thin or pale these are. */
export const lineLegend = {
  symbolType: 'stroke',
  symbolSize: 220,
  symbolStrokeWidth: 2.4,
  symbolOpacity: 1,
} as const;

/** A line whose every point answers to the pointer: a line by itself tells of its first alone. */
export const lineMark = { type: 'line', strokeWidth: 1.8, point: 'transparent', tooltip: true } as const;

/** An axis over many powers of ten, all of them written alike. */
export const powersOfTen = {
  labelExpr: "datum.label === '' ? '' : replace(format(datum.value, '.0e'), '+', '')",
} as const;

/** An axis whose numbers may be tiny: 0.0004, 1.5e-7. */
export const compact = { labelExpr: "format(datum.value, '~g')" } as const;

/** The healthy range of a metric and who says so, for a caption. */
export function healthyText(name: keyof MismatchMetrics): string {
  const { healthy } = metricDefinitions[name];
  return healthy === undefined ? '' : ` Healthy: ${rangeText(healthy)} (${healthy.source}).`;
}

/** What a tooltip tells of a field. */
export function told(field: string, title = field, format?: string): object {
  return format === undefined
    ? { field, type: 'nominal', title }
    : { field, type: 'quantitative', title, format };
}

/** Pan and wheel on charts whose axes are both numbers; a double click resets. */
export const zoom = { name: 'zoom', select: 'interval', bind: 'scales' } as const;

/** A number of a spec that is another on a phone; drawings without a window are wide. */
export function onPhone(narrow: number, wide: number): { expr: string } {
  return { expr: `windowSize()[0] < 600 ? ${narrow} : ${wide}` };
}

/** Points of one series that a page carries. */
const MOST_POINTS = 300;

/** At most 300 of a series' points, evenly spread, the last one among them. */
export function thin<T>(series: readonly T[]): readonly T[] {
  if (series.length <= MOST_POINTS) return series;
  const stride = Math.ceil(series.length / MOST_POINTS);
  return series.filter((_, i) => (series.length - 1 - i) % stride === 0);
}

/** What {@link thin} did, for captions. */
export const thinned = `Long runs are shown at no more than ${MOST_POINTS} of their steps.`;
