import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ProfilePoint } from '../../instruments/profile.js';
import { PointLog } from '../../io/pointLog.js';
import { type Figure, inline, palette, type ReportRun, zoom } from '../figure.js';
import { pairLabel } from './sanity.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';
const RESPONSES_SHOWN = 400;

/** The two panels of figure 2 of arXiv 2510.26788. */
export async function figuresOfMismatch(run: ReportRun): Promise<Figure[]> {
  const path = join(run.directory, 'points.jsonl');
  // Opening the log cuts off a torn line; a report changes nothing.
  const whole = (await readFile(path, 'utf8').catch(() => '')).endsWith('\n');
  if (!whole) return [];
  const log = await PointLog.open<ProfilePoint>(path);
  const points = log.values();
  const pairs = [...new Set(points.map((point) => pairLabel(point.training, point.rollout)))];
  const color = { field: 'pair', type: 'nominal', title: null, scale: { domain: pairs, range: palette } };
  const tokens = points.flatMap((point) =>
    point.tokens.map(([mu, pi]) => ({ pair: pairLabel(point.training, point.rollout), mu, pi })),
  );
  const responses = points.flatMap((point) => {
    const stride = Math.max(1, Math.floor(point.responses.length / RESPONSES_SHOWN));
    return point.responses
      .filter((_, i) => i % stride === 0)
      .map(([length, logRatio]) => ({ pair: pairLabel(point.training, point.rollout), length, logRatio }));
  });
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
            {
              mark: { type: 'point', filled: true, size: 14, opacity: 0.5, tooltip: true },
              encoding: {
                x: { field: 'mu', type: 'quantitative', title: 'mu (rollout)', scale: { domain: [0, 1] } },
                y: { field: 'pi', type: 'quantitative', title: 'pi (training)', scale: { domain: [0, 1] } },
                color: { ...color, legend: null },
              },
            },
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
          ],
        },
      },
    },
    {
      id: 'drift',
      title: 'Drift of whole responses',
      caption:
        'L = sum of log pi - log mu over a response against its length, with the least-squares line of each setting. Pan ' +
        'with the mouse, zoom with the wheel.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 300,
        data: inline(responses),
        layer: [
          {
            params: [zoom],
            mark: { type: 'point', filled: true, size: 16, opacity: 0.5, tooltip: true },
            encoding: {
              x: { field: 'length', type: 'quantitative', title: 'tokens of the response' },
              y: { field: 'logRatio', type: 'quantitative', title: 'log pi(y) - log mu(y), nats' },
              color,
            },
          },
          {
            transform: [{ regression: 'logRatio', on: 'length', groupby: ['pair'] }],
            mark: { type: 'line', strokeWidth: 2 },
            encoding: {
              x: { field: 'length', type: 'quantitative' },
              y: { field: 'logRatio', type: 'quantitative' },
              color,
            },
          },
        ],
      },
    },
  ];
}
