/**
 * The header of the safetensors format: JSON of the form
 * `{"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}`.
 *
 * A header is trusted only when it describes its data exactly: every tensor's byte range matches its shape and dtype,
 * the ranges cover the data with no hole and no overlap, and no name occurs twice.
 */
import { invalid } from '../errors.js';

/** The dtypes of the format that take whole bytes, with their bytes per element. */
export const safetensorsDtypes = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const;
export type SafetensorsDtype = keyof typeof safetensorsDtypes;

/** Where a tensor lies. */
export interface TensorInfo {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** First byte: of the data in a header, of the file in an open file. */
  readonly offset: number;
  /** Length in bytes. */
  readonly bytes: number;
}

/** A checked header. */
export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

/** What a header is made of; the tensors' data follow one another in this order. */
export interface HeaderEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
}

export const MAX_HEADER_BYTES = 100_000_000;
/** The header's length, before it: u64, little endian. */
export const LENGTH_BYTES = 8;
const ALIGNMENT = 8;
export const METADATA_KEY = '__metadata__';

/**
 * Parses and checks a header.
 *
 * @param bytes the JSON text, UTF-8
 * @param dataBytes length of the data that follows the header, which the tensors must cover exactly
 * @param where names the file in errors
 * @throws InvalidArgumentError, and nothing else, for whatever bytes
 */
export function parseSafetensorsHeader(
  bytes: Uint8Array,
  dataBytes: number,
  where = 'header',
): SafetensorsHeader {
  if (bytes.length > MAX_HEADER_BYTES) {
    invalid('safetensors', `${where} to have at most ${MAX_HEADER_BYTES} bytes`, bytes.length);
  }
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    invalid('safetensors', `${where} to be UTF-8`, 'other bytes');
  }
  const header = new HeaderParser(text, where).parse();

  let end = 0;
  const ranges = [...header.tensors].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  for (const [name, { offset, bytes: length }] of ranges) {
    if (offset !== end) {
      invalid('safetensors', `tensor ${JSON.stringify(name)} of ${where} to begin at byte ${end}`, offset);
    }
    end += length;
  }
  if (end !== dataBytes) {
    const cut = end > dataBytes ? ' (the file is cut short, or still being fetched)' : '';
    invalid(
      'safetensors',
      `${where} to have the ${end} bytes of data that its header describes${cut}`,
      dataBytes,
    );
  }
  return header;
}

/**
 * A parser for the header's own small grammar rather than for JSON at large: `JSON.parse` would let a duplicate
 * key win silently, take `2.0` or `1e3` for an integer, and nest as deep as the input likes.
 */
class HeaderParser {
  readonly #text: string;
  readonly #where: string;
  #at = 0;

  constructor(text: string, where: string) {
    this.#text = text;
    this.#where = where;
  }

  parse(): SafetensorsHeader {
    const metadata = new Map<string, string>();
    const tensors = new Map<string, TensorInfo>();
    // The format wants the brace first: white space may follow the object, not precede it.
    if (this.#text[0] !== '{') this.#fail('{ as its first character');
    this.#object((name) => {
      if (name === METADATA_KEY) this.#object((key) => metadata.set(key, this.#string()));
      else tensors.set(name, this.#tensor(name));
    });
    this.#skipSpace();
    if (this.#at !== this.#text.length) this.#fail('nothing after the object');
    return { metadata, tensors };
  }

  #tensor(name: string): TensorInfo {
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let range: number[] | undefined;
    this.#object((key) => {
      if (key === 'dtype') dtype = this.#string();
      else if (key === 'shape') shape = this.#integers();
      else if (key === 'data_offsets') range = this.#integers();
      else this.#fail('dtype, shape or data_offsets', key);
    });
    const what = `tensor ${JSON.stringify(name)} of ${this.#where}`;
    if (dtype === undefined || shape === undefined || range === undefined) {
      invalid('safetensors', `${what} to have dtype, shape and data_offsets`, 'fewer');
    }
    checkDtype(what, dtype);
    const bytes = byteLength(what, dtype, shape);
    const [begin, end] = range;
    if (range.length !== 2 || begin === undefined || end === undefined || end - begin !== bytes) {
      invalid(
        'safetensors',
        `${what} to have data_offsets ${bytes} bytes apart (${dtype} [${shape}])`,
        range,
      );
    }
    return { dtype, shape, offset: begin, bytes };
  }

  /** Reads an object; `member` is called at each value and must read it. */
  #object(member: (key: string) => void): void {
    const keys = new Set<string>();
    this.#expect('{');
    if (this.#take('}')) return;
    do {
      const key = this.#string();
      if (keys.has(key)) invalid('safetensors', `every key of ${this.#where} once`, key);
      keys.add(key);
      this.#expect(':');
      member(key);
    } while (this.#take(','));
    this.#expect('}');
  }

  #integers(): number[] {
    const values: number[] = [];
    this.#expect('[');
    if (this.#take(']')) return values;
    do values.push(this.#integer());
    while (this.#take(','));
    this.#expect(']');
    return values;
  }

  #integer(): number {
    this.#skipSpace();
    const pattern = /(?:0|[1-9]\d{0,15})(?![\d.eE])/y;
    pattern.lastIndex = this.#at;
    const digits = pattern.exec(this.#text)?.[0];
    if (digits === undefined || !Number.isSafeInteger(Number(digits))) {
      this.#fail('a non-negative integer below 2^53');
    }
    this.#at += digits.length;
    return Number(digits);
  }

  #string(): string {
    this.#expect('"');
    const start = this.#at;
    for (; ; this.#at++) {
      const code = this.#text.charCodeAt(this.#at);
      if (code === 0x22) break;
      if (code === 0x5c) this.#at++;
      else if (!(code >= 0x20)) this.#fail('a string without control characters');
    }
    const raw = this.#text.slice(start, this.#at++);
    if (!raw.includes('\\')) return raw;
    let value: string;
    try {
      value = JSON.parse(`"${raw}"`);
    } catch {
      this.#fail('a JSON string', raw);
    }
    if (!isWellFormed(value)) this.#fail('a string of Unicode characters', raw);
    return value;
  }

  #expect(character: string): void {
    if (!this.#take(character)) this.#fail(character);
  }

  #take(character: string): boolean {
    this.#skipSpace();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #skipSpace(): void {
    while (this.#at < this.#text.length && ' \n\r\t'.includes(this.#text[this.#at]!)) this.#at++;
  }

  #fail(expected: string, got: string = this.#text.slice(this.#at, this.#at + 20) || 'the end'): never {
    invalid(
      'safetensors',
      `${this.#where} to be a safetensors header: ${expected} at character ${this.#at}`,
      got,
    );
  }
}

/**
 * The first bytes of a file: header length and header, padded with spaces so that the data begin at a multiple of 8.
 *
 * @param entries checked, as {@link checkEntry} does
 */
export function encodeSafetensorsHeader(
  entries: readonly HeaderEntry[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  // Put together as text: an object would move keys that look like array indices to the front.
  const members: string[] = [];
  const texts = Object.entries(metadata);
  for (const [key, value] of texts) {
    if (typeof value !== 'string' || !isWellFormed(key) || !isWellFormed(value)) {
      invalid('safetensors', `metadata ${JSON.stringify(key)} to be a string`, value);
    }
  }
  if (texts.length > 0) {
    const pairs = texts.map(([key, value]) => `${JSON.stringify(key)}:${JSON.stringify(value)}`);
    members.push(`"${METADATA_KEY}":{${pairs.join(',')}}`);
  }
  let offset = 0;
  for (const { name, dtype, shape } of entries) {
    const end = offset + byteLength(name, dtype, shape);
    members.push(
      `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${offset},${end}]}`,
    );
    offset = end;
  }
  const json = new TextEncoder().encode(`{${members.join(',')}}`);
  const length = Math.ceil(json.length / ALIGNMENT) * ALIGNMENT;
  if (length > MAX_HEADER_BYTES)
    invalid('safetensors', `a header of at most ${MAX_HEADER_BYTES} bytes`, length);
  const bytes = new Uint8Array(LENGTH_BYTES + length).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
  bytes.set(json, LENGTH_BYTES);
  return bytes;
}

/** Checks name, dtype and shape of a tensor to be written and returns its length in bytes. */
export function checkEntry({ name, dtype, shape }: HeaderEntry): number {
  const what = `tensor ${JSON.stringify(name)}`;
  if (typeof name !== 'string' || name === METADATA_KEY || !isWellFormed(name)) {
    invalid('safetensors', `a tensor name other than ${METADATA_KEY}`, name);
  }
  checkDtype(what, dtype);
  return byteLength(what, dtype, shape);
}

function checkDtype(what: string, dtype: string): asserts dtype is SafetensorsDtype {
  if (!Object.hasOwn(safetensorsDtypes, dtype)) {
    invalid('safetensors', `${what} to have dtype ${Object.keys(safetensorsDtypes).join(', ')}`, dtype);
  }
}

function byteLength(what: string, dtype: SafetensorsDtype, shape: readonly number[]): number {
  let bytes: number = safetensorsDtypes[dtype];
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0) {
      invalid('safetensors', `${what} to have dimensions that are non-negative integers`, dim);
    }
    bytes *= dim;
    if (!Number.isSafeInteger(bytes)) invalid('safetensors', `${what} to have fewer than 2^53 bytes`, shape);
  }
  return bytes;
}

function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}
