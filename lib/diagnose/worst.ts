import { eachCounted } from './counted.js';
import type { WorstToken } from './diagnosis.js';
import { placeText } from './place.js';
import type { Pair } from './record.js';

const MOST = 20;

/**
 * The twenty tokens with the greatest |log pi - log mu| of a stream of responses, the greatest first; of equal ones the
 * earlier come first, and stay. Tokens that don't count, or whose log-probs are not finite, are left out.
 */
export class WorstTokens {
  readonly #worst: WorstToken[] = [];
  /** What a token must exceed: where both engines agree, none is worse than another. */
  #least = 0;

  add(pair: Pair): void {
    eachCounted(pair, (logMu, logPi, position) => {
      const distance = Math.abs(logPi - logMu);
      if (!(distance > this.#least)) return;
      const { id, mask, tokens, tokenTexts, places } = pair;
      let at = this.#worst.length;
      while (at > 0 && distance > distanceOf(this.#worst[at - 1]!)) at--;
      this.#worst.splice(at, 0, {
        id,
        position,
        length: mask.length,
        token: tokens?.[position] ?? null,
        text: tokenTexts?.[position] ?? null,
        logMu,
        logPi,
        places: { rollout: placeText(places.rollout), training: placeText(places.training) },
      });
      if (this.#worst.length > MOST) this.#worst.pop();
      if (this.#worst.length === MOST) this.#least = distanceOf(this.#worst.at(-1)!);
    });
  }

  result(): WorstToken[] {
    return [...this.#worst];
  }
}

function distanceOf({ logMu, logPi }: WorstToken): number {
  return Math.abs(logPi - logMu);
}
