import { type Figure, inline, told, wholeNumbers, zoom } from '../figure.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';

/** Spread of lengths, standard deviation over mean, from which on a slope is shown; as the command has it. */
const LENGTH_SPREAD = 0.1;

const L_TITLE = 'log pi(y) - log mu(y), nats';
const L_TOOLTIP = [told('length', 'tokens', ','), told('logRatio', L_TITLE, '.3~g')];

/** A response in the chart: its setting, its tokens, and L. */
export interface DriftRow {
  readonly pair: string;
  readonly length: number;
  readonly logRatio: number;
}

/** L of responses against their length; by setting alone where they are about equally long. */
export function figureOfDrift(chart: {
  /** Of which lines and means are. */
  readonly all: readonly DriftRow[];
  readonly shown: readonly DriftRow[];
  /** How many are shown, for the caption. */
  readonly few: string;
  readonly pairs: readonly string[];
  readonly color: object;
  /** Whether the chart tells settings apart; else all responses are of one. */
  readonly ofSettings: boolean;
}): Figure {
  const { all, shown, pairs, color, ofSettings } = chart;
  const few = `${chart.few} Pan with the mouse, zoom with the wheel.`;
  const tooltip = [...(ofSettings ? [told('pair', 'setting')] : []), ...L_TOOLTIP];
  const lengths = all.map(({ length }) => length);
  const moments = momentsOf(lengths);
  const figure = { id: 'drift', title: 'Drift of whole responses' };
  if (moments.std < LENGTH_SPREAD * moments.mean) {
    // Rows of points; within a row they are spread so that they do not lie on one another.
    const rows = shown.map((row, i) => ({
      ...row,
      row: pairs.indexOf(row.pair) + 0.6 * ((i * GOLDEN) % 1) - 0.3,
    }));
    const means = pairs.map((pair, i) => {
      const mean = momentsOf(all.flatMap((row) => (row.pair === pair ? [row.logRatio] : []))).mean;
      return { pair, mean, low: i - 0.4, high: i + 0.4 };
    });
    return {
      ...figure,
      caption:
        'Each point is a response, its L = sum of log pi - log mu; upright lines are means. Responses are of about one ' +
        `length, which tells nothing of a slope. ${few}`,
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 60 + 40 * pairs.length,
        data: inline(rows),
        layer: [
          {
            params: [zoom],
            mark: { type: 'point', filled: true, size: 16, opacity: 0.5 },
            encoding: {
              x: { field: 'logRatio', type: 'quantitative', title: L_TITLE },
              y: {
                field: 'row',
                type: 'quantitative',
                title: null,
                scale: { domain: [pairs.length - 0.5, -0.5], zero: false, nice: false },
                axis: {
                  values: pairs.map((_, i) => i),
                  labelExpr: `${JSON.stringify(pairs)}[datum.value]`,
                  labelLimit: 320,
                  grid: false,
                },
              },
              color: { ...color, legend: null },
              tooltip,
            },
          },
          {
            data: inline(means),
            mark: { type: 'rule', strokeWidth: 2, color: '#888888' },
            encoding: {
              x: { field: 'mean', type: 'quantitative' },
              y: { field: 'low', type: 'quantitative' },
              y2: { field: 'high' },
            },
          },
        ],
      },
    };
  }
  // Responses of one length would lie on one another: within that token, each setting has its own place.
  const beside = (pair: string) => (0.8 * (pairs.indexOf(pair) - (pairs.length - 1) / 2)) / pairs.length;
  const lines = pairs.flatMap((pair) =>
    lineOf(all.filter((row) => row.pair === pair)).map((end) => ({ pair, ...end })),
  );
  return {
    ...figure,
    caption: `L = sum of log pi - log mu over a response against its length, with the least-squares line${
      ofSettings ? " of each setting. Settings stand side by side within a token's width." : '.'
    } ${few}`,
    spec: {
      $schema: SCHEMA,
      width: 'container',
      height: 300,
      data: inline(shown.map((row) => ({ ...row, place: row.length + beside(row.pair) }))),
      layer: [
        {
          params: [zoom],
          mark: { type: 'point', filled: true, size: 16, opacity: 0.5 },
          encoding: {
            x: {
              field: 'place',
              type: 'quantitative',
              title: 'tokens of the response',
              axis: wholeNumbers,
              scale: { zero: false, padding: 12 },
            },
            y: { field: 'logRatio', type: 'quantitative', title: L_TITLE },
            color,
            tooltip,
          },
        },
        {
          data: inline(lines),
          mark: { type: 'line', strokeWidth: 2 },
          encoding: {
            x: { field: 'length', type: 'quantitative' },
            y: { field: 'logRatio', type: 'quantitative' },
            color,
          },
        },
      ],
    },
  };
}

/** Multiples of this, modulo 1, are spread as evenly as can be. */
const GOLDEN = (Math.sqrt(5) - 1) / 2;

function momentsOf(values: readonly number[]): { readonly mean: number; readonly std: number } {
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const square = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  return { mean, std: Math.sqrt(square) };
}

/** Both ends of the least-squares line of L on length; none where lengths do not vary. */
function lineOf(rows: readonly { readonly length: number; readonly logRatio: number }[]): object[] {
  const x = momentsOf(rows.map(({ length }) => length));
  const y = momentsOf(rows.map(({ logRatio }) => logRatio));
  if (!(x.std > 0)) return [];
  const together =
    rows.reduce((sum, row) => sum + (row.length - x.mean) * (row.logRatio - y.mean), 0) / rows.length;
  const slope = together / x.std ** 2;
  let [low, high] = [Infinity, -Infinity];
  for (const { length } of rows) [low, high] = [Math.min(low, length), Math.max(high, length)];
  return [low, high].map((length) => ({ length, logRatio: y.mean + slope * (length - x.mean) }));
}
