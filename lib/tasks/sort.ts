/** `sort:LENGTH:SYMBOLS`: sort LENGTH symbols. One right answer. */
import { checkInteger } from '../errors.js';
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

/** 64 single characters in sorting order of their token ids. */
const ALPHABET = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@#';

/**
 * Prompt: `length` symbols, each equally likely, then `=`. Response: the same symbols in ascending order of token
 * id, then the end of sequence. Tokens: the symbols 0 ... S - 1, `=` is S, the end of sequence S + 1.
 */
export class SortTask implements Task {
  readonly name: string;
  readonly vocabSize: number;
  readonly symbols: readonly string[];
  readonly promptLength: number;
  readonly responseLength: number;
  readonly stopToken: number;
  readonly #length: number;
  readonly #numSymbols: number;

  /**
   * @param length symbols in a prompt, 1 to 4096
   * @param numSymbols size of the alphabet, 2 to 64
   */
  constructor(length: number, numSymbols: number) {
    this.#length = checkInteger('sort', 'LENGTH', length, 1, 4096);
    this.#numSymbols = checkInteger('sort', 'SYMBOLS', numSymbols, 2, 64);
    this.name = `sort:${length}:${numSymbols}`;
    this.symbols = [...ALPHABET.slice(0, numSymbols), '=', END_SYMBOL];
    this.vocabSize = this.symbols.length;
    this.promptLength = length + 1;
    this.responseLength = length + 1;
    this.stopToken = this.vocabSize - 1;
  }

  problem(seed: number, index: number): Int32Array {
    const prompt = new Int32Array(this.promptLength);
    fillUniform(prompt, 0, this.#length, 0, this.#numSymbols, problemRandom(seed, index));
    prompt[this.#length] = this.#numSymbols;
    return prompt;
  }

  solution(prompt: Int32Array, _random?: CounterRandom): Int32Array {
    checkPrompt(this, prompt, this.#numSymbols);
    checkTokens(this, prompt, 0, this.#length, 0, this.#numSymbols);
    const response = prompt.slice();
    response.subarray(0, this.#length).sort();
    response[this.#length] = this.stopToken;
    return response;
  }

  verify(prompt: Int32Array, response: Int32Array): number {
    const right = this.solution(prompt);
    return response.length === right.length && right.every((token, i) => token === response[i]) ? 1 : 0;
  }

  format(tokens: ArrayLike<number>): string {
    return formatTokens(this.symbols, tokens);
  }
}
