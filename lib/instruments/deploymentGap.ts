import { bootstrap, type Interval } from '../mismatch/bootstrap.js';
import { type Numerics, numerics } from '../numerics.js';
import { type Subject, sampleResponses } from '../sanity/subject.js';
import type { FloatDType } from '../tensor/dtype.js';

/** Accuracy of the same weights sampled with each engine's arithmetic. */
export interface DeploymentGap {
  /** Sampled from mu. */
  readonly rolloutAccuracy: number;
  /** Sampled from pi. */
  readonly trainingAccuracy: number;
  /** Training less rollout, with a 95 % bootstrap interval over prompts. */
  readonly gap: Interval;
  readonly samples: number;
}

export interface DeploymentGapOptions {
  readonly training: { readonly precision: FloatDType; readonly numerics?: Numerics };
  readonly rollout: { readonly precision: FloatDType; readonly numerics?: Numerics };
  /** Responses by each engine. */
  readonly count: number;
  readonly seed: number;
}

/**
 * The deployment gap (arXiv 2510.26788): training finds the best policy for pi, and mu is what is deployed. Both are
 * sampled with the same draws for the same prompts. The training engine does not generate, so pi is sampled by a rollout
 * engine with the training engine's precision and choices, whose log-probs are the training engine's to the bit.
 */
export async function deploymentGap(subject: Subject, options: DeploymentGapOptions): Promise<DeploymentGap> {
  const { count, seed, training, rollout } = options;
  const common = { count, seed };
  const mu = await sampleResponses(subject, { ...rollout, ...common });
  const pi = await sampleResponses(subject, {
    ...common,
    precision: training.precision,
    numerics: training.numerics ?? numerics('training'),
  });
  // Responses to one prompt are not independent: whole prompts are resampled.
  const prompts = Math.min(subject.environment.prompts.length, count);
  const gaps = new Float64Array(prompts);
  const counts = new Float64Array(prompts);
  for (let i = 0; i < count; i++) {
    gaps[i % prompts]! += pi.rewards[i]! - mu.rewards[i]!;
    counts[i % prompts]!++;
  }
  const statistic = (indices: Int32Array) => {
    let sum = 0;
    let total = 0;
    for (const i of indices) {
      sum += gaps[i]!;
      total += counts[i]!;
    }
    return sum / total;
  };
  const mean = (values: Float64Array) => values.reduce((sum, x) => sum + x, 0) / values.length;
  return {
    rolloutAccuracy: mean(mu.rewards),
    trainingAccuracy: mean(pi.rewards),
    gap: bootstrap(prompts, statistic, seed),
    samples: count,
  };
}
