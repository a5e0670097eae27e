import type { HeadroomSummary } from '../../instruments/headroom.js';
import {
  type Figure,
  inline,
  lineLegend,
  lineMark,
  onPhone,
  palette,
  type ReportRun,
  thin,
  thinned,
  told,
  wholeNumbers,
} from '../figure.js';

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
  // Training without loss scaling has a scale of 1 at every step: nothing to see.
  const scaled = timeline.some((point) => point.scale !== 1)
    ? thin(timeline).map((point) => ({ ...point, step: point.step + 1 }))
    : [];
  const skipping = timeline
    .filter(({ skippedUpdates }) => skippedUpdates > 0)
    .map((point) => ({ ...point, step: point.step + 1 }));
  const lossless = shares.every(({ share }) => !(share > 0));
  const last = scales.at(-1)!.log2Scale;
  const marks = [
    { log2Scale: Math.log2(scale), what: 'present scale' },
    { log2Scale: Math.log2(suggestedScale), what: 'suggested scale' },
    { log2Scale: scales[0]!.bits + scales[0]!.log2Scale, what: 'overflow from here on' },
    // A format with bfloat16's range has them far beyond any scale.
  ].filter(({ log2Scale }) => log2Scale <= last + 2);
  return [
    {
      id: 'bits-left',
      title: 'Bits left to the largest number',
      caption:
        'How many times the largest magnitude at each place could double before it overflows: activations forward, their ' +
        'gradients backward at the present loss scale. "outside" of the layers are the embedding and the final norm.',
      spec: {
        $schema: SCHEMA,
        data: inline(bits),
        facet: { field: 'way', type: 'nominal', title: null, sort: ['forward', 'backward'] },
        columns: 2,
        spec: {
          width: { step: 38 },
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
      caption:
        'Shares of the nonzero gradients of an fp32 pass that the format would not hold, or hold with fewer bits (below ' +
        'normal), against the loss scale.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 260,
        data: inline(shares),
        layer: [
          {
            mark: { ...lineMark, strokeWidth: 2 },
            encoding: {
              x: {
                field: 'log2Scale',
                type: 'quantitative',
                title: 'log2 of the loss scale',
                axis: wholeNumbers,
              },
              y: {
                field: 'share',
                type: 'quantitative',
                title: 'share of gradients',
                axis: { format: '%' },
                ...(lossless && { scale: { domain: [0, 1] } }),
              },
              color: {
                field: 'what',
                type: 'nominal',
                title: null,
                sort: null,
                scale: { domain: [...new Set(shares.map(({ what }) => what))], range: palette },
                legend: { ...lineLegend, columns: 1, labelLimit: onPhone(300, 600) },
              },
            },
          },
          {
            data: inline(marks),
            mark: { type: 'rule', strokeDash: [4, 3], color: '#888888' },
            encoding: {
              tooltip: [told('what'), told('log2Scale', 'log2 of the loss scale', '.3~g')],
              x: { field: 'log2Scale', type: 'quantitative' },
            },
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
    ...(scaled.length === 0
      ? []
      : [
          {
            id: 'timeline',
            title: 'Loss scale over the run',
            caption: `After each step.${skipping.length > 0 ? ' Points mark steps with skipped updates.' : ''} ${thinned}`,
            spec: {
              $schema: SCHEMA,
              width: 'container',
              height: 200,
              data: inline(scaled),
              encoding: {
                x: { field: 'step', type: 'quantitative', title: 'step', axis: wholeNumbers },
                tooltip: [
                  told('step', 'step', ','),
                  told('scale', 'loss scale', ','),
                  told('skippedUpdates', 'updates skipped', ','),
                ],
              },
              layer: [
                {
                  mark: { ...lineMark, interpolate: 'step-after', color: palette[0] },
                  encoding: {
                    y: {
                      field: 'scale',
                      type: 'quantitative',
                      title: 'loss scale',
                      scale: { type: 'log', base: 2 },
                    },
                  },
                },
                ...(skipping.length > 0
                  ? [
                      {
                        data: inline(skipping),
                        mark: {
                          type: 'point',
                          filled: true,
                          color: palette[1],
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
