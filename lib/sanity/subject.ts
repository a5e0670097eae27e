import type { Decoder } from '../models/decoder.js';
import type { TokenSequence } from '../models/sequences.js';
import type { Numerics } from '../numerics.js';
import { type Environment, sampleDraws, sampleJudged } from '../rl/environment.js';
import { RolloutEngine } from '../rollout/engine.js';
import type { Completion } from '../rollout/generation.js';
import type { FloatDType } from '../tensor/dtype.js';
import type { CheckpointSource } from '../training/checkpoint.js';
import type { PerfectibleSet } from './perfectible.js';
import type { TeachProgress } from './supervised.js';

/**
 * A model and what it is sampled for: what a run starts from, and what an instrument measures. `await using` disposes of the
 * model and ends what judges.
 */
export interface Subject extends AsyncDisposable {
  readonly model: Decoder;
  /** The problems; `rewards` is not asked where nothing judges. */
  readonly environment: Environment;
  /** Whether responses have rewards. */
  readonly judged: boolean;
  /** What records call the problems: a task's spec, or a model and its data set. */
  readonly task: string;
  /** Of the base; undefined for a checkpoint, which has none. */
  readonly baseSeed?: number;
  /** A prompt or a response as text. */
  format(tokens: ArrayLike<number>): string;
}

/** What a run starts from: its problems are a perfectible set. */
export interface Start extends Subject {
  readonly set: PerfectibleSet;
  /** What checkpoints take over from the model's folder. */
  readonly origin?: CheckpointSource;
}

/** What the making of a start tells while it goes on. */
export type StartEvent =
  | ({ readonly kind: 'teach' } & TeachProgress)
  | { readonly kind: 'load'; readonly model: string }
  | { readonly kind: 'select'; readonly tried: number; readonly kept: number; readonly candidates: number };

/** An event in a few words. */
export function startText(event: StartEvent): string {
  switch (event.kind) {
    case 'teach':
      return `teaching step ${event.step}, accuracy ${event.accuracy.toFixed(3)}`;
    case 'load':
      return `loading ${event.model}`;
    case 'select':
      return `selecting ${event.tried}/${event.candidates}`;
  }
}

export interface PrepareOptions {
  /**
   * A folder that keeps what is made, a base or a set: it is taken from there where it is, and else made and left there.
   * Without one no base is written.
   */
  readonly directory?: string;
  readonly signal?: AbortSignal;
  readonly report?: (event: StartEvent) => void;
}

/** What is sampled of a subject: which engine, how many responses, and the draw. */
export interface SampleOptions {
  readonly precision: FloatDType;
  /** Default: the `rollout` preset. */
  readonly numerics?: Numerics;
  readonly count: number;
  /** Responses to a prompt that stand together, as a group; default 1. */
  readonly groupSize?: number;
  readonly seed: number;
  /** Whether completions tell the experts that their tokens went to; of mixtures alone. Default false. */
  readonly recordRoutes?: boolean;
}

/** Responses to prompts of the set in turn, with log mu as it was when they were sampled. */
export interface Sample {
  readonly sequences: readonly TokenSequence[];
  readonly completions: readonly Completion[];
  /** [sequences] 1 for a right answer; NaN where nothing judges. */
  readonly rewards: Float64Array;
}

/** Samples responses at temperature 1 to the prompts of the subject, each as often as the others. */
export async function sampleResponses(subject: Subject, options: SampleOptions): Promise<Sample> {
  const { model, environment, judged } = subject;
  const { precision, numerics, count, groupSize = 1, seed, recordRoutes = false } = options;
  const { prompts } = environment;
  const draws = Array.from({ length: count }, (_, i) => {
    const group = Math.floor(i / groupSize);
    const prompt = group % prompts.length;
    const round = Math.floor(group / prompts.length);
    return { prompt, promptId: prompt, sampleId: round * groupSize + (i % groupSize) };
  });
  using rollout = new RolloutEngine(model, { precision, ...(numerics && { numerics }) });
  const { completions, rewards } = judged
    ? await sampleJudged(rollout, environment, draws, seed, { recordRoutes })
    : {
        completions: await sampleDraws(rollout, environment, draws, seed, { recordRoutes }),
        rewards: new Float64Array(count).fill(Number.NaN),
      };
  return {
    sequences: completions.map(({ tokens }, i) => ({ prompt: prompts[draws[i]!.prompt]!, response: tokens })),
    completions,
    rewards,
  };
}
