/**
 * What a task is: problems drawn from a seed, a rule that says whether a response is right, and a way to write a
 * right one (for supervised warm-up). Everything is in token ids; the built-in tasks need no tokenizer.
 */
import { invalid } from '../errors.js';
import { CounterRandom } from '../random.js';

/** One problem of a set. */
export interface Problem {
  /** Its number: `task.problem(seed, index)` draws it again. */
  readonly index: number;
  /** Token ids, `task.promptLength` of them. */
  readonly prompt: Int32Array;
  /** A right response, where one was asked for or came with the problem. */
  readonly answer?: Int32Array;
}

export interface Task {
  /** The spec that makes this task, such as `sort:16:10`. */
  readonly name: string;
  /** Token ids run from 0 to vocabSize - 1. */
  readonly vocabSize: number;
  /** Token id -> printable text; `vocabSize` entries, the last is the end of sequence. */
  readonly symbols: readonly string[];
  readonly promptLength: number;
  /** Most new tokens of a response, the end-of-sequence token included. */
  readonly responseLength: number;
  /** The token that ends a response; a response that lacks it counts as truncated and earns 0. */
  readonly stopToken?: number;
  /** The prompt of problem `index`, a pure function of (seed, index). */
  problem(seed: number, index: number): Int32Array;
  /** A right response to `prompt`; where there are many, each is equally likely. */
  solution(prompt: Int32Array, random: CounterRandom): Int32Array;
  /** The reward: 1 for a right response, 0 for any other, whatever its length or tokens. */
  verify(prompt: Int32Array, response: Int32Array): number;
  /** Tokens as text, for logs and samples. */
  format(tokens: ArrayLike<number>): string;
}

/** Text of the end-of-sequence token of every built-in task. */
export const END_SYMBOL = '<eos>';

/** Keeps problem streams apart from any other use of the same seed. */
const PROBLEM_STREAM = 0x70726f62;

/** The random stream that problem `index` is drawn from. */
export function problemRandom(seed: number, index: number): CounterRandom {
  return new CounterRandom(seed, PROBLEM_STREAM, index);
}

/** `count` tokens, each equally likely among `first`, ..., `first + size - 1`, written to `out` from `offset` on. */
export function fillUniform(
  out: Int32Array,
  offset: number,
  count: number,
  first: number,
  size: number,
  random: CounterRandom,
): void {
  for (let i = 0; i < count; i++) out[offset + i] = first + random.integer(size);
}

/** Expects `prompt` to have the task's prompt length and to end in `lastToken`. */
export function checkPrompt(task: Task, prompt: Int32Array, lastToken: number): void {
  if (prompt.length !== task.promptLength) {
    invalid(task.name, `prompt of ${task.promptLength} tokens`, prompt.length);
  }
  if (prompt[prompt.length - 1] !== lastToken) {
    invalid(task.name, `prompt to end in token ${lastToken}`, prompt[prompt.length - 1]);
  }
}

/** Expects `count` tokens of `prompt` from `offset` on to lie in `first`, ..., `first + size - 1`. */
export function checkTokens(
  task: Task,
  prompt: Int32Array,
  offset: number,
  count: number,
  first: number,
  size: number,
): void {
  for (let i = offset; i < offset + count; i++) {
    const token = prompt[i]!;
    if (token < first || token >= first + size) {
      invalid(task.name, `prompt[${i}] to be a token from ${first} to ${first + size - 1}`, token);
    }
  }
}

/** Joins symbols, with spaces where some need more than one character; ids out of range show as `<id>`. */
export function formatTokens(symbols: readonly string[], tokens: ArrayLike<number>): string {
  const separator = symbols.every((symbol) => symbol.length === 1 || symbol === END_SYMBOL) ? '' : ' ';
  return Array.from(tokens, (token) => symbols[token] ?? `<${token}>`).join(separator);
}
