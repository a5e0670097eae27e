import { invalid } from '../errors.js';
import { checkRagged } from '../rl/batch.js';
import { effectiveSampleSize, k3 } from '../rl/ratios.js';

/** Log-probs of the same tokens under both engines; ragged as in `PolicyBatch`. */
export interface MismatchBatch {
  /** [sequences + 1] */
  offsets: Int32Array;
  /** [tokens] log mu in nats. */
  rolloutLogprobs: Float64Array | Float32Array;
  /** [tokens] log pi in nats. */
  logprobs: Float64Array | Float32Array;
  /** [tokens] 1 = counts; a masked position may hold anything. */
  mask: Uint8Array;
}

/**
 * The gap between two engines on one batch or many; d = log mu - log pi. Every estimate of a divergence is of
 * KL[mu || pi], since the tokens were sampled from mu. Equal log-probs give exactly 0, with `ess` 1. With no
 * token to measure, every number but the counts is NaN.
 */
export interface MismatchMetrics {
  /** Tokens measured: unmasked, with both log-probs finite. */
  tokens: number;
  /** Sequences with at least one such token. */
  sequences: number;
  /** Unmasked tokens left out because a log-prob is NaN or infinite. */
  nonFinite: number;
  /** mean d, nats per token. */
  k1: number;
  /** mean d^2 / 2. */
  k2: number;
  /** mean exp(-d) - 1 + d; never negative. */
  k3: number;
  /**
   * Largest pi - mu (signed, in probability): 1 where training is sure of a token that rollout found
   * impossible.
   */
  maxProbDiff: number;
  /** mean |pi - mu|. */
  meanProbDiff: number;
  /** Smallest pi - mu (signed). */
  minProbDiff: number;
  /** mean |d|. */
  meanAbsLogRatio: number;
  maxAbsLogRatio: number;
  /** Share of tokens whose two log-probs are not the same number. */
  differingShare: number;
  /** Mean over sequences of L = sum_t (log pi - log mu). */
  seqLogRatioMean: number;
  /** Standard deviation of L with Bessel's correction; 0 for a single sequence. */
  seqLogRatioStd: number;
  /**
   * 1000 * sum of all (log pi - log mu) / tokens: the drift per 1,000 tokens of arXiv 2510.26788, figure 2.
   */
  seqLogRatioPer1k: number;
  /** Effective sample size of the weights exp(L), as a share of the sequences. */
  ess: number;
  /** Mean over sequences of -L: KL[mu || pi] of whole responses, as in figure 2. */
  sequenceKl: number;
}

/**
 * Adds up batches of log-probs, so that a run can measure micro-batch by micro-batch. A sequence stays in one
 * batch.
 */
export class MismatchAccumulator {
  #tokens = 0;
  #nonFinite = 0;
  #differing = 0;
  #d = 0;
  #squares = 0;
  #k3 = 0;
  #absolute = 0;
  #maxAbsolute = 0;
  #probDiff = 0;
  #maxProbDiff = -Infinity;
  #minProbDiff = Infinity;
  readonly #seqLogRatios: number[] = [];

  /** @throws InvalidArgumentError on a malformed batch; nothing is added then */
  add(batch: MismatchBatch): void {
    const { offsets, rolloutLogprobs, logprobs, mask } = batch;
    checkLogprobs('rolloutLogprobs', rolloutLogprobs);
    checkLogprobs('logprobs', logprobs);
    checkRagged('mismatchMetrics', offsets, mask, { rolloutLogprobs, logprobs });
    for (let s = 0; s + 1 < offsets.length; s++) {
      let tokens = 0;
      let logRatio = 0;
      for (let t = offsets[s]!; t < offsets[s + 1]!; t++) {
        if (mask[t] === 0) continue;
        const logMu = rolloutLogprobs[t]!;
        const logPi = logprobs[t]!;
        if (!Number.isFinite(logMu) || !Number.isFinite(logPi)) {
          this.#nonFinite++;
          continue;
        }
        tokens++;
        logRatio += logPi - logMu;
        this.#addToken(logMu, logPi);
      }
      if (tokens === 0) continue;
      this.#tokens += tokens;
      this.#seqLogRatios.push(logRatio);
    }
  }

  /** Metrics of everything added so far. */
  result(): MismatchMetrics {
    const tokens = this.#tokens;
    const sequences = this.#seqLogRatios.length;
    const measured = tokens > 0;
    let logRatioSum = 0;
    for (const logRatio of this.#seqLogRatios) logRatioSum += logRatio;
    const seqLogRatioMean = logRatioSum / sequences;
    return {
      tokens,
      sequences,
      nonFinite: this.#nonFinite,
      k1: this.#d / tokens,
      k2: this.#squares / 2 / tokens,
      k3: this.#k3 / tokens,
      maxProbDiff: measured ? this.#maxProbDiff : Number.NaN,
      meanProbDiff: this.#probDiff / tokens,
      minProbDiff: measured ? this.#minProbDiff : Number.NaN,
      meanAbsLogRatio: this.#absolute / tokens,
      maxAbsLogRatio: measured ? this.#maxAbsolute : Number.NaN,
      differingShare: this.#differing / tokens,
      seqLogRatioMean,
      seqLogRatioStd: standardDeviation(this.#seqLogRatios, seqLogRatioMean),
      seqLogRatioPer1k: (1000 * logRatioSum) / tokens,
      ess: effectiveSampleSize(this.#seqLogRatios),
      // Not unary minus, which would turn 0 into -0.
      sequenceKl: 0 - seqLogRatioMean,
    };
  }

  #addToken(logMu: number, logPi: number): void {
    const d = logMu - logPi;
    const difference = probabilityDifference(logMu, logPi);
    const absolute = Math.abs(d);
    if (d !== 0) this.#differing++;
    this.#d += d;
    this.#squares += d * d;
    this.#k3 += k3(d);
    this.#absolute += absolute;
    this.#maxAbsolute = Math.max(this.#maxAbsolute, absolute);
    this.#probDiff += Math.abs(difference);
    this.#maxProbDiff = Math.max(this.#maxProbDiff, difference);
    this.#minProbDiff = Math.min(this.#minProbDiff, difference);
  }
}

/**
 * The mismatch between a rollout engine and a training engine on one batch (arXiv 2510.26788, figure 2; the
 * estimators k1, k2 and k3 as logged by verl and the authors' code). Non-finite pairs are counted and left
 * out, never thrown.
 *
 * @throws InvalidArgumentError on a malformed batch
 */
export function mismatchMetrics(batch: MismatchBatch): MismatchMetrics {
  const accumulator = new MismatchAccumulator();
  accumulator.add(batch);
  return accumulator.result();
}

/** pi - mu without cancellation, from the larger probability so that nothing overflows. */
function probabilityDifference(logMu: number, logPi: number): number {
  return logPi > logMu
    ? Math.exp(logPi) * -Math.expm1(logMu - logPi)
    : Math.exp(logMu) * Math.expm1(logPi - logMu);
}

function standardDeviation(values: readonly number[], mean: number): number {
  if (values.length === 1) return 0;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  // No value at all: 0 / 0, as for the other metrics.
  return values.length === 0 ? Number.NaN : Math.sqrt(squares / (values.length - 1));
}

function checkLogprobs(name: string, values: unknown): void {
  if (!(values instanceof Float64Array || values instanceof Float32Array)) {
    invalid('mismatchMetrics', `${name} to be a Float64Array or a Float32Array`, values);
  }
}
