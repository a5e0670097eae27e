import type { LadderSummary } from '../../instruments/ladder.js';
import { precisionLabel } from '../../tensor/dtype.js';
import { compact, type Figure, inline, lineLegend, precisionScale, type ReportRun, told } from '../figure.js';

const SCHEMA = 'https://vega.github.io/schema/vega-lite/v6.json';

/** What each knob, and each layer, contributes. */
export function figuresOfLadder(run: ReportRun): Figure[] {
  const summary = run.summary as unknown as LadderSummary | null;
  if (summary === null || summary.results.length === 0) return [];
  const { results, numLayers } = summary;
  const precisions = results.map(({ precision }) => precisionLabel(precision));
  const facet = { field: 'precision', type: 'nominal', title: null, sort: precisions };
  const knobs = results[0]!.alone.map(({ knob }) => knob);
  const alone = results.flatMap(({ precision, alone: rungs }) =>
    rungs.map(({ knob, meanAbsLogRatio }) => ({
      precision: precisionLabel(precision),
      knob,
      nats: meanAbsLogRatio,
    })),
  );
  const steps = results.flatMap(({ precision, apart, down }) => [
    { precision: precisionLabel(precision), rung: 'all apart', order: 0, nats: apart.meanAbsLogRatio },
    ...down.map(({ knob, meanAbsLogRatio }, i) => ({
      precision: precisionLabel(precision),
      rung: `= ${knob}`,
      order: i + 1,
      nats: meanAbsLogRatio,
    })),
  ]);
  const place = (layer: number) => (layer === numLayers ? 'head' : String(layer));
  const byLayer = results.flatMap(({ precision, knobByLayer }) =>
    knobByLayer.flatMap(({ knob, layers }) =>
      layers.map((nats, layer) => ({
        precision: precisionLabel(precision),
        knob,
        layer: place(layer),
        nats,
      })),
    ),
  );
  const own = (nats: string) => ({ field: 'nats', type: 'quantitative', title: nats });
  const unit = 'mean |log pi - log mu|, nats per token';
  return [
    {
      id: 'alone',
      title: 'Each choice alone',
      caption:
        'Mean |log pi - log mu|: one choice at a time as the rollout engine makes it, all others as the training engine ' +
        'does. Contributions do not add up. The command isopolicy info tells what each choice is.',
      spec: {
        $schema: SCHEMA,
        data: inline(alone),
        facet,
        columns: 2,
        resolve: { scale: { x: 'independent' } },
        spec: {
          width: 240,
          height: { step: 18 },
          mark: { type: 'bar' },
          encoding: {
            // Labels beyond the panel would part it from its axis.
            x: { ...own('nats per token'), axis: { ...compact, labelFlush: true, tickCount: 4 } },
            tooltip: [told('precision'), told('knob', 'choice'), told('nats', 'nats per token', '.3~g')],
            y: { field: 'knob', type: 'nominal', title: null, sort: knobs },
            color: {
              field: 'precision',
              type: 'nominal',
              legend: null,
              scale: precisionScale(precisions),
            },
          },
        },
      },
    },
    {
      id: 'down',
      title: 'From all apart down to an exact 0',
      caption: 'Choices are made equal one after another, from left to right; the last rung is exactly 0.',
      spec: {
        $schema: SCHEMA,
        width: 'container',
        height: 240,
        data: inline(steps),
        mark: { type: 'line', interpolate: 'step-after', point: true, tooltip: true },
        encoding: {
          x: {
            field: 'rung',
            type: 'nominal',
            title: null,
            sort: steps.filter(({ precision }) => precision === precisions[0]).map(({ rung }) => rung),
            axis: { labelAngle: -40 },
          },
          y: { ...own(unit), axis: compact },
          color: {
            field: 'precision',
            type: 'nominal',
            title: null,
            scale: precisionScale(precisions),
            legend: lineLegend,
          },
        },
      },
    },
    {
      id: 'by-layer',
      title: 'Each choice in each layer',
      caption:
        'Mean |log pi - log mu| with one choice in one layer alone as the rollout engine makes it. "head" is the last norm ' +
        'and the head. Each precision has colours of its own.',
      spec: {
        $schema: SCHEMA,
        data: inline(byLayer),
        facet,
        columns: 2,
        resolve: { scale: { color: 'independent' } },
        spec: {
          width: { step: 30 },
          height: { step: 18 },
          mark: { type: 'rect', tooltip: true },
          encoding: {
            x: { field: 'layer', type: 'nominal', title: 'layer', sort: null, axis: { labelAngle: 0 } },
            y: { field: 'knob', type: 'nominal', title: null, sort: knobs },
            color: { ...own('nats'), scale: { scheme: 'blues' } },
          },
        },
      },
    },
  ];
}
