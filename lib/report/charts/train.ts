import {
  type Figure,
  inline,
  lineLegend,
  lineMark,
  palette,
  type ReportRun,
  told,
  wholeNumbers,
  zoom,
} from '../figure.js';
import { figuresOfSteps } from './sanity.js';

/** Curves of a training run: its evaluations, and what its steps measured. */
export function figuresOfTraining(run: ReportRun): Figure[] {
  const steps = figuresOfSteps([run], {
    title: 'Training reward',
    caption: 'Mean reward over ten steps of the responses that were sampled to train on.',
    axis: { title: 'reward' },
  });
  return [...evaluationFigure(run), ...steps];
}

function evaluationFigure({ metrics }: ReportRun): Figure[] {
  const points = metrics.flatMap((record) =>
    Object.entries(record).flatMap(([key, value]) => {
      const name = /^eval\/((?:avg|pass)@\d+)$/.exec(key)?.[1];
      return name === undefined ? [] : [{ step: record.step, metric: name, value: Number(value) }];
    }),
  );
  if (points.length === 0) return [];
  const names = [...new Set(points.map(({ metric }) => metric))];
  return [
    {
      id: 'evaluation',
      title: 'Evaluation',
      caption:
        'On the second set of problems, by the steps behind the weights: avg@k is the mean reward of k responses to each ' +
        'problem, pass@k the share of problems with a right one among them.',
      spec: {
        $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
        width: 'container',
        height: 260,
        data: inline(points),
        params: [zoom],
        mark: { ...lineMark, point: true },
        encoding: {
          x: { field: 'step', type: 'quantitative', title: 'steps done', axis: wholeNumbers },
          y: { field: 'value', type: 'quantitative', title: 'evaluation' },
          tooltip: [told('metric'), told('step', 'steps done', ','), told('value', 'value', '.4~g')],
          color: {
            field: 'metric',
            type: 'nominal',
            title: null,
            scale: { domain: names, range: palette },
            legend: lineLegend,
          },
        },
      },
    },
  ];
}
