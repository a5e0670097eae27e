import { join } from 'node:path';
import { PointLog } from '../io/pointLog.js';
import type { RunDirectory } from '../io/runDirectory.js';
import { mismatchMetrics } from '../mismatch/metrics.js';
import type { Decoder } from '../models/decoder.js';
import type { TokenSequence } from '../models/sequences.js';
import { type KnobName, knobs, type Numerics, numerics } from '../numerics.js';
import { RolloutEngine } from '../rollout/engine.js';
import { openSubject, type SubjectSource } from '../sanity/openSubject.js';
import { type Subject, sampleResponses, startText } from '../sanity/subject.js';
import type { FloatDType } from '../tensor/dtype.js';
import { TrainingEngine } from '../training/engine.js';

export interface LadderConfig {
  readonly subject: SubjectSource;
  readonly precisions: readonly FloatDType[];
  /** Responses that all rungs are measured on. */
  readonly samples: number;
  readonly seed: number;
}

/** The mismatch of a rung. */
export interface RungMeasure {
  /** mean |log pi - log mu|, nats per token. */
  readonly meanAbsLogRatio: number;
  readonly klMuPiK3: number;
  readonly seqLogRatioStd: number;
}

export interface Rung extends RungMeasure {
  readonly knob: KnobName;
}

export interface LayerRung extends RungMeasure {
  /** From 0; the last one stands for what lies outside of layers: the last norm and the head. */
  readonly layer: number;
}

/** Where the mismatch of one precision comes from. */
export interface LadderResult {
  readonly precision: FloatDType;
  readonly tokens: number;
  /** Both engines by their own habits. */
  readonly apart: RungMeasure;
  /** Both by the training engine's choices, every knob. Whatever is left is no knob's: 0 says that there is nothing. */
  readonly equal: RungMeasure;
  /** One knob at a time at the rollout engine's choice, all else equal. */
  readonly alone: readonly Rung[];
  /** One knob at a time made equal, all else apart. */
  readonly without: readonly Rung[];
  /** From apart to equal, knob after knob: what is left after each. */
  readonly down: readonly Rung[];
  /** From equal to apart, knob after knob. */
  readonly up: readonly Rung[];
  /** One layer at a time by the rollout engine's habits, all others equal. */
  readonly layers: readonly LayerRung[];
  /** From equal to apart, layer after layer. */
  readonly layersUp: readonly LayerRung[];
  /** A knob alone in a layer alone, [knob][layer], mean |log pi - log mu|. */
  readonly knobByLayer: readonly { readonly knob: KnobName; readonly layers: readonly number[] }[];
}

export interface LadderSummary {
  readonly results: readonly LadderResult[];
  readonly numLayers: number;
  readonly interrupted: boolean;
}

export interface LadderOptions {
  readonly directory: RunDirectory;
  readonly base?: string;
  readonly signal?: AbortSignal;
  readonly report?: (progress: { done: number; rungs: number; what: string }) => void;
}

/** The rollout engine's choices: outside of layers, and in each. */
interface Choices {
  readonly outside: Numerics;
  readonly layers: readonly Numerics[];
}

/** Knobs in which the two habits differ on a model of such parts, in the table's order. */
export function ladderKnobs({ experts, adapter }: { experts: boolean; adapter: boolean }): KnobName[] {
  const idle: KnobName[] = [];
  if (!experts) idle.push('combineRoundings');
  if (!adapter) idle.push('loraScaleFirst');
  return knobs
    .filter(({ rollout, training }) => rollout !== training)
    .map(({ name }) => name as KnobName)
    .filter((name) => !idle.includes(name));
}

class Interrupted extends Error {}

/**
 * Attribution of the mismatch: the same responses on the same weights are scored again and again, with one numeric choice
 * or kernel family of the rollout engine after another swapped between its own and the training engine's, which stays as
 * it is. Contributions do not add up, since roundings act on one another; what is left over is part of the result.
 */
export async function climbLadder(
  config: LadderConfig,
  { directory, base, signal, report }: LadderOptions,
): Promise<LadderSummary> {
  const log = await PointLog.open<RungMeasure>(join(directory.path, 'points.jsonl'));
  await using subject = await openSubject(config.subject, {
    ...(base !== undefined && { directory: base }),
    ...(signal && { signal }),
    report: (event) => report?.({ done: 0, rungs: 0, what: startText(event) }),
  });
  const empty: LadderSummary = { results: [], numLayers: 0, interrupted: true };
  if (subject === null) return empty;
  const { model } = subject;
  try {
    const results: LadderResult[] = [];
    for (const precision of config.precisions) {
      results.push(await climb(subject, precision, config, { log, signal, report }));
    }
    const summary = { results, numLayers: model.layers.length, interrupted: false };
    await directory.writeSummary(summary);
    return summary;
  } catch (error) {
    if (error instanceof Interrupted) return { ...empty, numLayers: model.layers.length };
    throw error;
  }
}

interface Climb {
  readonly log: PointLog<RungMeasure>;
  readonly signal: AbortSignal | undefined;
  readonly report: LadderOptions['report'];
}

async function climb(
  subject: Subject,
  precision: FloatDType,
  { samples, seed }: LadderConfig,
  { log, signal, report }: Climb,
): Promise<LadderResult> {
  const { model } = subject;
  const layers = model.layers.length;
  const own = numerics('rollout');
  const common = numerics('training');
  const { sequences } = await sampleResponses(subject, { precision, count: samples, seed });
  const pi = await scoresOfTraining(model, precision, sequences);
  const names = ladderKnobs({ experts: model.config.numExperts > 0, adapter: model.lora !== null });
  const K = names.length;
  const rungs = 2 + 4 * K + 2 * (layers + 1) + K * (layers + 1);
  let done = 0;

  const measure = async (key: string, choices: Choices): Promise<RungMeasure> => {
    if (signal?.aborted) throw new Interrupted();
    report?.({ done, rungs, what: `${precision} ${key}` });
    const value = await log.measured(`${precision} ${key}`, () =>
      measureRung(model, precision, sequences, pi, choices),
    );
    done++;
    return value;
  };
  const everywhere = (n: Numerics): Choices => ({ outside: n, layers: Array(layers).fill(n) });
  const inPlace = (place: number, n: Numerics): Choices => ({
    outside: place === layers ? n : common,
    layers: Array.from({ length: layers }, (_, i) => (i === place ? n : common)),
  });
  /** `base` with some knobs as in `from`. */
  const with_ = (base: Numerics, from: Numerics, swapped: readonly KnobName[]): Numerics => ({
    ...base,
    ...Object.fromEntries(swapped.map((name) => [name, from[name]])),
  });
  const eachKnob = async (key: string, choices: (knob: KnobName, i: number) => Choices): Promise<Rung[]> => {
    const list: Rung[] = [];
    for (const [i, knob] of names.entries()) {
      list.push({ knob, ...(await measure(`${key} ${knob}`, choices(knob, i))) });
    }
    return list;
  };
  const eachLayer = async (key: string, choices: (place: number) => Choices): Promise<LayerRung[]> => {
    const list: LayerRung[] = [];
    for (let layer = 0; layer <= layers; layer++) {
      list.push({ layer, ...(await measure(`${key} ${layer}`, choices(layer))) });
    }
    return list;
  };

  const apart = await measure('apart', everywhere(own));
  const equal = await measure('equal', everywhere(common));
  const alone = await eachKnob('alone', (knob) => everywhere(with_(common, own, [knob])));
  const without = await eachKnob('without', (knob) => everywhere(with_(own, common, [knob])));
  const down = await eachKnob('down', (_, i) => everywhere(with_(own, common, names.slice(0, i + 1))));
  const up = await eachKnob('up', (_, i) => everywhere(with_(common, own, names.slice(0, i + 1))));
  const layersAlone = await eachLayer('layer', (place) => inPlace(place, own));
  const layersUp = await eachLayer('layers-up', (place) => ({
    outside: place === layers ? own : common,
    layers: Array.from({ length: layers }, (_, i) => (i <= place ? own : common)),
  }));
  const knobByLayer = [];
  for (const knob of names) {
    const row: number[] = [];
    for (let place = 0; place <= layers; place++) {
      const choices = inPlace(place, with_(common, own, [knob]));
      row.push((await measure(`knob-layer ${knob} ${place}`, choices)).meanAbsLogRatio);
    }
    knobByLayer.push({ knob, layers: row });
  }
  return {
    precision,
    tokens: pi.logprobs.length,
    apart,
    equal,
    alone,
    without,
    down,
    up,
    layers: layersAlone,
    layersUp,
    knobByLayer,
  };
}

async function scoresOfTraining(
  model: Decoder,
  precision: FloatDType,
  sequences: readonly TokenSequence[],
): Promise<{ offsets: Int32Array; logprobs: Float64Array }> {
  const schedule = { kind: 'constant', learningRate: 0 } as const;
  using training = new TrainingEngine(model, { precision, schedule });
  // Awaited here: the engine is disposed of at the end of this function.
  return await training.score(sequences);
}

async function measureRung(
  model: Decoder,
  precision: FloatDType,
  sequences: readonly TokenSequence[],
  pi: { offsets: Int32Array; logprobs: Float64Array },
  { outside, layers }: Choices,
): Promise<RungMeasure> {
  using rollout = new RolloutEngine(model, {
    precision,
    numerics: outside,
    layerNumerics: new Map(layers.entries()),
  });
  const mu = await rollout.score(sequences);
  const { meanAbsLogRatio, klMuPiK3, seqLogRatioStd } = mismatchMetrics({
    offsets: pi.offsets,
    rolloutLogprobs: mu.logprobs,
    logprobs: pi.logprobs,
    mask: new Uint8Array(pi.logprobs.length).fill(1),
  });
  return { meanAbsLogRatio, klMuPiK3, seqLogRatioStd };
}
