import { invalid } from '../errors.js';

/**
 * Finds the first of some stop strings in a text that comes in pieces, wherever the cuts between pieces are.
 *
 * First is the one that is complete first; of two that are complete at the same character, the one that began first.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  /** The end of the text so far that is the beginning of a stop string. */
  #held = '';
  #found: string | undefined;

  /** @param stops strings that are not empty */
  constructor(stops: readonly string[]) {
    for (const stop of stops) {
      if (typeof stop !== 'string' || stop === '') invalid('stop', 'strings that are not empty', stop);
    }
    this.#stops = stops;
  }

  /** The stop string that was found. */
  get found(): string | undefined {
    return this.#found;
  }

  /** The text, of this piece and of what was held back, that lies before any stop string for certain. */
  push(piece: string): string {
    if (this.#found !== undefined) return '';
    const text = this.#held + piece;
    let begin = -1;
    let end = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const at = text.indexOf(stop);
      if (at < 0 || at + stop.length > end || (at + stop.length === end && at > begin)) continue;
      begin = at;
      end = at + stop.length;
      this.#found = stop;
    }
    const certain = this.#found === undefined ? text.length - this.#beginning(text) : begin;
    this.#held = this.#found === undefined ? text.slice(certain) : '';
    return text.slice(0, certain);
  }

  /** What was held back, now that nothing follows. */
  end(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }

  /** Length of the longest end of `text` with which a stop string begins. */
  #beginning(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
