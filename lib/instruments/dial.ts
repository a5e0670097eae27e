import { basename, join } from 'node:path';
import { DeviceError } from '../errors.js';
import { PointLog } from '../io/pointLog.js';
import type { RunDirectory } from '../io/runDirectory.js';
import type { Interval } from '../mismatch/bootstrap.js';
import { mismatchMetrics } from '../mismatch/metrics.js';
import { type Base, prepareBase } from '../sanity/base.js';
import type { BaseConfig } from '../sanity/baseConfig.js';
import { sampleResponses, startText } from '../sanity/subject.js';
import { createTask } from '../tasks/index.js';
import { type FloatDType, floatBits } from '../tensor/dtype.js';
import { TrainingEngine } from '../training/engine.js';
import { fitLaw, type LinearLaw, type Observation, solveLaw } from './law.js';

export interface DialConfig {
  readonly bases: readonly BaseConfig[];
  /** Formats of both engines. */
  readonly formats: readonly FloatDType[];
  /** Responses to each base in each format. */
  readonly samples: number;
  readonly seed: number;
  /** Formats of fewer mantissa bits are measured, but not fitted: they break the policy itself. */
  readonly fitFrom: number;
  /** Spreads, in nats, whose length the law is asked for. */
  readonly spreads: readonly number[];
}

/** The length at which the law has the responses' log-ratio spread so far. */
export interface SpreadPrediction {
  readonly format: 'bf16' | 'fp16';
  /** Standard deviation over responses of log pi(y) - log mu(y), in nats. */
  readonly spread: number;
  /** Tokens of a response. */
  readonly length: Interval;
}

/** Bases that it takes for each predictor that a base has before the entropy is one. */
const BASES_PER_PREDICTOR = 8;

/** One base in one format. */
export interface DialPoint {
  readonly format: FloatDType;
  readonly exponentBits: number;
  readonly mantissaBits: number;
  readonly task: string;
  readonly hiddenSize: number;
  readonly numLayers: number;
  readonly baseAccuracy: number;
  readonly baseSeed: number;
  /** Mean tokens of a response. */
  readonly length: number;
  readonly accuracy: number;
  /** Mean entropy of a token under the training engine, in nats. */
  readonly entropy: number;
  readonly meanAbsLogRatio: number;
  readonly klMuPiK3: number;
  readonly seqLogRatioStd: number;
  readonly ess: number;
  readonly maxProbDiff: number;
}

/** What the law explains: log2 of these. */
export const lawTargets = ['meanAbsLogRatio', 'klMuPiK3', 'seqLogRatioStd'] as const;
export type LawTarget = (typeof lawTargets)[number];

/** A base that a format can't hold: its activations or logits overflow, so that there is nothing to sample from. */
export interface DialFailure extends Pick<DialPoint, 'format' | 'task' | 'baseSeed'> {
  readonly failure: string;
}

export interface DialSummary {
  readonly points: readonly DialPoint[];
  /** Undefined in runs of before they were told apart. */
  readonly failures?: readonly DialFailure[];
  /**
   * log2 of each target, linear in the mantissa bits, log2 of length, width and depth where they vary, the accuracy at
   * which teaching stopped where it varies between bases that are otherwise alike, and with eight bases or more
   * for each of these the entropy of a token; null where there are too few points.
   */
  readonly laws: Readonly<Record<LawTarget, LinearLaw | null>>;
  /** Extrapolations of the law, at the mean of everything but format and length; none where length does not vary. */
  readonly predictions: readonly SpreadPrediction[];
  readonly fitFrom: number;
  readonly interrupted: boolean;
}

export interface DialOptions {
  readonly directory: RunDirectory;
  /** The folder that keeps a base. */
  readonly base: (config: BaseConfig) => string;
  readonly signal?: AbortSignal;
  readonly report?: (progress: { done: number; points: number; what: string }) => void;
}

/**
 * The format dial: any split of exponent and mantissa bits in both engines, emulated where there are no kernels of its
 * own, and the law that the mismatch follows over several bases. Each format samples for itself, as a run in it would.
 */
export async function turnDial(config: DialConfig, options: DialOptions): Promise<DialSummary> {
  const { directory, signal, report } = options;
  const log = await PointLog.open<DialPoint | DialFailure>(join(directory.path, 'points.jsonl'));
  const total = config.bases.length * config.formats.length;
  const points: DialPoint[] = [];
  const failures: DialFailure[] = [];
  let interrupted = false;
  for (const own of config.bases) {
    const name = options.base(own);
    const keys = config.formats.map((format) => `${basename(name)} ${format}`);
    const tell = (what: string) => report?.({ done: points.length + failures.length, points: total, what });
    const missing = keys.some((key) => log.get(key) === undefined);
    const base = missing
      ? await prepareBase(own, {
          directory: name,
          ...(signal && { signal }),
          report: (event) => tell(`${own.task}: ${startText(event)}`),
        })
      : null;
    try {
      for (const [f, format] of config.formats.entries()) {
        if (missing && (base === null || signal?.aborted)) {
          interrupted = true;
          break;
        }
        tell(`${own.task} seed ${own.baseSeed} ${format}`);
        const point = await log.measured(keys[f]!, () => measureOrFail(base!, format, config));
        if ('failure' in point) failures.push(point);
        else points.push(point);
      }
    } finally {
      base?.model.dispose();
    }
    if (interrupted) break;
  }
  const summary: DialSummary = {
    points,
    failures,
    laws: fitLaws(points, config.fitFrom, config.seed),
    predictions: predictLengths(points, config),
    fitFrom: config.fitFrom,
    interrupted,
  };
  await directory.writeSummary(summary);
  return summary;
}

/** The laws of formats with at least `fitFrom` mantissa bits. */
export function fitLaws(
  points: readonly DialPoint[],
  fitFrom: number,
  seed: number,
): Record<LawTarget, LinearLaw | null> {
  return {
    meanAbsLogRatio: fitLaw(observe(points, 'meanAbsLogRatio', fitFrom), seed),
    klMuPiK3: fitLaw(observe(points, 'klMuPiK3', fitFrom), seed),
    seqLogRatioStd: fitLaw(observe(points, 'seqLogRatioStd', fitFrom), seed),
  };
}

/** log2 of a target and its predictors, of the formats that are fitted. */
function observe(points: readonly DialPoint[], target: LawTarget, fitFrom: number): Observation[] {
  const fitted = points.filter(({ mantissaBits }) => mantissaBits >= fitFrom);
  const setting = (point: DialPoint) => `${point.task} ${point.hiddenSize} ${point.numLayers}`;
  const groupOf = (point: DialPoint) => `${setting(point)} ${point.baseAccuracy} ${point.baseSeed}`;
  const distinct = (of: (point: DialPoint) => string) => new Set(fitted.map(of)).size;
  // Where each setting has an accuracy of its own, the two can't be told apart.
  const withAccuracy = distinct((point) => `${setting(point)} ${point.baseAccuracy}`) > distinct(setting);
  // Entropy differs by chance from base to base, and with everything that a base differs in: few do not tell what it does.
  const others = [
    distinct((point) => String(createTask(point.task).responseLength)),
    distinct((point) => String(point.hiddenSize)),
    distinct((point) => String(point.numLayers)),
    withAccuracy ? 2 : 1,
  ].filter((values) => values > 1).length;
  const withEntropy = distinct(groupOf) >= BASES_PER_PREDICTOR * (1 + others);
  return fitted
    .filter((point) => point[target] > 0)
    .map((point) => ({
      group: groupOf(point),
      y: Math.log2(point[target]),
      x: {
        mantissaBits: point.mantissaBits,
        // The longest there can be: what was sampled varies by chance.
        log2Length: Math.log2(createTask(point.task).responseLength),
        log2Width: Math.log2(point.hiddenSize),
        log2Depth: Math.log2(point.numLayers),
        ...(withAccuracy && { baseAccuracy: point.baseAccuracy }),
        ...(withEntropy && { entropy: point.entropy }),
      },
    }));
}

/** The lengths at which bf16 and fp16 reach each spread. */
function predictLengths(
  points: readonly DialPoint[],
  { fitFrom, seed, spreads }: DialConfig,
): SpreadPrediction[] {
  const observations = observe(points, 'seqLogRatioStd', fitFrom);
  const mean = Object.fromEntries(
    Object.keys(observations[0]?.x ?? {}).map((name) => [
      name,
      observations.reduce((sum, { x }) => sum + x[name]!, 0) / observations.length,
    ]),
  );
  return spreads.flatMap((spread) =>
    (['bf16', 'fp16'] as const).flatMap((format) => {
      const at = { ...mean, mantissaBits: floatBits(format)!.mantissa };
      const found = solveLaw(observations, 'log2Length', Math.log2(spread), at, seed);
      if (found === null) return [];
      return [
        { format, spread, length: { value: 2 ** found.value, low: 2 ** found.low, high: 2 ** found.high } },
      ];
    }),
  );
}

/** A format too narrow for the model is a result like any other, and no reason to lose the formats after it. */
async function measureOrFail(
  base: Base,
  format: FloatDType,
  config: DialConfig,
): Promise<DialPoint | DialFailure> {
  try {
    return await measurePoint(base, format, config);
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
    const { task, baseSeed } = base.config;
    return { format, task, baseSeed, failure: error.message };
  }
}

async function measurePoint(
  base: Base,
  format: FloatDType,
  { samples, seed }: DialConfig,
): Promise<DialPoint> {
  const { model, config } = base;
  const { sequences, completions, rewards } = await sampleResponses(base, {
    precision: format,
    count: samples,
    seed,
  });
  using training = new TrainingEngine(model, {
    precision: format,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const pi = await training.score(sequences);
  const mu = new Float64Array(pi.logprobs.length);
  completions.forEach(({ logprobs }, s) => {
    mu.set(logprobs, pi.offsets[s]!);
  });
  const metrics = mismatchMetrics({
    offsets: pi.offsets,
    rolloutLogprobs: mu,
    logprobs: pi.logprobs,
    mask: new Uint8Array(mu.length).fill(1),
  });
  const { exponent, mantissa } = floatBits(format)!;
  const { meanAbsLogRatio, klMuPiK3, seqLogRatioStd, ess, maxProbDiff, minProbDiff } = metrics;
  const mean = (values: Float64Array) => values.reduce((sum, x) => sum + x, 0) / values.length;
  return {
    format,
    exponentBits: exponent,
    mantissaBits: mantissa,
    task: config.task,
    hiddenSize: config.hiddenSize,
    numLayers: config.numLayers,
    baseAccuracy: config.baseAccuracy,
    baseSeed: config.baseSeed,
    length: mu.length / sequences.length,
    accuracy: mean(rewards),
    entropy: mean(pi.entropy),
    meanAbsLogRatio,
    klMuPiK3,
    seqLogRatioStd,
    ess,
    maxProbDiff: Math.max(maxProbDiff, -minProbDiff),
  };
}
