/** `interleave:LENGTH:SYMBOLS`: merge two lists, each keeping its order. Many right answers. */
import { checkInteger, invalid } from '../errors.js';
import type { CounterRandom } from '../random.js';
import {
  checkPrompt,
  checkTokens,
  END_SYMBOL,
  fillUniform,
  formatTokens,
  problemRandom,
  type Task,
} from './task.js';

const LETTERS = 26;

/**
 * Prompt: two lists of `length / 2` symbols, the first in lower-case letters, the second in capitals, then `=`.
 * Response: any of the C(length, length / 2) merges that keep each list's order, then the end of sequence.
 * The free choice at each token keeps the entropy high however well the task is learned, which makes it the task
 * where the gap between two numeric formats shows most.
 *
 * Tokens: the first list's symbols 0 ... S - 1, the second's S ... 2S - 1, `=` is 2S, the end of sequence 2S + 1.
 */
export class InterleaveTask implements Task {
  readonly name: string;
  readonly vocabSize: number;
  readonly symbols: readonly string[];
  readonly promptLength: number;
  readonly responseLength: number;
  readonly stopToken: number;
  readonly #half: number;
  readonly #numSymbols: number;

  /**
   * @param length symbols of both lists together, even, 2 to 4096
   * @param numSymbols size of each list's alphabet, 2 to 64
   */
  constructor(length: number, numSymbols: number) {
    checkInteger('interleave', 'LENGTH', length, 2, 4096);
    if (length % 2 !== 0) invalid('interleave', 'LENGTH to be even (two lists of the same length)', length);
    this.#numSymbols = checkInteger('interleave', 'SYMBOLS', numSymbols, 2, 64);
    this.#half = length / 2;
    this.name = `interleave:${length}:${numSymbols}`;
    this.symbols = [...letters('a', numSymbols), ...letters('A', numSymbols), '=', END_SYMBOL];
    this.vocabSize = this.symbols.length;
    this.promptLength = length + 1;
    this.responseLength = length + 1;
    this.stopToken = this.vocabSize - 1;
  }

  problem(seed: number, index: number): Int32Array {
    const random = problemRandom(seed, index);
    const prompt = new Int32Array(this.promptLength);
    fillUniform(prompt, 0, this.#half, 0, this.#numSymbols, random);
    fillUniform(prompt, this.#half, this.#half, this.#numSymbols, this.#numSymbols, random);
    prompt[2 * this.#half] = 2 * this.#numSymbols;
    return prompt;
  }

  solution(prompt: Int32Array, random: CounterRandom): Int32Array {
    this.#check(prompt);
    const response = new Int32Array(this.responseLength);
    let first = 0;
    let second = this.#half;
    for (let i = 0; i < 2 * this.#half; i++) {
      // Taking a list in proportion to what is left of it makes every merge equally likely.
      const takeFirst = random.integer(2 * this.#half - i) < this.#half - first;
      response[i] = prompt[takeFirst ? first++ : second++]!;
    }
    response[2 * this.#half] = this.stopToken;
    return response;
  }

  verify(prompt: Int32Array, response: Int32Array): number {
    this.#check(prompt);
    if (response.length !== this.responseLength || response[2 * this.#half] !== this.stopToken) return 0;
    let first = 0;
    let second = this.#half;
    for (let i = 0; i < 2 * this.#half; i++) {
      const token = response[i]!;
      // The alphabets are disjoint, so a token says which list it must come from.
      if (first < this.#half && token === prompt[first]) first++;
      else if (second < 2 * this.#half && token === prompt[second]) second++;
      else return 0;
    }
    return 1;
  }

  format(tokens: ArrayLike<number>): string {
    return formatTokens(this.symbols, tokens);
  }

  #check(prompt: Int32Array): void {
    checkPrompt(this, prompt, 2 * this.#numSymbols);
    checkTokens(this, prompt, 0, this.#half, 0, this.#numSymbols);
    checkTokens(this, prompt, this.#half, this.#half, this.#numSymbols, this.#numSymbols);
  }
}

/** `a`, ..., `z`, then `a1`, ..., `z1`, `a2`, ... */
function letters(first: string, count: number): string[] {
  const base = first.charCodeAt(0);
  return Array.from({ length: count }, (_, i) => {
    const letter = String.fromCharCode(base + (i % LETTERS));
    return i < LETTERS ? letter : `${letter}${Math.floor(i / LETTERS)}`;
  });
}
