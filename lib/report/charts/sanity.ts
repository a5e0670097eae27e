import { type FloatDType, precisionLabel } from '../../tensor/dtype.js';
import {
  type Figure,
  healthyText,
  inline,
  lineLegend,
  lineMark,
  palette,
  powersOfTen,
  type ReportRun,
  thin,
  thinned,
  told,
  wholeNumbers,
  zoom,
} from '../figure.js';

/** Training accuracy that passes the sanity test. */
const PASS = 0.95;

/** How a run is called in legends: what sets it apart. */
export function runLabel({ config, name }: ReportRun): string {
  const { algorithm, trainingPrecision, rolloutPrecision, numerics, seed } = config as Record<
    string,
    string | number
  >;
  if (algorithm === undefined || trainingPrecision === undefined) return name;
  const pair = pairLabel(String(trainingPrecision), String(rolloutPrecision));
  return `${algorithm} ${pair}${numerics === 'matched' ? ' matched' : ''} seed ${seed}`;
}

/** Labels of runs that share a chart; runs whose labels are the same have their folders' names behind them. */
export function runLabels(runs: readonly ReportRun[]): Map<ReportRun, string> {
  const labels = runs.map(runLabel);
  const told = runs.map((run, i) =>
    labels.filter((label) => label === labels[i]).length > 1 ? `${labels[i]}, ${run.name}` : labels[i]!,
  );
  // Folders may have one name in different places.
  return new Map(
    runs.map((run, i) => [
      run,
      told.indexOf(told[i]!) === told.lastIndexOf(told[i]!) ? told[i]! : `${labels[i]}, ${run.directory}`,
    ]),
  );
}

/** A pair of precisions in a few characters; emulated ones say so. */
export function pairLabel(training: string, rollout: string): string {
  const label = (text: string) => precisionLabel(text as FloatDType);
  return training === rollout ? label(training) : `${label(training)} train, ${label(rollout)} roll`;
}

interface Row {
  readonly run: string;
  readonly step: number;
  readonly [field: string]: number | string;
}

/** Curves of one or several sanity runs. */
export function figuresOfSanity(runs: readonly ReportRun[]): Figure[] {
  return figuresOfSteps(runs, {
    title: 'Training accuracy',
    caption: 'Mean reward over ten steps; the level line is the 95 % that passes.',
    axis: { title: 'training accuracy', scale: { domain: [0, 1] } },
    level: PASS,
  });
}

/** How a chart shows the mean reward over ten steps. */
export interface RewardChart {
  readonly title: string;
  readonly caption: string;
  readonly axis: { readonly title: string; readonly scale?: { readonly domain: readonly [number, number] } };
  /** Where there is a level line. */
  readonly level?: number;
}

/** Curves of the steps of one or several training runs. */
export function figuresOfSteps(runs: readonly ReportRun[], reward: RewardChart): Figure[] {
  const labels = runLabels(runs);
  const rows = runs.flatMap((run) =>
    thin(run.metrics.filter((record) => 'train/reward' in record)).map((record): Row => {
      const value = (key: string) => Number(record[key] ?? Number.NaN);
      return {
        run: labels.get(run)!,
        step: record.step + 1,
        reward: value('train/reward_window'),
        mismatch: value('mismatch/meanAbsLogRatio'),
        kl: value('mismatch/klMuPiK3'),
        largest: Math.max(value('mismatch/maxProbDiff'), -value('mismatch/minProbDiff')),
        scale: value('scaler/scale'),
        entropy: value('train/entropy'),
        flips: value('routing/flip_share'),
      };
    }),
  );
  if (rows.length === 0) return [];
  const warnings = runs.flatMap((run) => {
    const warning = run.summary?.warning as { step: number } | null | undefined;
    return warning ? [{ run: labels.get(run)!, step: warning.step + 1 }] : [];
  });
  const color = {
    field: 'run',
    type: 'nominal' as const,
    title: null,
    scale: { domain: [...labels.values()], range: palette },
    legend: lineLegend,
  };
  const line = (
    id: string,
    title: string,
    caption: string,
    field: string,
    axis: { title: string; axis?: object; scale?: { type?: string; [key: string]: unknown } },
  ): Figure => ({
    id,
    title,
    caption: `${caption} ${thinned}`,
    spec: {
      $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
      width: 'container',
      height: 260,
      // A logarithm has no place for an exact 0.
      data: inline(
        rows.filter(
          (row) => Number.isFinite(row[field]) && (axis.scale?.type !== 'log' || Number(row[field]) > 0),
        ),
      ),
      layer: [
        {
          params: [zoom],
          mark: lineMark,
          encoding: {
            x: { field: 'step', type: 'quantitative', title: 'step', axis: wholeNumbers },
            y: { field, type: 'quantitative', ...axis },
            tooltip: [
              told('run'),
              told('step', 'step', ','),
              told(field, axis.title, field === 'scale' ? ',' : '.4~g'),
            ],
            color,
          },
        },
        ...(warnings.length === 0
          ? []
          : [
              {
                data: inline(warnings),
                mark: { type: 'rule' as const, strokeDash: [3, 3], opacity: 0.8, tooltip: true },
                encoding: {
                  x: { field: 'step', type: 'quantitative' as const },
                  color,
                },
              },
            ]),
        ...(field === 'reward' && reward.level !== undefined
          ? [
              {
                data: inline([{ pass: reward.level }]),
                mark: { type: 'rule' as const, strokeDash: [6, 4], color: '#888888' },
                encoding: { y: { field: 'pass', type: 'quantitative' as const } },
              },
            ]
          : []),
      ],
    },
  });
  const zero = (field: string) =>
    runs.filter((run) => {
      const own = rows.filter((row) => row.run === labels.get(run));
      return own.length > 0 && own.every((row) => row[field] === 0);
    });
  const noLine = (field: string) =>
    zero(field).length === 0
      ? ''
      : ` Exactly 0 at every step, so without a line: ${zero(field)
          .map((run) => labels.get(run))
          .join('; ')}.`;
  const marks = warnings.length > 0 ? ' Dashed lines: early warnings.' : '';
  return [
    line('reward', reward.title, `${reward.caption}${marks}`, 'reward', reward.axis),
    line(
      'mismatch',
      'Mismatch',
      `Mean |log pi - log mu| of a token: pi is its probability under the training engine, mu under the rollout engine, on equal weights.${noLine('mismatch')}${marks}`,
      'mismatch',
      { title: 'nats per token', scale: { type: 'log' } },
    ),
    line(
      'kl',
      'KL[mu||pi]',
      `Of the tokens of each step, estimated by k3: the mean of r - 1 - log r with r = pi / mu.${healthyText('klMuPiK3')}${noLine('kl')}`,
      'kl',
      { title: 'nats per token', axis: powersOfTen, scale: { type: 'log' } },
    ),
    line(
      'largest',
      'Largest |pi - mu|',
      `Of the tokens of each step; 1 is saturation.${healthyText('maxProbDiff')}`,
      'largest',
      { title: 'probability' },
    ),
    ...(rows.some(({ flips }) => Number.isFinite(flips))
      ? [
          line(
            'flips',
            'Routes that differ',
            'Of tokens and mixture layers, the share for which the routers of the two engines chose other experts.',
            'flips',
            { title: 'share of routes' },
          ),
        ]
      : []),
    line(
      'entropy',
      'Entropy',
      'Mean over tokens of the entropy of the next token under the training engine; it falls as the policy becomes sure.',
      'entropy',
      { title: 'nats per token' },
    ),
    ...(rows.some(({ scale }) => Number(scale) > 1)
      ? [
          line('scale', 'Loss scale', 'After each step.', 'scale', {
            title: 'loss scale',
            scale: { type: 'log', base: 2, nice: false },
          }),
        ]
      : []),
  ].filter(({ spec }) => (spec.data as { values: object[] }).values.length > 0);
}
