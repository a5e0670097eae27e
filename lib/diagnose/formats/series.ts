/** Puts columns of a row together to what a record holds: the part that is the response, its series, its mask. */
import type { DumpRecord, Series, TopLogprobs } from '../record.js';
import type { Column, Fields, Range } from './fields.js';

/** Log-probs as a row names them: of an engine that isn't told (`own`), or of one that is. */
export interface SeriesColumns {
  readonly own?: Column | null;
  readonly rollout: Column | null;
  readonly training: Column | null;
}

/**
 * The part that isn't padding: from the first token that counts to the last. Where none does, the mask tells nothing
 * of padding: all.
 */
export function keptRange(mask: Uint8Array): Range {
  const start = mask.indexOf(1);
  return start < 0 ? { start: 0, end: mask.length } : { start, end: mask.lastIndexOf(1) + 1 };
}

/**
 * The series of a row: both engines', or the only one that is there.
 *
 * @param missing the field to be named where there is none
 */
export function seriesOf(
  fields: Fields,
  { own = null, rollout, training }: SeriesColumns,
  range: Range,
  missing: string,
): Pick<DumpRecord, 'own' | 'both'> {
  const series = (column: Column): Series => ({ logprobs: fields.numbers(column, range) });
  if (rollout !== null && training !== null) {
    return { own: null, both: { rollout: series(rollout), training: series(training) } };
  }
  const only = own ?? rollout ?? training ?? fields.fail(missing, 'to be an array of numbers', undefined);
  return { own: series(only), both: null };
}

/** A series with the most likely tokens, where there are any. */
export function withTop(logprobs: Float64Array, top: readonly (TopLogprobs | null)[] | null): Series {
  return top === null ? { logprobs } : { logprobs, topLogprobs: top };
}

/**
 * Of a row whose arrays are of the whole sequence, prompt and response: the response is from the first token that
 * counts to the last, what is before is the prompt.
 */
export function maskedSequence(
  fields: Fields,
  tokens: Column | null,
  mask: Column,
  columns: SeriesColumns,
  missing: string,
): Pick<DumpRecord, 'tokens' | 'promptTokens' | 'mask' | 'own' | 'both'> & { readonly range: Range } {
  fields.sameLength(mask, tokens, columns.own ?? null, columns.rollout, columns.training);
  const whole = fields.mask(mask);
  const range = keptRange(whole);
  return {
    range,
    tokens: tokens && fields.ids(tokens, range),
    promptTokens: tokens && range.start > 0 ? fields.ids(tokens, { start: 0, end: range.start }) : null,
    mask: whole.slice(range.start, range.end),
    ...seriesOf(fields, columns, range, missing),
  };
}
