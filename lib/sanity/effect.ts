import { type MismatchMetrics, mismatchMetrics } from '../mismatch/metrics.js';
import type { Decoder } from '../models/decoder.js';
import type { TokenSequence } from '../models/sequences.js';
import { engineNumerics, type NumericsMode } from '../rl/engineChoices.js';
import { type LoraMode, RolloutEngine } from '../rollout/engine.js';
import type { FloatDType } from '../tensor/dtype.js';
import { TrainingEngine } from '../training/engine.js';

export interface Setting {
  readonly precision: FloatDType;
  readonly numerics: NumericsMode;
  /** How the rollout engine computes with an adapter of the model; default merged. */
  readonly lora?: LoraMode;
}

/** The effect itself, as the sanity test shows it at its end. */
export const effectSettings: readonly Setting[] = [
  { precision: 'bf16', numerics: 'default' },
  { precision: 'fp16', numerics: 'default' },
  { precision: 'fp16', numerics: 'matched' },
];

/**
 * The mismatch of one set of weights on one set of tokens: both engines score the same responses in the given
 * precision and numerics.
 */
export async function measureMismatch(
  model: Decoder,
  sequences: readonly TokenSequence[],
  { precision, numerics: mode, lora = 'merged' }: Setting,
): Promise<MismatchMetrics> {
  const numerics = engineNumerics(mode);
  using rollout = new RolloutEngine(model, { precision, numerics: numerics.rollout, lora });
  using training = new TrainingEngine(model, {
    precision,
    numerics: numerics.training,
    schedule: { kind: 'constant', learningRate: 0 },
  });
  const mu = await rollout.score(sequences);
  const pi = await training.score(sequences);
  return mismatchMetrics({
    offsets: mu.offsets,
    rolloutLogprobs: mu.logprobs,
    logprobs: pi.logprobs,
    mask: new Uint8Array(mu.logprobs.length).fill(1),
  });
}
