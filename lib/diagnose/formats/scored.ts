/**
 * Dumps of an inference engine that scored a text in place of sampling one, as trainers' references do: the log-probs
 * are those of its prompt.
 */
import type { Fields, Range } from './fields.js';

/**
 * Which part of a scored text of `length` tokens is the response: the last `response_length` where the row has that
 * field (of the person who scored it), else all after the first token, which no engine can score.
 */
export function scoredRange(row: Fields, length: number): Range {
  const response = row.integer('response_length');
  if (response === null) return { start: Math.min(1, length), end: length };
  if (response > length)
    row.fail('response_length', `to be at most ${length}, the number of tokens`, response);
  return { start: length - response, end: length };
}
