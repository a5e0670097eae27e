import { invalid } from '../errors.js';
import { type MetricsRecord, type RunDirectory, readMetrics } from '../io/runDirectory.js';
import type { TokenSequence } from '../models/sequences.js';
import { type ActivationPoint, activationPoints, type Observer } from '../nn/forward.js';
import { createAlgorithm } from '../rl/algorithms.js';
import { batchTotals } from '../rl/batch.js';
import { openSubject, readSubjectRun, type SubjectSource } from '../sanity/openSubject.js';
import { sampleResponses, startText } from '../sanity/subject.js';
import { type FloatDType, type FloatFormat, formatOf } from '../tensor/dtype.js';
import { copy, type Tensor } from '../tensor/tensor.js';
import { defaultLossScaler, type LossFunction, TrainingEngine } from '../training/engine.js';

export interface HeadroomConfig {
  readonly subject: SubjectSource;
  readonly precision: FloatDType;
  /** A spec of createLossScaler, whose present scale is looked at. */
  readonly lossScaler: string;
  /** Responses of the batch, in groups of 8. */
  readonly samples: number;
  readonly seed: number;
}

/** Magnitudes at one place, forward or backward. */
export interface Headroom {
  readonly point: ActivationPoint;
  /** From 0; -1 outside of layers. */
  readonly layer: number;
  /** Largest magnitude of the activation, and bits from there to the format's largest number. */
  readonly forwardMax: number;
  readonly forwardBits: number;
  /** The same of its gradient, scaled by the loss scale. */
  readonly backwardMax: number;
  readonly backwardBits: number;
  /** Share of the gradient that the format took for 0 although an fp32 pass finds it to be none. */
  readonly underflow: number;
  /** Share that is subnormal in the format: it has fewer bits left. */
  readonly subnormal: number;
}

/** What a scale would do, from the exact gradients of an fp32 pass. */
export interface ScalePoint {
  /** log2 of the scale. */
  readonly log2Scale: number;
  /** Share of the nonzero activation gradients below half of the least number, and below the least normal one. */
  readonly underflow: number;
  readonly subnormal: number;
  /** The same of the gradients of parameters, were they kept in the format. */
  readonly parameterUnderflow: number;
  /** Bits left above the largest gradient of an activation or of the logits; below 0 it overflows. */
  readonly bits: number;
}

export interface HeadroomSummary {
  readonly precision: FloatDType;
  readonly scale: number;
  readonly step: number;
  readonly places: readonly Headroom[];
  /** Bits left above the largest gradient of a logit, scaled; the fused product never has that gradient whole. */
  readonly logitsBits: number;
  /** At the present scale. */
  readonly present: ScalePoint;
  /** At powers of two. */
  readonly scales: readonly ScalePoint[];
  /**
   * The largest power of two, of those that a loss scale may be, that leaves {@link MARGIN_BITS} bits above the largest
   * gradient, that of the logits included; NaN where there is no gradient, since no response has an advantage.
   */
  readonly suggestedScale: number;
  /** At the suggested scale. */
  readonly suggested: ScalePoint;
  /** What overflowed first at the present scale, in the order of the passes, or null. */
  readonly overflowed: string | null;
  /** Of the run that the weights are from. */
  readonly timeline: readonly TimelinePoint[];
  readonly interrupted: boolean;
}

/** The loss scale over a run. */
export interface TimelinePoint {
  readonly step: number;
  readonly scale: number;
  readonly skippedUpdates: number;
  readonly savedUpdates: number;
}

/** Bits that the suggested scale leaves for gradients that grow. */
export const MARGIN_BITS = 3;
const GROUP = 8;
/** Powers of two of the scales that are looked at. */
const SCALES = { from: 0, to: 32 };
/** log2 of the greatest power of two in fp32, as which a scale reaches the kernels. */
const GREATEST_SCALE = 127;

/**
 * How much room the training precision leaves, layer by layer: one batch is passed forward and backward in it and, on the
 * same weights, in fp32, where nothing overflows or underflows. Activation gradients are kept in 16 bits, so that the
 * loss scale decides what is lost of them at either end (arXiv 2510.26788 repairs fp16's range by loss scaling).
 */
export async function measureHeadroom(
  config: HeadroomConfig,
  options: {
    readonly directory: RunDirectory;
    readonly base?: string;
    readonly signal?: AbortSignal;
    readonly report?: (what: string) => void;
  },
): Promise<HeadroomSummary | null> {
  const { directory, base, signal, report } = options;
  const { precision, samples, seed } = config;
  await using subject = await openSubject(config.subject, {
    ...(base !== undefined && { directory: base }),
    ...(signal && { signal }),
    report: (event) => report?.(startText(event)),
  });
  if (subject === null) return null;
  const { model, environment, judged, step } = subject;
  if (!judged) invalid('headroom', 'a subject whose responses have rewards', subject.task);
  report?.(`${samples} responses, forward and backward`);
  const sample = await sampleResponses(subject, { precision, count: samples, groupSize: GROUP, seed });
  const algorithm = createAlgorithm('reinforce', { constantLength: environment.responseLength });
  const advantages = algorithm.advantages(sample.rewards, GROUP);
  const offsets = new Int32Array(samples + 1);
  sample.sequences.forEach(({ response }, s) => {
    offsets[s + 1] = offsets[s]! + response.length;
  });
  const totals = batchTotals(offsets, new Uint8Array(offsets[samples]!).fill(1));
  const lossOf: LossFunction = (scores, begin, end) =>
    algorithm.loss({
      offsets: scores.offsets,
      logprobs: scores.logprobs,
      rolloutLogprobs: scores.logprobs,
      mask: new Uint8Array(scores.logprobs.length).fill(1),
      advantages: advantages.subarray(begin, end),
      totals,
    });
  const schedule = { kind: 'constant', learningRate: 0 } as const;
  // One engine after the other: each has moments and a copy of the weights.
  const lookIn = async (dtype: FloatDType, lossScaler: string) => {
    using engine = new TrainingEngine(model, { precision: dtype, schedule, lossScaler });
    return { ...(await look(engine, sample.sequences, lossOf)), scale: engine.scaler.scale };
  };
  const stored = await lookIn(precision, config.lossScaler);
  const { scale } = stored;
  const exact = await lookIn('fp32', 'none');

  const format = formatOf(precision);
  const places = activationPoints.flatMap((point) =>
    [-1, ...model.layers.keys()].flatMap((layer) => {
      const key = `${point} ${layer}`;
      const forward = stored.activations.get(key);
      const backward = stored.gradients.get(key);
      if (!forward || !backward) return [];
      return [placeOf(point, layer, forward, backward, exact.gradients.get(key)!, scale, format)];
    }),
  );
  const top = Math.max(exact.logitsGradient, ...[...exact.gradients.values()].map(largest));
  const pointAt = scalePoints([...exact.gradients.values()], exact.parameters, top, format);
  const room = Math.floor(Math.log2(format.max / top) - MARGIN_BITS);
  const suggestedLog2 = top === 0 ? Number.NaN : Math.min(room, GREATEST_SCALE);
  const summary: HeadroomSummary = {
    precision,
    scale,
    step,
    places,
    logitsBits: Math.log2(format.max / (stored.logitsGradient * scale)),
    present: pointAt(Math.log2(scale)),
    scales: Array.from({ length: SCALES.to - SCALES.from + 1 }, (_, i) => pointAt(SCALES.from + i)),
    suggestedScale: 2 ** suggestedLog2,
    suggested: pointAt(suggestedLog2),
    overflowed: firstOverflow(stored, scale, format),
    timeline: 'run' in config.subject ? timelineOf(await readMetrics(config.subject.run)) : [],
    interrupted: false,
  };
  await directory.writeSummary(summary);
  return summary;
}

/**
 * The loss scaler of a subject in a precision: at the scale that a run of that precision had at its newest weights, or as a
 * run begins.
 */
export async function presentScaler(subject: SubjectSource, precision: FloatDType): Promise<string> {
  if (!('run' in subject)) return defaultLossScaler(precision);
  const { config, checkpoint } = await readSubjectRun(subject.run);
  const { trainingPrecision, lossScaler } = config;
  if (trainingPrecision !== precision) return defaultLossScaler(precision);
  const last = (await readMetrics(subject.run)).find(({ step }) => step === checkpoint.step - 1);
  return last === undefined ? lossScaler : `static:${last['scaler/scale']}`;
}

interface Look {
  readonly activations: ReadonlyMap<string, Float32Array>;
  /** In the order of the backward pass. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
  readonly parameters: readonly Float32Array[];
  /** Largest magnitude of the gradient of a logit, before the scale. */
  readonly logitsGradient: number;
  readonly overflowed: string | undefined;
}

/** Every activation and gradient of a pass, copied on the device as it comes by and read at the end. */
async function look(
  engine: TrainingEngine,
  sequences: readonly TokenSequence[],
  lossOf: LossFunction,
): Promise<Look> {
  const seen = { activations: new Map<string, Tensor[]>(), gradients: new Map<string, Tensor[]>() };
  const note =
    (into: Map<string, Tensor[]>): Observer =>
    (point, layer, t) => {
      const key = `${point} ${layer}`;
      into.set(key, [...(into.get(key) ?? []), copy(t)]);
    };
  let logitsGradient = 0;
  const watchedLoss: LossFunction = (scores, begin, end) => {
    const loss = lossOf(scores, begin, end);
    // The fused product never has this gradient whole; the token's own logit has the largest, g (1 - p).
    scores.logprobs.forEach((logprob, t) => {
      logitsGradient = Math.max(logitsGradient, Math.abs(loss.gradient[t]! * Math.expm1(logprob)));
    });
    return loss;
  };
  const { gradients, overflowed } = await engine.gradients(sequences, watchedLoss, {
    activation: note(seen.activations),
    gradient: note(seen.gradients),
  });
  const read = async (copies: Map<string, Tensor[]>) => {
    const all = new Map<string, Float32Array>();
    for (const [key, parts] of copies) {
      const values: Float32Array[] = [];
      for (const part of parts) {
        values.push(await part.floats());
        part.dispose();
      }
      const joined = new Float32Array(values.reduce((sum, v) => sum + v.length, 0));
      let at = 0;
      for (const v of values) {
        joined.set(v, at);
        at += v.length;
      }
      all.set(key, joined);
    }
    return all;
  };
  return {
    activations: await read(seen.activations),
    gradients: await read(seen.gradients),
    parameters: [...gradients.values()],
    logitsGradient,
    overflowed,
  };
}

function placeOf(
  point: ActivationPoint,
  layer: number,
  forward: Float32Array,
  backward: Float32Array,
  exact: Float32Array,
  scale: number,
  format: FloatFormat,
): Headroom {
  const forwardMax = largest(forward);
  const backwardMax = largest(backward);
  let nonzero = 0;
  let lost = 0;
  let subnormal = 0;
  for (let i = 0; i < exact.length; i++) {
    if (exact[i] === 0) continue;
    nonzero++;
    const stored = Math.abs(backward[i]!);
    if (stored === 0 && Math.abs(exact[i]! * scale) < format.minNormal) lost++;
    else if (stored > 0 && stored < format.minNormal) subnormal++;
  }
  return {
    point,
    layer,
    forwardMax,
    forwardBits: Math.log2(format.max / forwardMax),
    backwardMax,
    backwardBits: Math.log2(format.max / backwardMax),
    underflow: nonzero === 0 ? 0 : lost / nonzero,
    subnormal: nonzero === 0 ? 0 : subnormal / nonzero,
  };
}

/** What overflowed first: the forward pass, else a gradient of the backward pass, else one of a parameter. */
function firstOverflow(stored: Look, scale: number, format: FloatFormat): string | null {
  const { gradients, logitsGradient, overflowed = null } = stored;
  if (overflowed === null || gradients.size === 0) return overflowed;
  if (logitsGradient * scale > format.max * (1 + format.epsilon)) return 'the gradient of the logits';
  const first = [...gradients].find(([, values]) => largest(values) === Infinity);
  if (first === undefined) return overflowed;
  const [point, layer] = first[0].split(' ') as [string, string];
  return `the gradient of ${point}${layer === '-1' ? '' : ` of layer ${layer}`}`;
}

/** Shares at a scale, given as its log2. */
function scalePoints(
  gradients: readonly Float32Array[],
  parameters: readonly Float32Array[],
  top: number,
  format: FloatFormat,
): (log2Scale: number) => ScalePoint {
  const activation = magnitudes(gradients);
  const parameter = magnitudes(parameters);
  return (log2Scale) => {
    // Half of the least number still rounds to it or to 0; below that it is 0.
    const zero = format.minSubnormal / 2 / 2 ** log2Scale;
    return {
      log2Scale,
      underflow: activation.shareBelow(zero),
      subnormal: activation.shareBelow(format.minNormal / 2 ** log2Scale),
      parameterUnderflow: parameter.shareBelow(zero),
      bits: Math.log2(format.max / top) - log2Scale,
    };
  };
}

/** Of the nonzero values: the share whose magnitude is below a limit. */
function magnitudes(lists: readonly Float32Array[]): { shareBelow(limit: number): number } {
  const sorted = new Float32Array(lists.reduce((sum, values) => sum + values.length, 0));
  let count = 0;
  for (const values of lists) {
    for (const value of values) {
      if (value !== 0 && Number.isFinite(value)) sorted[count++] = Math.abs(value);
    }
  }
  sorted.subarray(0, count).sort();
  return {
    shareBelow: (limit) => {
      let [from, to] = [0, count];
      while (from < to) {
        const middle = (from + to) >> 1;
        if (sorted[middle]! < limit) from = middle + 1;
        else to = middle;
      }
      return count === 0 ? 0 : from / count;
    },
  };
}

function largest(values: Float32Array): number {
  let top = 0;
  for (const value of values) {
    // Beyond the format: what came of it further on may be NaN.
    if (!Number.isFinite(value)) return Infinity;
    top = Math.max(top, Math.abs(value));
  }
  return top;
}

function timelineOf(metrics: readonly MetricsRecord[]): TimelinePoint[] {
  return metrics.map((record) => ({
    step: record.step,
    scale: Number(record['scaler/scale']),
    skippedUpdates: Number(record['train/skipped_updates']),
    savedUpdates: Number(record['train/saved_updates'] ?? 0),
  }));
}
