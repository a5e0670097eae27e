import type { TokenSequence } from '../models/sequences.js';
import type { Algorithm, PolicyBatch } from '../rl/batch.js';
import { batchTotals } from '../rl/batch.js';
import type { Sample } from '../sanity/subject.js';
import type { LossFunction, TrainingEngine } from '../training/engine.js';

/** How one gradient lies to another. */
export interface GradientComparison {
  /** Cosine of the angle between them; NaN where one is 0. */
  readonly cosine: number;
  /** Norm of the first over that of the second. */
  readonly relativeNorm: number;
}

type Gradients = ReadonlyMap<string, Float32Array>;

/** Compares two gradients of the same parameters, all of them as one vector; sums in fp64. */
export function compareGradients(a: Gradients, b: Gradients): GradientComparison {
  let [aa, bb, ab] = [0, 0, 0];
  for (const [name, x] of a) {
    const y = b.get(name)!;
    for (let i = 0; i < x.length; i++) {
      aa += x[i]! * x[i]!;
      bb += y[i]! * y[i]!;
      ab += x[i]! * y[i]!;
    }
  }
  return { cosine: ab / Math.sqrt(aa * bb), relativeNorm: Math.sqrt(aa / bb) };
}

/** The bias that one algorithm's correction takes away, on one batch at one set of weights. */
export interface GradientBias extends GradientComparison {
  readonly algorithm: string;
  /** By parameter. */
  readonly byParameter: Readonly<Record<string, GradientComparison>>;
}

/**
 * The bias of the policy gradient (arXiv 2510.26788): samples are of mu, the gradient is taken as if they were of pi. For
 * each algorithm the gradient with its correction beside the uncorrected one, on the same responses at the same weights
 * (pi_old = pi), as cosine and relative norm. Without a mismatch both are 1.
 *
 * @param uncorrected the algorithm that ignores mu, such as REINFORCE
 */
export async function gradientBias(
  training: TrainingEngine,
  sample: Sample,
  groupSize: number,
  uncorrected: Algorithm,
  algorithms: readonly Algorithm[],
): Promise<GradientBias[]> {
  const { sequences, completions, rewards } = sample;
  const old = await training.score(sequences);
  const mu = new Float64Array(old.logprobs.length);
  completions.forEach(({ logprobs }, s) => {
    mu.set(logprobs, old.offsets[s]!);
  });
  const mask = new Uint8Array(mu.length).fill(1);
  const totals = batchTotals(old.offsets, mask);
  const gradientOf = async (algorithm: Algorithm): Promise<Gradients> => {
    const advantages = algorithm.advantages(rewards, groupSize);
    const whole = { offsets: old.offsets, rolloutLogprobs: mu, oldLogprobs: old.logprobs, mask, advantages };
    const prepared = algorithm.prepare?.({ ...whole, logprobs: old.logprobs });
    return finiteGradients(training, sequences, ({ offsets, logprobs }, begin, end) => {
      const of = <A extends Float64Array | Uint8Array>(values: A) =>
        values.subarray(old.offsets[begin]!, old.offsets[end]!) as A;
      const batch: PolicyBatch = {
        offsets,
        logprobs,
        rolloutLogprobs: of(mu),
        oldLogprobs: of(old.logprobs),
        mask: of(prepared?.mask ?? mask),
        advantages: advantages.subarray(begin, end),
        totals: prepared?.totals ?? totals,
        ...(prepared && { kept: of(prepared.kept), preparedMetrics: prepared.metrics }),
        ...(prepared?.weights && { weights: of(prepared.weights) }),
      };
      return algorithm.loss(batch);
    });
  };
  const reference = await gradientOf(uncorrected);
  const result: GradientBias[] = [];
  for (const algorithm of algorithms) {
    const gradients = await gradientOf(algorithm);
    const byParameter = Object.fromEntries(
      [...gradients].map(([name, g]) => [
        name,
        compareGradients(new Map([[name, g]]), new Map([[name, reference.get(name)!]])),
      ]),
    );
    result.push({ algorithm: algorithm.name, ...compareGradients(gradients, reference), byParameter });
  }
  return result;
}

/** Tries after which a scale that still overflows is given up. */
const MOST_TRIES = 24;

/**
 * Gradients at the loss scale, or at the first lower one that the scaler comes to at which they are finite, as in a run: a
 * narrow format may not hold them at the scale that runs begin with. Not finite where no scale helps.
 */
async function finiteGradients(
  training: TrainingEngine,
  sequences: readonly TokenSequence[],
  lossOf: LossFunction,
): Promise<Gradients> {
  for (let tries = 1; ; tries++) {
    const { gradients, overflowed } = await training.gradients(sequences, lossOf);
    if (overflowed === undefined || tries === MOST_TRIES || training.scaler.kind === 'static')
      return gradients;
    training.scaler.update(true);
  }
}
