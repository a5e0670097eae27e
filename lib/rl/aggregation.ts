import { checkChoice, checkInteger } from '../errors.js';
import type { BatchTotals } from './batch.js';

export const aggregations = [
  'seq-mean-token-sum-norm',
  'seq-mean-token-mean',
  'token-mean',
  'token-sum',
] as const;

/** How the losses of tokens become one number; verl's names. */
export type Aggregation = (typeof aggregations)[number];

export interface AggregationOptions {
  aggregation?: Aggregation;
  /**
   * The constant length of 'seq-mean-token-sum-norm', in tokens: the longest response that can be generated.
   * Default 8192, as in the authors' sanity scripts. A length of 1 makes verl's 'seq-mean-token-sum'.
   */
  constantLength?: number;
}

/** Checks aggregation options and fills in the defaults. */
export function resolveAggregation(
  where: string,
  options: AggregationOptions,
  byDefault: Aggregation,
): Required<AggregationOptions> {
  const { aggregation = byDefault, constantLength = 8192 } = options;
  checkChoice(where, 'aggregation', aggregation, aggregations);
  checkInteger(where, 'constantLength', constantLength, 1);
  return { aggregation, constantLength };
}

/**
 * The weight of every counted token of one sequence in the loss of the whole mini-batch. With N sequences and
 * M tokens in the mini-batch, T tokens in this sequence and the constant length L:
 *
 *     seq-mean-token-sum-norm  1 / (N L)     Dr.GRPO, and the paper's default
 *     seq-mean-token-mean      1 / (N T)     GRPO
 *     token-mean               1 / M         DAPO
 *     token-sum                1
 *
 * It depends on a micro-batch only through the mini-batch's totals, so the gradient of a token is the same to
 * the bit however the mini-batch is split.
 */
export function tokenWeight(
  options: Required<AggregationOptions>,
  sequenceTokens: number,
  totals: BatchTotals,
): number {
  if (sequenceTokens === 0) return 0;
  switch (options.aggregation) {
    case 'seq-mean-token-sum-norm':
      return 1 / (totals.sequences * options.constantLength);
    case 'seq-mean-token-mean':
      return 1 / (totals.sequences * sequenceTokens);
    case 'token-mean':
      return 1 / totals.tokens;
    case 'token-sum':
      return 1;
  }
}
