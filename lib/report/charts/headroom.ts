import type { HeadroomSummary } from '../../instruments/headroom.js';
import { type Figure, inline, palette, type ReportRun } from '../figure.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';

/** Bits left by layer, what a scale loses at either end, and the scale over the run. */
export function figuresOfHeadroom(run: ReportRun): Figure[] {
  const summary = run.summary as unknown as HeadroomSummary | null;
  if (summary === null || summary.places.length === 0) return [];
  const { places, scales, timeline, scale, suggestedScale } = summary;
  const bits = places.flatMap(({ point, layer, forwardBits, backwardBits }) =>
    [
      { way: 'forward', bits: forwardBits },
      { way: 'backward', bits: backwardBits },
    ]
      .filter((entry) => Number.isFinite(entry.bits))
      .map((entry) => ({ point, layer: layer < 0 ? 'outside' : String(layer), ...entry })),
  );
  const shares = scales.flatMap(({ log2Scale, underflow, subnormal, parameterUnderflow }) => [
    { log2Scale, what: 'activation gradients that become 0', share: underflow },
    { log2Scale, what: 'activation gradients below normal', share: subnormal },
    { log2Scale, what: 'parameter gradients, were they 16-bit', share: parameterUnderflow },
  ]);
  const marks = [
    { log2Scale: Math.log2(scale), what: 'present scale' },
    { log2Scale: Math.log2(suggestedScale), what: 'suggested scale' },
    { log2Scale: scales[0]!.bits + scales[0]!.log2Scale, what: 'overflow from here on' },
  ];
  return [
    {
      id: 'bits-left',
      title: 'Bits left to the largest number',
      caption: 'Of the largest magnitude at each place, forward and backward at the present loss scale.',
      spec: {
        $schema: SCHEMA,
        data: inline(bits),
        facet: { field: 'way', type: 'nominal', title: null, sort: ['forward', 'backward'] },
        columns: 2,
        spec: {
          width: { step: 34 },
          height: { step: 20 },
          mark: { type: 'rect', tooltip: true },
          encoding: {
            x: { field: 'layer', type: 'nominal', title: 'layer', sort: null, axis: { labelAngle: 0 } },
            y: { field: 'point', type: 'nominal', title: null, sort: null },
            color: { field: 'bits', type: 'quantitative', title: 'bits', scale: { scheme: 'viridis' } },
          },
        },
      },
    },
    {
      id: 'underflow',
      title: 'What a loss scale loses',
      caption: 'Shares of the nonzero gradients of an fp32 pass that the format would not hold.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 260,
        data: inline(shares),
        layer: [
          {
            mark: { type: 'line', strokeWidth: 2, tooltip: true },
            encoding: {
              x: { field: 'log2Scale', type: 'quantitative', title: 'log2 of the loss scale' },
              y: { field: 'share', type: 'quantitative', title: 'share', axis: { format: '%' } },
              color: {
                field: 'what',
                type: 'nominal',
                title: null,
                scale: { range: palette },
                legend: { columns: 1, labelLimit: 320 },
              },
            },
          },
          {
            data: inline(marks),
            mark: { type: 'rule', strokeDash: [4, 3], color: '#888888', tooltip: true },
            encoding: { x: { field: 'log2Scale', type: 'quantitative' } },
          },
          {
            data: inline(marks),
            mark: { type: 'text', angle: 270, align: 'right', dx: -4, dy: -6, color: '#888888' },
            encoding: {
              x: { field: 'log2Scale', type: 'quantitative' },
              y: { value: 0 },
              text: { field: 'what', type: 'nominal' },
            },
          },
        ],
      },
    },
    ...(timeline.length === 0
      ? []
      : [
          {
            id: 'timeline',
            title: 'Loss scale over the run',
            caption: 'After each step; points mark steps with skipped updates.',
            spec: {
              $schema: SCHEMA,
              width: 'container',
              height: 200,
              data: inline(timeline),
              encoding: { x: { field: 'step', type: 'quantitative', title: 'step' } },
              layer: [
                {
                  mark: { type: 'line', interpolate: 'step-after', color: palette[0], tooltip: true },
                  encoding: {
                    y: {
                      field: 'scale',
                      type: 'quantitative',
                      title: 'loss scale',
                      scale: { type: 'log', base: 2 },
                    },
                  },
                },
                ...(timeline.some(({ skippedUpdates }) => skippedUpdates > 0)
                  ? [
                      {
                        transform: [{ filter: 'datum.skippedUpdates > 0' }],
                        mark: {
                          type: 'point',
                          filled: true,
                          color: palette[1],
                          tooltip: { content: 'data' },
                        },
                        encoding: { y: { field: 'scale', type: 'quantitative' } },
                      },
                    ]
                  : []),
              ],
            },
          },
        ]),
  ];
}
