/**
 * From token ids to text, by the `decoder` of `tokenizer.json`: every token is a few bytes, and the text is those bytes
 * as UTF-8. Bytes that are no UTF-8 become U+FFFD, one for each longest beginning of a character (as in the WHATWG
 * encoding standard).
 */
import { invalid } from '../errors.js';
import { checkObject, kindOf } from '../io/jsonFile.js';

const WHERE = 'tokenizer';
const NOTHING = new Uint8Array(0);

type Json = Readonly<Record<string, unknown>>;

/** Streams and whole texts share what a token is and how a text begins. */
export interface Detokenizer {
  /**
   * The bytes of a token; none of an id that no token has (a model can have more rows than its tokenizer has tokens).
   *
   * @param first whether it is the first token of a text, where that makes a difference
   */
  bytes(id: number, first: boolean): Uint8Array;
  /** How many times `content` is cut off at the beginning of a text: the space that encoding has put there. */
  readonly strip: { readonly content: string; readonly count: number };
}

/**
 * A decoder of one of the shapes in use: `ByteLevel` (Llama 3, Qwen, DeepSeek), `Metaspace`, or a `Sequence` of `Replace`,
 * `ByteFallback`, `Fuse` and `Strip` (Llama 2, Mistral, Mixtral).
 *
 * @param tokenOf the text of a token in `tokenizer.json`; undefined for an id without token
 * @param isAdded whether an id is an added token, whose text stands for itself
 */
export function createDetokenizer(
  path: string,
  decoder: Json,
  tokenOf: (id: number) => string | undefined,
  isAdded: (id: number) => boolean,
): Detokenizer {
  const steps = decoder.type === 'Sequence' ? decoder.decoders : [decoder];
  if (!Array.isArray(steps)) invalid(WHERE, `decoders of ${path} to be a list`, kindOf(steps));
  const rules = new Rules();
  for (const step of steps) rules.add(path, checkObject(WHERE, `decoder of ${path}`, step));

  const known: (Uint8Array | undefined)[] = [];
  return {
    strip: rules.strip,
    bytes(id, first) {
      const token = tokenOf(id);
      if (token === undefined) return NOTHING;
      if (first && rules.dropAtFirst !== '') return rules.bytes(token.replaceAll(rules.dropAtFirst, ''));
      known[id] ??= rules.byteLevel && !isAdded(id) ? byteLevelBytes(token) : rules.bytes(token);
      return known[id];
    },
  };
}

/** What the steps of a decoder do to a token, and to the text of all of them. */
class Rules {
  byteLevel = false;
  /** A character that the first token of a text loses. */
  dropAtFirst = '';
  strip = { content: '', count: 0 };
  #byteFallback = false;
  #fused = false;
  readonly #replacements: { readonly pattern: string; readonly content: string }[] = [];

  add(path: string, step: Json): void {
    const where = `${String(step.type)} in the decoder of ${path}`;
    if (this.#fused && step.type !== 'Strip' && step.type !== 'Fuse') {
      invalid(WHERE, `the decoder of ${path} to change no text after Fuse`, kindOf(step.type));
    }
    switch (step.type) {
      case 'ByteLevel':
        this.byteLevel = true;
        return;
      case 'ByteFallback':
        this.#byteFallback = true;
        return;
      case 'Fuse':
        this.#fused = true;
        return;
      case 'Replace': {
        const pattern = (step.pattern as Json | undefined)?.String;
        if (typeof pattern !== 'string' || pattern === '' || typeof step.content !== 'string') {
          invalid(WHERE, `${where} to have a pattern String and a content`, JSON.stringify(step));
        }
        this.#replacements.push({ pattern, content: step.content });
        return;
      }
      case 'Metaspace': {
        const { replacement = '▁', prepend_scheme: scheme = 'always' } = step;
        if (typeof replacement !== 'string')
          invalid(WHERE, `${where} to have a replacement`, kindOf(replacement));
        this.#replacements.push({ pattern: replacement, content: ' ' });
        if (scheme !== 'never') this.dropAtFirst = replacement;
        return;
      }
      case 'Strip': {
        const { content, start, stop } = step;
        const isCount = typeof start === 'number' && Number.isInteger(start) && start >= 0;
        if (
          !this.#fused ||
          typeof content !== 'string' ||
          [...content].length !== 1 ||
          !isCount ||
          stop !== 0
        ) {
          invalid(
            WHERE,
            `${where} to come after Fuse, with one character as content, a start and stop 0`,
            JSON.stringify(step),
          );
        }
        this.strip = { content, count: start };
        return;
      }
      default:
        invalid(
          WHERE,
          `the decoder of ${path} to be ByteLevel, Metaspace or a Sequence of Replace, ByteFallback, Fuse and Strip`,
          kindOf(step.type),
        );
    }
  }

  bytes(token: string): Uint8Array {
    let text = token;
    for (const { pattern, content } of this.#replacements) text = text.replaceAll(pattern, content);
    const byte = this.#byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1] : undefined;
    return byte === undefined ? encode(text) : Uint8Array.of(Number.parseInt(byte, 16));
  }
}

/** A token of a byte-level vocabulary, in which a character stands for a byte; one with other characters for itself. */
function byteLevelBytes(token: string): Uint8Array {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = BYTE_OF_CHARACTER.get(token.charCodeAt(i));
    if (byte === undefined) return encode(token);
    bytes[i] = byte;
  }
  return bytes;
}

/**
 * GPT-2's alphabet: bytes that Latin-1 shows as a visible character are that character; the others, in order, are the
 * characters from U+0100 on.
 */
const BYTE_OF_CHARACTER: ReadonlyMap<number, number> = (() => {
  const map = new Map<number, number>();
  let next = 0x100;
  for (let byte = 0; byte < 0x100; byte++) {
    const visible = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    map.set(visible ? byte : next++, byte);
  }
  return map;
})();

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
