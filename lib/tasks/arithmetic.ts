/** `add:DIGITS:NUMBERS`: add up numbers, writing the running sums. Only the last sum is judged. */
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

const BASE = 10;
const PLUS = 10;
const EQUALS = 11;
const END = 12;

/**
 * Prompt: `numbers` numbers of `digits` digits, least significant digit first (leading zeros occur), `+` between
 * them and `=` at the end. Response: the sums of the first two, three, ... numbers, each as wide as the largest
 * possible total, least significant digit first, `=` between them, then the end of sequence.
 *
 * Example, `add:2:3` with 17 + 25 + 90: prompt `71+52+09=`, response `240=231<eos>`.
 *
 * The reward looks at the last sum alone; the tokens before it are scratch paper of fixed size, on which anything
 * but the end of sequence may stand. Tokens: digits 0 ... 9, `+` 10, `=` 11, the end of sequence 12.
 */
export class ArithmeticTask implements Task {
  readonly name: string;
  readonly symbols: readonly string[] = [...'0123456789+=', END_SYMBOL];
  readonly vocabSize = this.symbols.length;
  readonly promptLength: number;
  readonly responseLength: number;
  readonly stopToken = END;
  readonly #digits: number;
  readonly #numbers: number;
  readonly #width: number;

  /**
   * @param digits digits of each number, 1 to 64
   * @param numbers how many numbers, 2 to 64
   */
  constructor(digits: number, numbers: number) {
    this.#digits = checkInteger('add', 'DIGITS', digits, 1, 64);
    this.#numbers = checkInteger('add', 'NUMBERS', numbers, 2, 64);
    this.#width = String(BigInt(numbers) * (10n ** BigInt(digits) - 1n)).length;
    this.name = `add:${digits}:${numbers}`;
    this.promptLength = numbers * (digits + 1);
    this.responseLength = (numbers - 1) * (this.#width + 1);
  }

  problem(seed: number, index: number): Int32Array {
    const random = problemRandom(seed, index);
    const prompt = new Int32Array(this.promptLength).fill(PLUS);
    for (let n = 0; n < this.#numbers; n++) {
      fillUniform(prompt, n * (this.#digits + 1), this.#digits, 0, BASE, random);
    }
    prompt[this.promptLength - 1] = EQUALS;
    return prompt;
  }

  /** The running sums worked out rightly: the one response whose every step is true. */
  solution(prompt: Int32Array, _random?: CounterRandom): Int32Array {
    this.#check(prompt);
    const response = new Int32Array(this.responseLength).fill(EQUALS);
    const sum = new Int32Array(this.#width);
    this.#addNumber(sum, prompt, 0);
    for (let n = 1; n < this.#numbers; n++) {
      this.#addNumber(sum, prompt, n);
      response.set(sum, (n - 1) * (this.#width + 1));
    }
    response[this.responseLength - 1] = END;
    return response;
  }

  verify(prompt: Int32Array, response: Int32Array): number {
    this.#check(prompt);
    const last = this.responseLength - 1;
    // An end of sequence further ahead would have stopped the response there.
    if (response.length !== this.responseLength || response.indexOf(END) !== last) return 0;
    const sum = new Int32Array(this.#width);
    for (let n = 0; n < this.#numbers; n++) this.#addNumber(sum, prompt, n);
    return sum.every((digit, i) => digit === response[last - this.#width + i]) ? 1 : 0;
  }

  format(tokens: ArrayLike<number>): string {
    return formatTokens(this.symbols, tokens);
  }

  /** Adds number `n` of the prompt to `sum`, digit by digit with carry. */
  #addNumber(sum: Int32Array, prompt: Int32Array, n: number): void {
    const offset = n * (this.#digits + 1);
    let carry = 0;
    for (let i = 0; i < this.#width; i++) {
      const total = sum[i]! + (i < this.#digits ? prompt[offset + i]! : 0) + carry;
      sum[i] = total % BASE;
      carry = total >= BASE ? 1 : 0;
    }
  }

  #check(prompt: Int32Array): void {
    checkPrompt(this, prompt, EQUALS);
    for (let n = 0; n < this.#numbers; n++) {
      const offset = n * (this.#digits + 1);
      checkTokens(this, prompt, offset, this.#digits, 0, BASE);
      if (n < this.#numbers - 1) checkTokens(this, prompt, offset + this.#digits, 1, PLUS, 1);
    }
  }
}
