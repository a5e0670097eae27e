import { StopMatcher } from './stopMatcher.js';
import { checkId, type DecodeOptions, type Tokenizer } from './tokenizer.js';

export interface TextStreamOptions extends DecodeOptions {
  /** Strings that end the text; what they are part of is not given out. */
  readonly stop?: readonly string[];
}

/**
 * The text of a response while it is sampled: takes token ids one at a time and gives out text as soon as nothing that
 * follows can change it. All pieces together are the `decode` of all ids, up to the first stop string.
 *
 * Held back are bytes that begin a character, and an end of the text that begins a stop string. A token costs time by its
 * own length, not by that of the text so far. The ids themselves belong to whoever samples: text is never encoded
 * again (see {@link Tokenizer}).
 */
export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #skipSpecialTokens: boolean;
  readonly #matcher: StopMatcher;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  #first: boolean;
  /** How many more times the text may lose `strip.content` at its beginning. */
  #strip: number;

  constructor(tokenizer: Tokenizer, options: TextStreamOptions = {}) {
    const { skipSpecialTokens = false, continues = false, stop = [] } = options;
    this.#tokenizer = tokenizer;
    this.#skipSpecialTokens = skipSpecialTokens;
    this.#matcher = new StopMatcher(stop);
    this.#first = !continues;
    this.#strip = continues ? 0 : tokenizer.detokenizer.strip.count;
  }

  /** The stop string that ended the text, if one has. */
  get stopped(): string | undefined {
    return this.#matcher.found;
  }

  /** The text that has become certain with this token; often none. After a stop string there is none. */
  push(id: number): string {
    checkId('TextStream', id);
    const { detokenizer } = this.#tokenizer;
    if (this.#skipSpecialTokens && this.#tokenizer.isSpecial(id)) return '';
    if (this.#tokenizer.idToToken(id) === undefined) return '';
    const bytes = detokenizer.bytes(id, this.#first);
    this.#first = false;
    return this.#matcher.push(this.#stripped(this.#decoder.decode(bytes, { stream: true })));
  }

  /** The rest of the text, now that no token follows: a character cut short is U+FFFD. The stream is then over. */
  end(): string {
    return this.#matcher.push(this.#stripped(this.#decoder.decode())) + this.#matcher.end();
  }

  /** Without what the beginning of a text loses; a piece with anything else in it ends the beginning. */
  #stripped(piece: string): string {
    const { content } = this.#tokenizer.detokenizer.strip;
    let start = 0;
    while (this.#strip > 0 && start < piece.length) {
      if (!piece.startsWith(content, start)) {
        this.#strip = 0;
        break;
      }
      start += content.length;
      this.#strip--;
    }
    return piece.slice(start);
  }
}
