/**
 * Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011) and a generator on top of it whose draws are a pure function of (seed, stream, position).
 */
import { checkInteger, invalid } from './errors.js';

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;
const WORDS_PER_BLOCK = 4;
const TWO_32 = 2 ** 32;

/** Upper 32 bits of the 64-bit product, from 16-bit halves: each partial sum fits a double exactly. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const first = aHigh * bLow + ((aLow * bLow) >>> 16);
  const second = aLow * bHigh + (first & 0xffff);
  return (aHigh * bHigh + (first >>> 16) + (second >>> 16)) | 0;
}

/**
 * One block of Philox4x32-10: four 32-bit words from a counter of four words and a key of two.
 *
 * @param out receives the words; pass one to keep a hot loop free of allocation (it may be `counter` itself)
 */
export function philox(
  counter: ArrayLike<number>,
  key: ArrayLike<number>,
  out: Uint32Array = new Uint32Array(WORDS_PER_BLOCK),
): Uint32Array {
  let c0 = counter[0]! | 0;
  let c1 = counter[1]! | 0;
  let c2 = counter[2]! | 0;
  let c3 = counter[3]! | 0;
  let k0 = key[0]! | 0;
  let k1 = key[1]! | 0;
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = multiplyHigh(MULTIPLIER_0, c0);
    const low0 = Math.imul(MULTIPLIER_0, c0);
    const high1 = multiplyHigh(MULTIPLIER_1, c2);
    const low1 = Math.imul(MULTIPLIER_1, c2);
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 = (k0 + WEYL_0) | 0;
    k1 = (k1 + WEYL_1) | 0;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
  return out;
}

/** All that {@link CounterRandom} needs to go on; plain JSON. */
export interface RandomState {
  readonly seed: number;
  readonly stream: readonly number[];
  /** 32-bit words drawn so far. */
  readonly position: number;
}

/** What {@link CounterRandom.shuffle} can permute: arrays and typed arrays of numbers. */
export type Shuffleable = { readonly length: number; [index: number]: unknown };

/**
 * A random stream named by a seed and any number of stream ids, for instance (seed, prompt, sample).
 *
 * Draw number p is word p mod 4 of the Philox block floor(p / 4), so a generator loaded from `state()` draws what
 * the saved one would have drawn. The ids are absorbed one at a time: each passes through Philox, and its 128 bits
 * of output become the key and the upper half of the counter. Streams with different ids are therefore
 * independent, in any number and of any size.
 */
export class CounterRandom {
  #seed = 0;
  #stream: readonly number[] = [];
  #position = 0;
  #cachedBlock = -1;
  readonly #key = new Uint32Array(2);
  readonly #counter = new Uint32Array(WORDS_PER_BLOCK);
  readonly #block = new Uint32Array(WORDS_PER_BLOCK);

  /**
   * @param seed integer from 0 to 2^53 - 1
   * @param stream integers from 0 to 2^53 - 1; order and number matter
   */
  constructor(seed: number, ...stream: number[]) {
    this.load({ seed, stream, position: 0 });
  }

  /** The next 32-bit word, from 0 to 2^32 - 1. */
  next(): number {
    const word = this.#position % WORDS_PER_BLOCK;
    const block = (this.#position - word) / WORDS_PER_BLOCK;
    if (block !== this.#cachedBlock) {
      this.#counter[0] = block;
      this.#counter[1] = block / TWO_32;
      philox(this.#counter, this.#key, this.#block);
      this.#cachedBlock = block;
    }
    this.#position++;
    return this.#block[word]!;
  }

  /** A double in [0, 1) with 53 random bits; takes two words. */
  uniform(): number {
    const high = this.next() >>> 5;
    const low = this.next() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** An integer in [0, n), every value equally likely (by rejection, so it can take several words); n <= 2^32. */
  integer(n: number): number {
    checkInteger('CounterRandom.integer', 'n', n, 1, TWO_32);
    const limit = TWO_32 - (TWO_32 % n);
    let word = this.next();
    while (word >= limit) word = this.next();
    return word % n;
  }

  /** Permutes `array` in place, every order equally likely, and returns it. */
  shuffle<T extends Shuffleable>(array: T): T {
    const values: Shuffleable = array;
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.integer(i + 1);
      const held = values[i];
      values[i] = values[j];
      values[j] = held;
    }
    return array;
  }

  /** The seed, the stream and how far it has been drawn. */
  state(): RandomState {
    return { seed: this.#seed, stream: [...this.#stream], position: this.#position };
  }

  /** Goes on from where `state()` was taken, whatever this generator was before. */
  load(state: RandomState): void {
    const where = 'CounterRandom';
    const { seed, stream, position } = state;
    checkInteger(where, 'seed', seed, 0, Number.MAX_SAFE_INTEGER);
    checkInteger(where, 'position', position, 0, Number.MAX_SAFE_INTEGER);
    if (!Array.isArray(stream)) invalid(where, 'stream to be an array of integers', stream);
    for (const id of stream) checkInteger(where, 'stream id', id, 0, Number.MAX_SAFE_INTEGER);

    this.#key[0] = seed;
    this.#key[1] = seed / TWO_32;
    this.#counter.fill(0);
    for (const id of stream) {
      this.#counter[0] = id;
      // Draws never set the top bit of this word, so an absorbed id cannot meet a drawn block.
      this.#counter[1] = (id / TWO_32) | 0x80000000;
      philox(this.#counter, this.#key, this.#block);
      this.#key.set(this.#block.subarray(0, 2));
      this.#counter.set(this.#block.subarray(2, 4), 2);
    }
    this.#seed = seed;
    this.#stream = [...stream];
    this.#position = position;
    this.#cachedBlock = -1;
  }
}
