/** A choice of OpenAI's API, of chat or of completions. */
import { isObject } from '../../io/jsonFile.js';
import type { DumpRecord, Series, TopLogprobs } from '../record.js';
import { type Fields, numberOf } from './fields.js';
import { scoredRange } from './scored.js';
import { withTop } from './series.js';
import { gather, idInText, topLogprobsOf } from './topLogprobs.js';

/** What an answer of an engine has of a record. */
export type Answer = Pick<DumpRecord, 'tokens' | 'tokenTexts' | 'text' | 'promptTokens'> & {
  readonly own: Series;
};

interface Content {
  readonly texts: readonly string[];
  readonly numbers: Float64Array;
  readonly top: readonly (TopLogprobs | null)[] | null;
}

/** JSON has no minus infinity: the API's least log-prob stands for it. */
const LEAST = -9999;

/** Where a choice or, in chat, the whole answer has what was asked. */
export function holderOf(name: string, choice: Fields, body: Fields): Fields {
  return choice.get(name) === null ? body : choice;
}

/** A log-prob of the API: minus infinity as such. */
export function unclamped(logprob: number): number {
  return logprob <= LEAST ? -Infinity : logprob;
}

/**
 * Of a choice; null where it has no log-probs. With `echo` the prompt comes first, and is all there is where nothing
 * was sampled: a text that was scored.
 */
export function answerOf(row: Fields, body: Fields, choice: Fields): Answer | null {
  const logprobs = choice.object('logprobs');
  if (logprobs === null) return null;
  const isCompletion = (logprobs.get('tokens') ?? logprobs.get('token_logprobs')) !== null;
  const { texts, numbers, top } = isCompletion ? completion(logprobs) : chat(logprobs);
  const length = numbers.length;
  const sampled = choice.array('token_ids');
  const holder = holderOf('prompt_token_ids', choice, body);
  const promptColumn = holder.array('prompt_token_ids');
  const prompt = promptColumn && holder.ids(promptColumn);
  const fits = sampled === null || sampled.values.length === length;
  const isEcho =
    !fits && prompt !== null && sampled.values.length > 0 && sampled.values.length + prompt.length === length;
  const isScored =
    !isEcho &&
    Number.isNaN(numbers[0]) &&
    !(sampled !== null && fits) &&
    (prompt?.length === length || row.get('response_length') !== null);
  if (!fits && !isEcho && !isScored) {
    choice.fail('token_ids', `to be as long as the log-probs (${length})`, sampled.values);
  }
  const start = isEcho ? prompt.length : isScored ? scoredRange(row, length).start : 0;
  const inTexts = idsInTexts(texts);
  const whole = (isScored ? prompt : null) ?? inTexts;
  return {
    tokens: sampled === null || isScored ? (whole?.slice(start) ?? null) : choice.ids(sampled),
    tokenTexts: inTexts === null ? texts.slice(start) : null,
    text: start > 0 ? null : textOf(choice),
    promptTokens: isScored ? (start > 0 ? (whole?.slice(0, start) ?? null) : null) : prompt,
    own: withTop(numbers.slice(start), top?.slice(start) ?? null),
  };
}

function completion(logprobs: Fields): Content {
  const tokens = logprobs.array('tokens') ?? logprobs.fail('tokens', 'to be an array', undefined);
  const column =
    logprobs.array('token_logprobs') ?? logprobs.fail('token_logprobs', 'to be an array', undefined);
  const top = logprobs.array('top_logprobs');
  logprobs.sameLength(column, tokens, top);
  return {
    texts: logprobs.texts(tokens),
    numbers: logprobs.numbers(column).map(unclamped),
    top: top && topLogprobsOf(logprobs, top, 'texts'),
  };
}

function chat(logprobs: Fields): Content {
  const content = logprobs.objects('content') ?? logprobs.fail('content', 'to be an array', undefined);
  const top = content.map(topOf);
  return {
    texts: content.map((token) => token.text('token') ?? token.fail('token', 'to be a text', undefined)),
    numbers: Float64Array.from(content, (token) => unclamped(token.number('logprob'))),
    top: top.some((entry) => entry !== null) ? top : null,
  };
}

/** Of one token of a chat; null where no others were asked for. */
function topOf(token: Fields): TopLogprobs | null {
  const column = token.array('top_logprobs');
  if (column === null || column.values.length === 0) return null;
  return gather(
    column.values.map((entry, i) => {
      const logprob = isObject(entry) ? numberOf(entry.logprob) : undefined;
      if (!isObject(entry) || typeof entry.token !== 'string' || logprob === undefined) {
        token.fail(column.name, 'to be {token, logprob}', entry, `[${i}]`);
      }
      return [idInText(entry.token) ?? entry.token, unclamped(logprob)];
    }),
  );
}

/** Ids where all texts stand for one. */
function idsInTexts(texts: readonly string[]): number[] | null {
  const ids = texts.map(idInText);
  return ids.length > 0 && ids.every((id) => id !== null) ? ids : null;
}

/** The text of a choice; null where a parser of the server took parts out of it: thoughts, calls of tools. */
function textOf(choice: Fields): string | null {
  const message = choice.object('message');
  if (message === null) return choice.text('text');
  const parts = ['reasoning', 'reasoning_content', 'tool_calls'].map((name) => message.get(name));
  const isWhole = parts.every((part) => part === null || (Array.isArray(part) && part.length === 0));
  return isWhole ? message.text('content') : null;
}
