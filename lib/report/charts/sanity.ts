import { type FloatDType, precisionLabel } from '../../tensor/dtype.js';
import { type Figure, inline, palette, type ReportRun, thin, thinned, zoom } from '../figure.js';

/** Training accuracy that passes the sanity test. */
const PASS = 0.95;

/** How a run is called in legends: what sets it apart. */
export function runLabel({ config, name }: ReportRun): string {
  const { algorithm, trainingPrecision, rolloutPrecision, seed } = config as Record<string, string | number>;
  if (algorithm === undefined || trainingPrecision === undefined) return name;
  return `${algorithm} ${pairLabel(String(trainingPrecision), String(rolloutPrecision))} seed ${seed}`;
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
  const rows = runs.flatMap((run) =>
    thin(run.metrics).map((record): Row => {
      const value = (key: string) => Number(record[key] ?? Number.NaN);
      return {
        run: runLabel(run),
        step: record.step + 1,
        reward: value('train/reward_window'),
        mismatch: value('mismatch/meanAbsLogRatio'),
        kl: value('mismatch/klMuPiK3'),
        largest: Math.max(value('mismatch/maxProbDiff'), -value('mismatch/minProbDiff')),
        scale: value('scaler/scale'),
        skipped: value('train/skipped_updates'),
        entropy: value('train/entropy'),
        gradNorm: value('train/grad_norm'),
      };
    }),
  );
  if (rows.length === 0) return [];
  const warnings = runs.flatMap((run) => {
    const warning = run.summary?.warning as { step: number } | null | undefined;
    return warning ? [{ run: runLabel(run), step: warning.step + 1 }] : [];
  });
  const line = (id: string, title: string, caption: string, field: string, axis: object): Figure => ({
    id,
    title,
    caption: `${caption} ${thinned}`,
    spec: {
      $schema: 'https://vega.github.io/schema/vega-lite/v6.json',
      width: 'container',
      height: 260,
      data: inline(rows.filter((row) => Number.isFinite(row[field]))),
      layer: [
        {
          params: [zoom],
          mark: { type: 'line', interpolate: 'linear', strokeWidth: 1.8, tooltip: true },
          encoding: {
            x: { field: 'step', type: 'quantitative', title: 'step' },
            y: { field, type: 'quantitative', ...axis },
            color: { field: 'run', type: 'nominal', title: null, scale: { range: palette } },
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
                  color: { field: 'run', type: 'nominal' as const },
                },
              },
            ]),
        ...(field === 'reward'
          ? [
              {
                data: inline([{ pass: PASS }]),
                mark: { type: 'rule' as const, strokeDash: [6, 4], color: '#888888' },
                encoding: { y: { field: 'pass', type: 'quantitative' as const } },
              },
            ]
          : []),
      ],
    },
  });
  const marks = warnings.length > 0 ? ' Dashed lines: early warnings.' : '';
  return [
    line(
      'reward',
      'Training accuracy',
      `Mean reward over ten steps; the level line is the 95 % that passes.${marks}`,
      'reward',
      { title: 'training accuracy', scale: { zero: false } },
    ),
    line('mismatch', 'Mismatch', `Mean |log pi - log mu| of a token on equal weights.${marks}`, 'mismatch', {
      title: 'nats per token',
      scale: { type: 'log' },
    }),
    line('largest', 'Largest |pi - mu|', 'Of the tokens of each step; 1 is saturation.', 'largest', {
      title: 'probability',
    }),
    line('entropy', 'Entropy', 'Mean of a token under the training engine.', 'entropy', {
      title: 'nats per token',
    }),
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
