/** The most likely tokens at each position, in the ways in which dumps write them. */
import { isObject } from '../../io/jsonFile.js';
import type { TopLogprobs } from '../record.js';
import { type Column, type Fields, isTokenId, numberOf } from './fields.js';

type Entry = readonly [token: number | string, logprob: number];

/** An integer, as the key of an object. */
const ID = /^(?:0|[1-9]\d{0,14})$/;
/** How vLLM and SGLang write an id in place of a text (--return-tokens-as-token-ids). */
const TOKEN_ID = /^token_id:(\d{1,15})$/;

/** The id that a text such as `token_id:123` stands for; null where it is a text. */
export function idInText(text: string): number | null {
  const id = TOKEN_ID.exec(text)?.[1];
  return id === undefined ? null : Number(id);
}

/**
 * Of each position: null, an object {token: logprob}, or an array of [token, logprob]; a token is an id or, in dumps
 * without, a text. Keys of objects that are integers are ids, unless the dump's keys are `texts`.
 */
export function topLogprobsOf(
  fields: Fields,
  column: Column,
  keys: 'ids' | 'texts' = 'ids',
): (TopLogprobs | null)[] {
  return column.values.map((value, i) => {
    if (value === null) return null;
    const fail = (expected: string, got: unknown, item = '') =>
      fields.fail(column.name, expected, got, `[${i}]${item}`);
    if (Array.isArray(value)) {
      return gather(value.map((pair, j) => entryOf(pair) ?? fail('to be [token, logprob]', pair, `[${j}]`)));
    }
    if (!isObject(value)) return fail('to be an object {token: logprob} or null', value);
    return gather(
      Object.entries(value).map(([key, logprob]) => [
        keys === 'ids' && ID.test(key) ? Number(key) : (idInText(key) ?? key),
        numberOf(logprob) ?? fail('to be a number or null', logprob, `[${JSON.stringify(key)}]`),
      ]),
    );
  });
}

export function gather(entries: readonly Entry[]): TopLogprobs {
  return { tokens: entries.map(([token]) => token), logprobs: entries.map(([, logprob]) => logprob) };
}

function entryOf(pair: unknown): Entry | undefined {
  if (!Array.isArray(pair) || pair.length !== 2) return undefined;
  const [token, value] = pair;
  const logprob = numberOf(value);
  if (logprob === undefined || !(isTokenId(token) || typeof token === 'string')) return undefined;
  return [token, logprob];
}
