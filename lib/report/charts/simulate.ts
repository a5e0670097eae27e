import type { SimulatedStep, SimulationSummary } from '../../instruments/simulate.js';
import { FROZEN_SHARE } from '../../rl/corrections/correct.js';
import {
  type Figure,
  healthyText,
  inline,
  onPhone,
  palette,
  type ReportRun,
  thin,
  thinned,
  told,
  wholeNumbers,
} from '../figure.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';
const DASHES = [
  [1, 0],
  [6, 3],
  [2, 2],
  [8, 3, 2, 3],
];

/** Effective sample size and signal left over the recorded steps, and what each correction keeps and drops. */
export function figuresOfSimulation(run: ReportRun): Figure[] {
  const summary = run.summary as unknown as SimulationSummary | null;
  if (summary === null || summary.simulations.length === 0) return [];
  const { simulations } = summary;
  const shares = simulations.flatMap(({ algorithm, keptShare, droppedSequences }) => [
    { correction: algorithm, what: 'tokens that teach', share: keptShare },
    { correction: algorithm, what: 'responses dropped', share: droppedSequences },
  ]);
  const shared = 'Corrections that agree in every step share a line; a point names them all.';
  return [
    ...overSteps(summary, ({ ess }) => ess, {
      id: 'simulated-ess',
      title: 'Effective sample size',
      caption: `(sum w)^2 / sum w^2 of the importance weights w, as a share of how many there are, before any bound; corrections without weights have none.${healthyText('ess')} ${shared} ${thinned}`,
      axis: 'effective sample size',
    }),
    ...overSteps(
      summary,
      ({ signalShare }) => signalShare,
      {
        id: 'simulated-signal',
        title: 'Signal left',
        caption:
          'Share of the uncorrected gradient’s coefficients, |A| over tokens, that is left; steps where no response has ' +
          `an advantage have none. A correction that stays below the dashed line freezes the policy. ${shared} ${thinned}`,
        axis: 'signal left',
      },
      FROZEN_SHARE,
    ),
    {
      id: 'simulated-kept',
      title: 'Kept and dropped',
      caption:
        'Means over the recorded steps: of tokens, those that still teach (kept, with a weight above 0, in a group with an ' +
        'advantage); of responses, those of which nothing is left.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 20 * simulations.length,
        data: inline(shares.filter(({ share }) => Number.isFinite(share))),
        mark: { type: 'bar' },
        encoding: {
          tooltip: [told('correction'), told('what'), told('share', 'share', '.1%')],
          y: {
            field: 'correction',
            type: 'nominal',
            title: null,
            sort: null,
            axis: { labelLimit: onPhone(190, 480) },
            scale: { paddingInner: 0.25 },
          },
          yOffset: { field: 'what', type: 'nominal', sort: null },
          x: {
            field: 'share',
            type: 'quantitative',
            title: 'share',
            axis: { format: '%' },
            scale: { domain: [0, 1] },
          },
          color: { field: 'what', type: 'nominal', title: null, sort: null, scale: { range: palette } },
        },
      },
    },
  ];
}

/** Corrections whose values are the same in every step: a line of a chart. */
interface Line {
  readonly names: readonly string[];
  readonly points: readonly { readonly step: number; readonly share: number }[];
}

/** Lines of one measure over the steps that have it, or no chart where none has. */
function overSteps(
  { simulations }: SimulationSummary,
  of: (step: SimulatedStep) => number,
  { id, title, caption, axis }: { id: string; title: string; caption: string; axis: string },
  level?: number,
): Figure[] {
  const lines = new Map<string, Line>();
  for (const { algorithm, steps } of simulations) {
    const measured = steps
      .map((step) => ({ step: step.step + 1, share: of(step) }))
      .filter(({ share }) => Number.isFinite(share));
    if (measured.length === 0) continue;
    const points = thin(measured);
    const key = JSON.stringify(measured);
    lines.set(key, { names: [...(lines.get(key)?.names ?? []), algorithm], points });
  }
  if (lines.size === 0) return [];
  const labels = [...lines.values()].map(labelOf);
  const rows = [...lines.values()].flatMap(({ names, points }, i) =>
    points.map((point) => ({ ...point, line: labels[i], corrections: names.join(', ') })),
  );
  // There are more lines than colours: each round of the palette has a dash of its own.
  const turn = (range: readonly unknown[], each: number) =>
    labels.map((_, i) => range[Math.floor(i / each) % range.length]);
  const legend = {
    columns: onPhone(1, 2),
    labelLimit: onPhone(300, 600),
    symbolType: 'stroke',
    symbolSize: 320,
    symbolStrokeWidth: 2,
  };
  const encoding = {
    x: { field: 'step', type: 'quantitative', title: 'step', axis: wholeNumbers },
    y: { field: 'share', type: 'quantitative', title: axis, scale: { domain: [0, 1] } },
    color: {
      field: 'line',
      type: 'nominal',
      title: null,
      scale: { domain: labels, range: turn(palette, 1) },
      legend,
    },
    tooltip: [
      { field: 'corrections', type: 'nominal' },
      { field: 'step', type: 'quantitative' },
      { field: 'share', type: 'quantitative', title: axis, format: '.3f' },
    ],
  };
  const dash = {
    field: 'line',
    type: 'nominal',
    title: null,
    scale: { domain: labels, range: turn(DASHES, palette.length) },
    legend,
  };
  const mark = { type: 'line', strokeWidth: 1.8, point: { filled: true, size: 24 } };
  const spec = {
    $schema: SCHEMA,
    width: 'container',
    height: 280,
    data: inline(rows),
    layer: [
      { mark, encoding: { ...encoding, strokeDash: dash } },
      ...(level === undefined ? [] : levelLine(level)),
    ],
  };
  return [{ id, title, caption, spec }];
}

/** The line below which a policy counts as frozen, with its name. */
function levelLine(level: number): object[] {
  const data = inline([{ level, what: `policy frozen: below ${100 * level} %` }]);
  const y = { field: 'level', type: 'quantitative' };
  return [
    { data, mark: { type: 'rule', strokeDash: [6, 4], color: '#888888' }, encoding: { y } },
    {
      data,
      mark: { type: 'text', align: 'left', baseline: 'bottom', dx: 4, dy: -3, color: '#888888' },
      encoding: { y, x: { value: 0 }, text: { field: 'what', type: 'nominal' } },
    },
  ];
}

/** The first name, and how many more. */
function labelOf({ names }: Line): string {
  return names.length === 1 ? names[0]! : `${names[0]} and ${names.length - 1} more`;
}
