import { type MetricsRecord, type RunDirectory, readMetrics } from '../io/runDirectory.js';
import type { TokenSequence } from '../models/sequences.js';
import { type ActivationPoint, activationPoints, type Observer } from '../nn/forward.js';
import { createAlgorithm } from '../rl/algorithms.js';
import { batchTotals } from '../rl/batch.js';
import { openSubject, type SubjectSource, sampleResponses } from '../sanity/subject.js';
import { type FloatDType, type FloatFormat, formatOf } from '../tensor/dtype.js';
import { copy, type Tensor } from '../tensor/tensor.js';
import { type LossFunction, TrainingEngine } from '../training/engine.js';

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
  /** Bits left above the largest activation gradient; below 0 it overflows. */
  readonly bits: number;
}

export interface HeadroomSummary {
  readonly precision: FloatDType;
  readonly scale: number;
  readonly step: number;
  readonly places: readonly Headroom[];
  readonly scales: readonly ScalePoint[];
  /** The largest power of two that leaves {@link MARGIN_BITS} bits above the largest gradient. */
  readonly suggestedScale: number;
  /** The first tensor that overflowed at the present scale, or null. */
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
  const subject = await openSubject(config.subject, {
    ...(base !== undefined && { directory: base }),
    ...(signal && { signal }),
    report: (event) =>
      report?.(
        event.kind === 'teach'
          ? `teaching step ${event.step}, accuracy ${event.accuracy.toFixed(3)}`
          : `selecting ${event.tried}/${event.candidates}`,
      ),
  });
  if (subject === null) return null;
  const { model, task, step } = subject;
  try {
    report?.(`${samples} responses, forward and backward`);
    const sample = await sampleResponses(subject, { precision, count: samples, groupSize: GROUP, seed });
    const algorithm = createAlgorithm('reinforce', { constantLength: task.responseLength });
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
    using own = new TrainingEngine(model, { precision, schedule, lossScaler: config.lossScaler });
    const { scale } = own.scaler;
    const stored = await look(own, sample.sequences, lossOf);
    using twin = new TrainingEngine(model, { precision: 'fp32', schedule, lossScaler: 'none' });
    const exact = await look(twin, sample.sequences, lossOf);

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
    const summary: HeadroomSummary = {
      precision,
      scale,
      step,
      places,
      scales: scalesOf([...exact.gradients.values()], exact.parameters, format),
      suggestedScale: suggested([...exact.gradients.values()], format),
      overflowed: stored.overflowed ?? null,
      timeline: 'run' in config.subject ? timelineOf(await readMetrics(config.subject.run)) : [],
      interrupted: false,
    };
    await directory.writeSummary(summary);
    return summary;
  } finally {
    model.dispose();
  }
}

interface Look {
  readonly activations: ReadonlyMap<string, Float32Array>;
  readonly gradients: ReadonlyMap<string, Float32Array>;
  readonly parameters: readonly Float32Array[];
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
  const { gradients, overflowed } = await engine.gradients(sequences, lossOf, {
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

/** Shares at each power of two, from a histogram of the exponents of the exact gradients. */
function scalesOf(
  gradients: readonly Float32Array[],
  parameters: readonly Float32Array[],
  format: FloatFormat,
): ScalePoint[] {
  const activation = exponents(gradients);
  const parameter = exponents(parameters);
  const top = Math.max(...gradients.map(largest));
  return Array.from({ length: SCALES.to - SCALES.from + 1 }, (_, i): ScalePoint => {
    const log2Scale = SCALES.from + i;
    // Half of the least number still rounds to it or to 0; below that it is 0.
    const zero = Math.log2(format.minSubnormal) - 1 - log2Scale;
    return {
      log2Scale,
      underflow: activation.below(zero),
      subnormal: activation.below(Math.log2(format.minNormal) - log2Scale),
      parameterUnderflow: parameter.below(zero),
      bits: Math.log2(format.max / top) - log2Scale,
    };
  });
}

/** Of the nonzero values: the share whose magnitude is below 2^exponent. */
function exponents(lists: readonly Float32Array[]): { below(exponent: number): number } {
  const counts = new Map<number, number>();
  let total = 0;
  for (const values of lists) {
    for (const value of values) {
      if (value === 0 || !Number.isFinite(value)) continue;
      const exponent = Math.floor(Math.log2(Math.abs(value)));
      counts.set(exponent, (counts.get(exponent) ?? 0) + 1);
      total++;
    }
  }
  return {
    below: (exponent) => {
      let sum = 0;
      for (const [e, count] of counts) if (e < exponent) sum += count;
      return total === 0 ? 0 : sum / total;
    },
  };
}

function suggested(gradients: readonly Float32Array[], format: FloatFormat): number {
  const top = Math.max(...gradients.map(largest));
  return 2 ** Math.floor(Math.log2(format.max / top) - MARGIN_BITS);
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
