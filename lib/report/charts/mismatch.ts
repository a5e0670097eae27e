import { join } from 'node:path';
import type { ProfileGroup, ProfilePoint, ProfileSummary } from '../../instruments/profile.js';
import { PointLog } from '../../io/pointLog.js';
import { type Figure, inline, powersOfTen, precisionScale, type ReportRun, told, zoom } from '../figure.js';
import { figureOfDrift } from './drift.js';
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

/** L of responses against their length; by setting alone where they are about equally long. */
function drift(points: readonly ProfilePoint[], pairs: readonly string[], color: object): Figure {
  const of = ({ training, rollout, responses }: ProfilePoint, stride: number) =>
    responses
      .filter((_, i) => i % stride === 0)
      .map(([length, logRatio]) => ({ pair: pairLabel(training, rollout), length, logRatio }));
  return figureOfDrift({
    all: points.flatMap((point) => of(point, 1)),
    shown: points.flatMap((point) => of(point, Math.ceil(point.responses.length / RESPONSES_SHOWN))),
    few: `At most ${RESPONSES_SHOWN} responses of each base in each setting are shown.`,
    pairs,
    color,
    ofSettings: true,
  });
}
