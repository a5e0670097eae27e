/**
 * What every policy-gradient algorithm reads and returns: plain fp64 arrays, no tensors.
 *
 * Notation: mu is the rollout engine's policy, pi_old the training engine's before the update, pi the
 * training engine's now. A masked position (mask 0) is never read, so it may hold anything, NaN included.
 */
import { checkInteger, invalid } from '../errors.js';
import type { TokenLoss } from '../models/sequences.js';

/** How much the mini-batch that a micro-batch belongs to counts; see {@link batchTotals}. */
export interface BatchTotals {
  /** Sequences with at least one counted token. */
  sequences: number;
  /** Counted tokens. */
  tokens: number;
}

/** Ragged batch of sequences; token arrays are flat, sequence s owns [offsets[s], offsets[s + 1]). */
export interface PolicyBatch {
  /** [sequences + 1], from 0 to the number of tokens, never falling. */
  offsets: Int32Array;
  /** [tokens] log mu in nats, as logged when the token was sampled. */
  rolloutLogprobs: Float64Array;
  /** [tokens] log pi_old in nats; only for algorithms with `needsOldLogprobs`. */
  oldLogprobs?: Float64Array;
  /** [tokens] log pi in nats. */
  logprobs: Float64Array;
  /** [tokens] 1 = response token that counts, 0 = ignored. */
  mask: Uint8Array;
  /** [sequences] one advantage per sequence, shared by its tokens. */
  advantages: Float64Array;
  /** Of the whole mini-batch this micro-batch belongs to, so that micro-batches add up. */
  totals: BatchTotals;
  /** [tokens] 1 = teaches, 0 = was rejected but still counts in the denominators; default `mask`. */
  kept?: Uint8Array;
  /** [tokens] what each token's loss is multiplied by; held fixed. Default 1. */
  weights?: Float64Array;
  /** Metrics of the correction that made `kept` and `weights`. */
  preparedMetrics?: Record<string, number>;
}

/** A mini-batch before its first micro-batch is passed through the model. */
export type MiniBatch = Omit<PolicyBatch, 'totals' | 'logprobs' | 'kept' | 'weights' | 'preparedMetrics'> & {
  /** [tokens] log pi; given to algorithms with `prepareNeedsLogprobs`. */
  logprobs?: Float64Array;
};

/** What an algorithm says of a whole mini-batch; micro-batches get their part of it. */
export interface Preparation {
  /** [tokens] what counts in the denominators; `totals` are of it. */
  mask: Uint8Array;
  kept: Uint8Array;
  weights?: Float64Array;
  totals: BatchTotals;
  metrics: Record<string, number>;
}

/** What an algorithm returns: loss, d loss / d log pi of each token, metrics. */
export type PolicyLoss = TokenLoss;

/** A policy-gradient algorithm: two plain functions. Anything of this shape can be trained with. */
export interface Algorithm {
  readonly name: string;
  /** Whether `loss` reads `oldLogprobs`, which costs the training engine one more forward pass. */
  readonly needsOldLogprobs: boolean;
  /** [sequences] rewards, groups contiguous -> [sequences] advantages. */
  advantages(rewards: Float64Array, groupSize: number): Float64Array;
  /**
   * Only where something depends on the whole mini-batch, such as weights normalised over it: called once for each
   * mini-batch, before its micro-batches.
   */
  prepare?(batch: MiniBatch): Preparation;
  /** Whether `prepare` reads `logprobs`, which costs one more forward pass. */
  readonly prepareNeedsLogprobs?: boolean;
  /** The metrics of a micro-batch become means weighted by sequences, unless there is `metrics`. */
  loss(batch: PolicyBatch): PolicyLoss;
  /**
   * Metrics of a whole mini-batch, where those of its micro-batches do not add up to it, as a maximum or an effective
   * sample size.
   */
  metrics?(batch: PolicyBatch): Record<string, number>;
}

/**
 * Checks what the `loss` of an algorithm of one's own returned for `tokens` tokens, before it reaches an engine.
 *
 * @throws InvalidArgumentError naming what is missing or of another shape
 */
export function checkPolicyLoss(where: string, value: PolicyLoss, tokens: number): PolicyLoss {
  const { loss, gradient, metrics } = value ?? {};
  if (typeof loss !== 'number') invalid(where, 'loss() to return a number as loss', loss);
  if (!(gradient instanceof Float64Array)) {
    invalid(where, 'loss() to return a Float64Array as gradient', gradient);
  }
  if (gradient.length !== tokens) {
    invalid(where, `loss() to return a gradient of ${tokens} (one per token)`, gradient.length);
  }
  // An infinite one is an overflow, which a weight without bound can bring about; NaN is a mistake, which the loss
  // scaler would take for one overflow after another.
  const bad = gradient.findIndex(Number.isNaN);
  if (bad >= 0) invalid(where, `loss() to return a gradient of numbers at token ${bad}`, Number.NaN);
  if (typeof metrics !== 'object' || metrics === null) {
    invalid(where, 'loss() to return an object as metrics, {} if there are none', metrics);
  }
  for (const [name, metric] of Object.entries(metrics)) {
    if (!/^[^\s/]+$/.test(name)) invalid(where, 'loss() to name metrics without spaces and slashes', name);
    if (typeof metric !== 'number') invalid(where, `loss() to return a number as metric ${name}`, metric);
  }
  return value;
}

/** Checks advantages that an algorithm of one's own returned: [sequences], finite. */
export function checkAdvantages(where: string, advantages: Float64Array, sequences: number): Float64Array {
  if (!(advantages instanceof Float64Array)) {
    invalid(where, 'advantages() to return a Float64Array', advantages);
  }
  if (advantages.length !== sequences) {
    invalid(where, `advantages() to return ${sequences} numbers (one per response)`, advantages.length);
  }
  const bad = advantages.findIndex((advantage) => !Number.isFinite(advantage));
  if (bad >= 0) invalid(where, `advantages()[${bad}] to be finite`, advantages[bad]);
  return advantages;
}

/** The number of counted tokens of each sequence, [sequences]. */
export function countedTokens(offsets: Int32Array, mask: Uint8Array): Int32Array {
  const counts = new Int32Array(offsets.length - 1);
  for (let s = 0; s < counts.length; s++) {
    let count = 0;
    for (let t = offsets[s]!; t < offsets[s + 1]!; t++) count += mask[t]!;
    counts[s] = count;
  }
  return counts;
}

/** Whether a micro-batch is all of its mini-batch. */
export function isWhole({ offsets, mask, totals }: PolicyBatch): boolean {
  const own = sumTotals(countedTokens(offsets, mask));
  return own.sequences === totals.sequences && own.tokens === totals.tokens;
}

/** Totals of a whole mini-batch; call it before splitting and give every micro-batch the result. */
export function batchTotals(offsets: Int32Array, mask: Uint8Array): BatchTotals {
  checkRagged('batchTotals', offsets, mask, {});
  return sumTotals(countedTokens(offsets, mask));
}

function sumTotals(counts: Int32Array): BatchTotals {
  const totals = { sequences: 0, tokens: 0 };
  for (const count of counts) {
    if (count > 0) totals.sequences++;
    totals.tokens += count;
  }
  return totals;
}

/**
 * Checks the ragged layout: offsets from 0 and never falling, a mask of zeros and ones, and token arrays (by
 * argument name) as long as the last offset.
 */
export function checkRagged(
  where: string,
  offsets: Int32Array,
  mask: Uint8Array,
  tokenArrays: Readonly<Record<string, ArrayLike<number>>>,
): void {
  if (!(offsets instanceof Int32Array)) invalid(where, 'offsets to be an Int32Array', offsets);
  if (!(mask instanceof Uint8Array)) invalid(where, 'mask to be a Uint8Array', mask);
  if (offsets.length === 0) invalid(where, 'offsets.length to be the number of sequences + 1', 0);
  if (offsets[0] !== 0) invalid(where, 'offsets[0] to be 0', offsets[0]);
  for (let s = 1; s < offsets.length; s++) {
    const previous = offsets[s - 1]!;
    if (offsets[s]! < previous) {
      invalid(where, `offsets[${s}] to be at least offsets[${s - 1}] = ${previous}`, offsets[s]);
    }
  }
  const tokens = offsets[offsets.length - 1]!;
  for (const [name, values] of Object.entries({ mask, ...tokenArrays })) {
    if (values.length !== tokens) {
      invalid(where, `${name}.length to be ${tokens} (the last offset)`, values.length);
    }
  }
  for (let t = 0; t < tokens; t++) {
    if (mask[t]! > 1) invalid(where, `mask[${t}] to be 0 or 1`, mask[t]);
  }
}

/**
 * Checks a batch before an algorithm reads it. Log-probs must be finite where the mask is 1, advantages
 * everywhere, and the totals must cover at least this batch.
 *
 * @throws InvalidArgumentError naming the argument and the index at fault
 */
export function checkBatch(where: string, batch: PolicyBatch, needsOld: boolean): void {
  const { offsets, rolloutLogprobs, oldLogprobs, logprobs, mask, advantages, totals } = batch;
  if (needsOld && oldLogprobs === undefined) {
    invalid(where, 'oldLogprobs (log pi_old per token), which this algorithm needs', undefined);
  }
  const tokenArrays: Record<string, Float64Array> = { rolloutLogprobs, logprobs };
  if (needsOld && oldLogprobs !== undefined) tokenArrays.oldLogprobs = oldLogprobs;
  for (const [name, values] of Object.entries({ ...tokenArrays, advantages })) {
    if (!(values instanceof Float64Array)) invalid(where, `${name} to be a Float64Array`, values);
  }
  checkRagged(where, offsets, mask, tokenArrays);

  const sequences = offsets.length - 1;
  if (advantages.length !== sequences) {
    invalid(where, `advantages.length to be ${sequences} (one per sequence)`, advantages.length);
  }
  for (let s = 0; s < sequences; s++) {
    if (!Number.isFinite(advantages[s])) invalid(where, `advantages[${s}] to be finite`, advantages[s]);
  }
  for (const [name, values] of Object.entries(tokenArrays)) {
    for (let t = 0; t < mask.length; t++) {
      if (mask[t] === 1 && !Number.isFinite(values[t])) {
        invalid(where, `${name}[${t}] to be finite where mask is 1`, values[t]);
      }
    }
  }
  const { kept, weights } = batch;
  if (kept !== undefined && !(kept instanceof Uint8Array && kept.length === mask.length)) {
    invalid(where, `kept to be a Uint8Array of ${mask.length}`, kept);
  }
  if (weights !== undefined && !(weights instanceof Float64Array && weights.length === mask.length)) {
    invalid(where, `weights to be a Float64Array of ${mask.length}`, weights);
  }
  const own = sumTotals(countedTokens(offsets, mask));
  checkInteger(where, 'totals.sequences', totals?.sequences, own.sequences);
  checkInteger(where, 'totals.tokens', totals?.tokens, own.tokens);
}
