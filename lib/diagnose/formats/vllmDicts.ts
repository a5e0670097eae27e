/**
 * vLLM's own shape of log-probs: of each position a dictionary {id: {logprob, rank, decoded_token}}, the token at
 * that position among them.
 */
import { isObject } from '../../io/jsonFile.js';
import type { TopLogprobs } from '../record.js';
import { type Column, type Fields, numberOf, type Range } from './fields.js';
import { type Answer, holderOf, unclamped } from './openAi.js';
import { scoredRange } from './scored.js';
import { withTop } from './series.js';
import { gather } from './topLogprobs.js';

type Dictionary = Readonly<Record<string, unknown>>;

/** One of the outputs of a RequestOutput. */
export function requestOutput(body: Fields, output: Fields): Answer {
  const ids = output.array('token_ids') ?? output.fail('token_ids', 'to be an array', undefined);
  const logprobs = output.array('logprobs') ?? output.fail('logprobs', 'to be an array', undefined);
  output.sameLength(logprobs, ids);
  const prompt = body.array('prompt_token_ids');
  return {
    ...answerOf(output, logprobs, output.ids(ids), { start: 0, end: ids.values.length }),
    text: output.text('text'),
    promptTokens: prompt && body.ids(prompt),
  };
}

/** A text that was scored: its log-probs are those of the prompt. */
export function scoredPrompt(row: Fields, body: Fields, choice: Fields): Answer {
  const holder = holderOf('prompt_logprobs', choice, body);
  const column = holder.array('prompt_logprobs');
  if (column === null) choice.fail('logprobs', 'to be an object', undefined);
  const range = scoredRange(row, column.values.length);
  const idHolder = holderOf('prompt_token_ids', choice, body);
  const known = idHolder.array('prompt_token_ids');
  holder.sameLength(column, known);
  const ids = known === null ? null : idHolder.ids(known);
  const own = ids?.slice(range.start) ?? onlyIds(holder, column, range);
  return {
    ...answerOf(holder, column, own, range),
    text: null,
    promptTokens: range.start > 0 ? (ids?.slice(0, range.start) ?? null) : null,
  };
}

function answerOf(fields: Fields, column: Column, ids: number[], range: Range) {
  const top: (TopLogprobs | null)[] = [];
  const texts: unknown[] = [];
  const numbers = Float64Array.from(ids, (id, t) => {
    const place = range.start + t;
    const dictionary = dictionaryAt(fields, column, place);
    if (dictionary === null) {
      top.push(null);
      texts.push(null);
      return Number.NaN;
    }
    const own = entryAt(fields, column, place, String(id), dictionary);
    texts.push(own.text);
    const keys = Object.keys(dictionary);
    top.push(
      gather(keys.map((key) => [Number(key), entryAt(fields, column, place, key, dictionary).logprob])),
    );
    return own.logprob;
  });
  const isMore = top.some((entry) => (entry?.tokens.length ?? 0) > 1);
  return {
    tokens: ids,
    tokenTexts:
      texts.length > 0 && texts.every((text) => typeof text === 'string') ? (texts as string[]) : null,
    own: withTop(numbers, isMore ? top : null),
  };
}

/**
 * Ids of positions that have one token each. JSON's objects have no order of their own, so that the first of several
 * isn't known.
 */
function onlyIds(fields: Fields, column: Column, { start, end }: Range): number[] {
  return column.values.slice(start, end).map((value, t) => {
    const keys = Object.keys(dictionaryAt(fields, column, start + t) ?? {});
    if (keys.length !== 1) {
      fields.fail(
        column.name,
        'to have one token, or to stand beside prompt_token_ids',
        value,
        `[${start + t}]`,
      );
    }
    return Number(keys[0]);
  });
}

function dictionaryAt(fields: Fields, { name, values }: Column, place: number): Dictionary | null {
  const value = values[place];
  if (value === null) return null;
  if (!isObject(value)) fields.fail(name, 'to be an object or null', value, `[${place}]`);
  const key = Object.keys(value).find((one) => !/^\d{1,15}$/.test(one));
  if (key !== undefined) fields.fail(name, 'to have ids of tokens as keys', key, `[${place}]`);
  return value;
}

function entryAt(fields: Fields, { name }: Column, place: number, id: string, dictionary: Dictionary) {
  const entry = Object.hasOwn(dictionary, id) ? dictionary[id] : undefined;
  const logprob = isObject(entry) ? numberOf(entry.logprob) : undefined;
  if (!isObject(entry) || logprob === undefined) {
    fields.fail(name, `to have {logprob} of token ${id}`, entry ?? dictionary, `[${place}]`);
  }
  return { logprob: unclamped(logprob), text: entry.decoded_token };
}
