import type { Diagnosis, LearningEffect, PlotBin, PlotPoints } from '../../diagnose/diagnosis.js';
import { restoredDiagnosis } from '../../diagnose/restore.js';
import { FROZEN_SHARE } from '../../rl/corrections/correct.js';
import { type Figure, inline, onPhone, palette, powersOfTen, type ReportRun, told, zoom } from '../figure.js';
import { figureOfDrift } from './drift.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';

/** What a chart of log-probs has room for: what lies beyond stands at its edge. */
const [LEAST, GREATEST] = [-50, 10];

/** Tokens in a chart of their differences. */
const MOST_DISTANCES = 1000;

/** Charts of a diagnosis: where the two sides differ, what would explain it, and what is left to learn from. */
export function figuresOfDiagnosis(run: ReportRun): Figure[] {
  if (run.summary === null) return [];
  const { points, signatures, effect, dtype } = restoredDiagnosis(run.summary);
  return [
    ...logprobs(points),
    ...distances(points, {
      id: 'by-position',
      title: 'Difference by position',
      what: 'position, from 1',
      caption:
        'A token’s place in its response; growth with it tells of an error that adds up, such as in a cache.',
      of: ([, , position]) => position + 1,
      // Whole numbers: the last of a bin is one less than where the next begins.
      bins: points.byPosition.map((bin) => ({ ...bin, from: bin.from + 1 })),
    }),
    ...distances(points, {
      id: 'by-surprise',
      title: 'Difference by probability',
      what: '-log mu, nats',
      caption:
        'How unlikely the sampled token was for the rollout engine: all but certain at the left. Rounding of logits shows ' +
        'little where a token is certain.',
      of: ([logMu]) => -logMu,
      bins: points.bySurprise,
    }),
    ...drift(points),
    ...explained(signatures),
    ...floor(signatures, dtype.name),
    ...(effect === null ? [] : [left(effect)]),
  ];
}

/** log pi against log mu. */
function logprobs({ tokens }: PlotPoints): Figure[] {
  if (tokens.length === 0) return [];
  const held = (value: number) => Math.min(Math.max(value, LEAST), GREATEST);
  const rows = tokens.map(([logMu, logPi, position, response]) => ({
    logMu,
    logPi,
    x: held(logMu),
    y: held(logPi),
    d: logMu - logPi,
    position,
    response: response + 1,
  }));
  const least = rows.reduce((low, { x, y }) => Math.min(low, x, y), -1);
  return [
    {
      id: 'logprobs',
      title: 'Log-probs of tokens',
      caption:
        'Each point is a token: its log-prob under the training engine against that under the rollout engine. On the dashed ' +
        `diagonal they agree. At most 2,000 tokens are shown, evenly spread; those below ${LEAST} nats stand at ${LEAST}.`,
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 340,
        layer: [
          {
            data: inline([{ a: least, b: 0 }]),
            mark: { type: 'rule', strokeDash: [4, 4], color: '#888888' },
            encoding: {
              x: { field: 'a', type: 'quantitative' },
              y: { field: 'a', type: 'quantitative' },
              x2: { field: 'b' },
              y2: { field: 'b' },
            },
          },
          {
            data: inline(rows),
            params: [zoom],
            mark: { type: 'point', filled: true, size: 16, opacity: 0.5, color: palette[0] },
            encoding: {
              x: { field: 'x', type: 'quantitative', title: 'log mu (rollout), nats' },
              y: { field: 'y', type: 'quantitative', title: 'log pi (training), nats' },
              tooltip: [
                told('logMu', 'log mu', '.5~g'),
                told('logPi', 'log pi', '.5~g'),
                told('d', 'log mu - log pi', '.4~g'),
                told('position', 'position, from 0', ','),
                told('response', 'response', ','),
              ],
            },
          },
        ],
      },
    },
  ];
}

/** |log pi - log mu| of tokens and its mean in bins, against what they are binned by; none where no two log-probs differ. */
function distances(
  { tokens }: PlotPoints,
  chart: {
    readonly id: string;
    readonly title: string;
    readonly caption: string;
    readonly what: string;
    readonly of: (token: PlotPoints['tokens'][number]) => number;
    readonly bins: readonly PlotBin[];
  },
): Figure[] {
  const { id, title, what, of } = chart;
  // Both axes are logarithmic.
  const stride = Math.ceil(tokens.length / MOST_DISTANCES);
  const rows = tokens
    .filter((_, i) => i % stride === 0)
    .map((token) => ({ x: of(token), distance: Math.abs(token[1] - token[0]) }))
    .filter(({ x, distance }) => x > 0 && distance > 0);
  const means = chart.bins
    .filter(({ meanAbs }) => meanAbs > 0)
    .map(({ from, to, tokens, meanAbs }) => ({ x: Math.sqrt(from * to), from, to, tokens, meanAbs }));
  if (rows.length === 0 || means.length === 0) return [];
  const all = [...rows, ...means];
  const x = {
    field: 'x',
    type: 'quantitative',
    title: what,
    axis: {
      values: decades(
        all.map((row) => row.x),
        [1, 3],
      ),
      labelExpr: "format(datum.value, '~g')",
      labelOverlap: true,
    },
    scale: { type: 'log', nice: false, padding: 12 },
  };
  const y = {
    type: 'quantitative',
    title: '|log pi - log mu|, nats',
    axis: {
      ...powersOfTen,
      values: decades([...rows.map(({ distance }) => distance), ...means.map(({ meanAbs }) => meanAbs)], [1]),
    },
    scale: { type: 'log' },
  };
  return [
    {
      id,
      title,
      caption: `${chart.caption} Points are tokens that differ, at most 1,000; the line is the mean over all tokens in bins, equal ones among them.`,
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 280,
        layer: [
          {
            data: inline(rows),
            mark: { type: 'point', filled: true, size: 10, opacity: 0.3, color: palette[0] },
            encoding: { x, y: { ...y, field: 'distance' } },
          },
          {
            data: inline(means),
            params: [zoom],
            mark: {
              type: 'line',
              strokeWidth: 2,
              color: palette[1],
              point: { filled: true, size: 36, color: palette[1] },
            },
            encoding: {
              x,
              y: { ...y, field: 'meanAbs' },
              tooltip: [
                told('from', `${what}: from`, '.3~g'),
                told('to', 'to', '.3~g'),
                told('meanAbs', 'mean |log pi - log mu|', '.3~g'),
                told('tokens', 'tokens', ','),
              ],
            },
          },
        ],
      },
    },
  ];
}

/** The powers of ten, times each of some factors, from about the least to about the greatest of positive numbers. */
function decades(values: readonly number[], factors: readonly number[]): number[] {
  let [least, greatest] = [Infinity, 0];
  for (const value of values) [least, greatest] = [Math.min(least, value), Math.max(greatest, value)];
  const [first, last] = [Math.floor(Math.log10(least)), Math.ceil(Math.log10(greatest))];
  return Array.from({ length: last - first + 1 }, (_, i) =>
    factors.map((factor) => Number(`${factor}e${first + i}`)),
  ).flat();
}

/** L of responses; none where no two log-probs differ. */
function drift({ responses }: PlotPoints): Figure[] {
  if (responses.every(([, logRatio]) => logRatio === 0)) return [];
  const pair = 'responses';
  const rows = responses.map(([length, logRatio]) => ({ pair, length, logRatio }));
  return [
    figureOfDrift({
      all: rows,
      shown: rows,
      few: 'At most 400 responses are shown, evenly spread.',
      pairs: [pair],
      color: { field: 'pair', type: 'nominal', scale: { range: palette }, legend: null },
      ofSettings: false,
    }),
  ];
}

/** What each signature would account for; none where none says. */
function explained(signatures: Diagnosis['signatures']): Figure[] {
  const rows = signatures.flatMap(({ name, title, found, explained }) =>
    explained === null ? [] : [{ name, title, found: found ? 'found' : 'not found', explained }],
  );
  if (rows.length === 0) return [];
  return [
    {
      id: 'explained',
      title: 'What would explain it',
      caption:
        'Of each signature the share of the mismatch beyond the floor that its fault would account for. More than one fault may ' +
        'account for the same, so shares don’t add up.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 20 * rows.length,
        data: inline(rows),
        mark: { type: 'bar' },
        encoding: {
          tooltip: [told('name', 'signature'), told('title', 'looks for'), told('explained', 'share', '.1%')],
          y: { field: 'name', type: 'nominal', title: null, sort: null, scale: { paddingInner: 0.25 } },
          x: {
            field: 'explained',
            type: 'quantitative',
            title: 'share of the mismatch',
            axis: { format: '%', tickCount: 10 },
            scale: { domain: [0, 1] },
          },
          color: {
            field: 'found',
            type: 'nominal',
            title: null,
            scale: { domain: ['found', 'not found'], range: [palette[1], palette[7]] },
          },
        },
      },
    },
  ];
}

/** The noise of the logits beside what is usual for the format; none where it was not measured, or is exactly 0. */
function floor(signatures: Diagnosis['signatures'], dtype: string): Figure[] {
  const { units = 0, low = 0, high = 0 } = signatures.find(({ name }) => name === 'floor')?.values ?? {};
  if (!(units > 0 && units < Infinity && low > 0)) return [];
  const x = {
    type: 'quantitative',
    title: `noise of the logits in roundings of ${dtype}`,
    axis: { values: decades([units, low, high], [1, 3]), labelExpr: "format(datum.value, '~g')" },
    scale: { type: 'log', nice: false, padding: 60 },
  };
  const label = { baseline: 'bottom', dy: -12 };
  return [
    {
      id: 'floor',
      title: 'Noise against the floor',
      caption:
        'Mean |log mu - log pi| over the mean of 1 - p, in units of the largest relative error of a rounding: the point. The band is where two ' +
        `engines lie that compute in ${dtype} and differ by rounding alone.`,
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 70,
        layer: [
          {
            data: inline([{ low, high }]),
            mark: { type: 'bar', height: 26, color: palette[2], opacity: 0.5, tooltip: false },
            encoding: { x: { ...x, field: 'low' }, x2: { field: 'high' } },
          },
          {
            data: inline([{ units }]),
            mark: { type: 'point', filled: true, size: 90, color: palette[1], opacity: 1 },
            encoding: { x: { ...x, field: 'units' }, tooltip: [told('units', 'roundings', '.3~g')] },
          },
          {
            data: inline([{ units, what: `${Number(units.toPrecision(3))} roundings` }]),
            mark: { type: 'text', ...label, color: '#888888' },
            encoding: { x: { ...x, field: 'units' }, text: { field: 'what', type: 'nominal' } },
          },
        ],
      },
    },
  ];
}

/** What each correction leaves, and below what a policy is frozen. */
function left({ corrections }: LearningEffect): Figure {
  const whats = ['tokens kept', 'responses kept', 'signal left'];
  const rows = corrections.flatMap(({ correction, keptTokens, keptResponses, signalShare }) =>
    [keptTokens, keptResponses, signalShare].map((share, i) => ({ correction, what: whats[i], share })),
  );
  return {
    id: 'left',
    title: 'What is left to learn from',
    caption:
      'Of tokens and responses, those with a weight above 0; signal: what is left of the uncorrected gradient’s coefficients, ' +
      `the mean of min(weight, 1). A correction below the dashed line, ${100 * FROZEN_SHARE} %, freezes the policy.`,
    spec: {
      $schema: SCHEMA,
      width: 'container',
      height: 44 * corrections.length,
      data: inline(rows),
      layer: [
        {
          mark: { type: 'bar' },
          encoding: {
            tooltip: [told('correction'), told('what'), told('share', 'share', '.1%')],
            y: {
              field: 'correction',
              type: 'nominal',
              title: null,
              sort: null,
              scale: { paddingInner: 0.25 },
            },
            yOffset: { field: 'what', type: 'nominal', sort: whats },
            x: {
              field: 'share',
              type: 'quantitative',
              title: 'share',
              axis: { format: '%', tickCount: 10 },
              scale: { domain: [0, 1] },
            },
            color: {
              field: 'what',
              type: 'nominal',
              title: null,
              sort: whats,
              scale: { domain: whats, range: palette },
              legend: { columns: onPhone(1, 3) },
            },
          },
        },
        {
          data: inline([{ share: FROZEN_SHARE }]),
          mark: { type: 'rule', strokeDash: [6, 4], strokeWidth: 1.5, color: '#888888' },
          encoding: { x: { field: 'share', type: 'quantitative' } },
        },
      ],
    },
  };
}
