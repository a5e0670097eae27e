import { join } from 'node:path';
import type { ProfileGroup, ProfilePoint, ProfileSummary } from '../../instruments/profile.js';
import { PointLog } from '../../io/pointLog.js';
import {
  type Figure,
  inline,
  powersOfTen,
  precisionScale,
  type ReportRun,
  told,
  wholeNumbers,
  zoom,
} from '../figure.js';
import { pairLabel } from './sanity.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';
const RESPONSES_SHOWN = 400;

/** The two panels of figure 2 of arXiv 2510.26788. */
export async function figuresOfMismatch(run: ReportRun): Promise<Figure[]> {
  const path = join(run.directory, 'points.jsonl');
  const points = await PointLog.read<ProfilePoint>(path);
  if (points.length === 0) return [];
  const pairs = [...new Set(points.map((point) => pairLabel(point.training, point.rollout)))];
  const color = {
    field: 'pair',
    type: 'nominal',
    title: null,
    scale: precisionScale(pairs),
    legend: { symbolOpacity: 1 },
  };
  const tokens = points.flatMap((point) =>
    point.tokens.map(([mu, pi]) => ({ pair: pairLabel(point.training, point.rollout), mu, pi })),
  );
  return [
    {
      id: 'tokens',
      title: 'Token probabilities',
      caption:
        'Each point is a token: its probability under the training engine against that under the rollout engine. On the ' +
        'diagonal they agree. At most 1,500 tokens of each setting are shown, evenly spread.',
      spec: {
        $schema: SCHEMA,
        data: inline(tokens),
        facet: { field: 'pair', type: 'nominal', title: null, sort: pairs },
        columns: 2,
        spec: {
          width: 280,
          height: 280,
          layer: [
            // Below the points, which answer to the pointer.
            {
              data: inline([{ a: 0, b: 1 }]),
              mark: { type: 'rule', strokeDash: [4, 4], color: '#888888' },
              encoding: {
                x: { field: 'a', type: 'quantitative' },
                y: { field: 'a', type: 'quantitative' },
                x2: { field: 'b' },
                y2: { field: 'b' },
              },
            },
            {
              mark: { type: 'point', filled: true, size: 14, opacity: 0.5 },
              encoding: {
                tooltip: [
                  told('pair', 'setting'),
                  told('mu', 'mu (rollout)', '.4~g'),
                  told('pi', 'pi (training)', '.4~g'),
                ],
                x: { field: 'mu', type: 'quantitative', title: 'mu (rollout)', scale: { domain: [0, 1] } },
                y: { field: 'pi', type: 'quantitative', title: 'pi (training)', scale: { domain: [0, 1] } },
                color: { ...color, legend: null },
              },
            },
          ],
        },
      },
    },
    drift(points, pairs, color),
    ...entropy((run.summary as unknown as ProfileSummary | null)?.groups ?? [], color),
  ];
}

const entropyTicks = [0.001, 0.01, 0.03, 0.1, 0.3, 1, 3];

/** The mismatch of tokens by the entropy of their distribution; none in runs of before it was measured. */
function entropy(groups: readonly ProfileGroup[], color: object): Figure[] {
  const rows = groups.flatMap((group) =>
    (group.entropy?.bins ?? []).map(({ entropy, share, meanAbsLogRatio, shareOfK3 }) => ({
      pair: pairLabel(group.training, group.rollout),
      entropy,
      share,
      shareOfK3,
      ...meanAbsLogRatio,
    })),
  );
  // A logarithmic axis has no 0.
  const shown = rows.filter((row) => row.entropy > 0 && row.value > 0 && row.low > 0);
  if (shown.length === 0) return [];
  const x = {
    field: 'entropy',
    type: 'quantitative',
    title: 'entropy of the token, nats',
    axis: { values: entropyTicks },
    scale: { type: 'log', nice: false, padding: 12 },
  };
  const y = {
    type: 'quantitative',
    title: 'mean |log pi - log mu|',
    axis: powersOfTen,
    scale: { type: 'log' },
  };
  return [
    {
      id: 'entropy',
      title: 'Mismatch by entropy',
      caption:
        'Tokens in bins of the entropy of their distribution under the training engine, a factor of 2 wide: where there is ' +
        'little to choose, there is little for rounding to change. Upright lines are 95 % bootstrap intervals over prompts.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 300,
        data: inline(shown),
        layer: [
          {
            mark: { type: 'rule', opacity: 0.6 },
            encoding: { x, y: { ...y, field: 'low' }, y2: { field: 'high' }, color },
          },
          {
            params: [zoom],
            mark: { type: 'line', point: { filled: true, size: 40 } },
            encoding: {
              x,
              y: { ...y, field: 'value' },
              color,
              tooltip: [
                told('pair', 'setting'),
                told('entropy', 'entropy, nats', '.3~g'),
                told('value', 'mean |log pi - log mu|', '.3~g'),
                told('share', 'of the tokens', '.1%'),
                told('shareOfK3', 'of KL[mu||pi]', '.1%'),
              ],
            },
          },
        ],
      },
    },
  ];
}

/** Spread of lengths, standard deviation over mean, from which on a slope is shown; as the command has it. */
const LENGTH_SPREAD = 0.1;

const L_TITLE = 'log pi(y) - log mu(y), nats';
const L_TOOLTIP = [told('pair', 'setting'), told('length', 'tokens', ','), told('logRatio', L_TITLE, '.3~g')];

/** L of responses against their length; by setting alone where they are about equally long. */
function drift(points: readonly ProfilePoint[], pairs: readonly string[], color: object): Figure {
  const all = points.flatMap((point) =>
    point.responses.map(([length, logRatio]) => ({
      pair: pairLabel(point.training, point.rollout),
      length,
      logRatio,
    })),
  );
  const shown = points.flatMap((point) => {
    const stride = Math.ceil(point.responses.length / RESPONSES_SHOWN);
    return point.responses
      .filter((_, i) => i % stride === 0)
      .map(([length, logRatio]) => ({ pair: pairLabel(point.training, point.rollout), length, logRatio }));
  });
  const few = `At most ${RESPONSES_SHOWN} responses of each base in each setting are shown. Pan with the mouse, zoom with the wheel.`;
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
              tooltip: L_TOOLTIP,
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
    caption:
      'L = sum of log pi - log mu over a response against its length, with the least-squares line of each setting. ' +
      `Settings stand side by side within a token's width. ${few}`,
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
            tooltip: L_TOOLTIP,
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
