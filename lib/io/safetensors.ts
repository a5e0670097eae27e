/**
 * The safetensors format, strictly: eight bytes of header length (u64, little endian), a JSON header, then the
 * tensors' bytes, little endian, back to back.
 *
 * A file is trusted only when its header describes it exactly: every tensor's byte range matches its shape and
 * dtype, the ranges cover the data with no hole and no overlap, and no name occurs twice.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { invalid } from '../errors.js';
import { atomicWrite } from './atomicWrite.js';

/** The dtypes read and written, with their bytes per element. */
export const safetensorsDtypes = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1 } as const;
export type SafetensorsDtype = keyof typeof safetensorsDtypes;

/** Where a tensor lies in a file. */
export interface TensorInfo {
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** First byte, counted from the beginning of the file. */
  readonly offset: number;
  /** Length in bytes. */
  readonly bytes: number;
}

/** A checked header; offsets count from the beginning of the data. */
export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
}

type Bytes = ArrayBuffer | ArrayBufferView;

/** A tensor to write. */
export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Its bytes, or a function that fetches them when their turn comes (so that only one tensor is in memory). */
  readonly data: Bytes | (() => Bytes | Promise<Bytes>);
}

const MAX_HEADER_BYTES = 100_000_000;
const LENGTH_BYTES = 8;
const ALIGNMENT = 8;
/** Largest single read: Linux and Node both stop short of 2 GiB. */
const MAX_READ_BYTES = 2 ** 30;
const METADATA_KEY = '__metadata__';
const LFS_POINTER = 'version https://git-lfs';

/** An open safetensors file whose header has been checked. Reads fetch one tensor's bytes and nothing else. */
export class SafetensorsFile {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  #file: FileHandle | undefined;

  /** @internal use {@link openSafetensors} */
  constructor(path: string, header: SafetensorsHeader, file: FileHandle) {
    this.path = path;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
    this.#file = file;
  }

  /** The bytes of one tensor, row-major, little endian. */
  async read(name: string): Promise<ArrayBuffer> {
    const info = this.tensors.get(name);
    if (info === undefined) invalid('safetensors', `a tensor of ${this.path}`, name);
    if (this.#file === undefined) invalid('safetensors', `${this.path} to be open`, 'closed');
    const buffer = new ArrayBuffer(info.bytes);
    await readFully(this.#file, this.path, new Uint8Array(buffer), info.offset);
    return buffer;
  }

  /** Closes the file; closing twice is harmless. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Opens a safetensors file and checks its header against the file's size; reads no tensor.
 *
 * @throws InvalidArgumentError for anything but a valid file, with the reason
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    invalid('safetensors', `a file that can be read (${(error as NodeJS.ErrnoException).code})`, path);
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) invalid('safetensors', 'a regular file', path);
    const start = new Uint8Array(Math.min(stat.size, LFS_POINTER.length));
    await readFully(file, path, start, 0);
    if (new TextDecoder('latin1').decode(start) === LFS_POINTER) {
      invalid(
        'safetensors',
        `${path} to hold tensors`,
        'a Git LFS pointer (fetch the real file: git lfs pull)',
      );
    }
    if (stat.size < LENGTH_BYTES) invalid('safetensors', `${path} to have at least 8 bytes`, stat.size);
    const length = new DataView(start.buffer).getBigUint64(0, true);
    const limit = Math.min(stat.size - LENGTH_BYTES, MAX_HEADER_BYTES);
    if (length > limit) {
      invalid('safetensors', `the header of ${path} to have at most ${limit} bytes`, length);
    }
    const bytes = new Uint8Array(Number(length));
    await readFully(file, path, bytes, LENGTH_BYTES);
    const dataStart = LENGTH_BYTES + bytes.length;
    const header = parseSafetensorsHeader(bytes, stat.size - dataStart, path);
    const tensors = new Map<string, TensorInfo>();
    for (const [name, info] of header.tensors)
      tensors.set(name, { ...info, offset: dataStart + info.offset });
    return new SafetensorsFile(path, { metadata: header.metadata, tensors }, file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

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
  if (end !== dataBytes) invalid('safetensors', `${where} to describe ${dataBytes} bytes of data`, end);
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
 * Writes a safetensors file, whole or not at all. Tensors are stored by descending element size, then by name, and
 * the data begin at a multiple of 8 bytes, so that every tensor is aligned to its elements.
 *
 * @param metadata text to keep with the tensors
 */
export async function writeSafetensors(
  path: string,
  entries: Iterable<SafetensorsEntry>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const sorted = [...entries];
  const sizes = new Map<string, number>();
  for (const { name, dtype, shape, data } of sorted) {
    const what = `tensor ${JSON.stringify(name)}`;
    if (typeof name !== 'string' || name === METADATA_KEY || !isWellFormed(name)) {
      invalid('safetensors', `a tensor name other than ${METADATA_KEY}`, name);
    }
    if (sizes.has(name)) invalid('safetensors', 'every tensor name once', name);
    checkDtype(what, dtype);
    const bytes = byteLength(what, dtype, shape);
    if (typeof data !== 'function') checkBytes(what, data, bytes);
    sizes.set(name, bytes);
  }
  sorted.sort(
    (a, b) => safetensorsDtypes[b.dtype] - safetensorsDtypes[a.dtype] || (a.name < b.name ? -1 : 1),
  );

  const header = encodeHeader(sorted, sizes, metadata);
  await atomicWrite(path, async (file) => {
    await file.writeFile(header);
    for (const { name, data } of sorted) {
      const content = typeof data === 'function' ? await data() : data;
      await file.writeFile(checkBytes(`tensor ${JSON.stringify(name)}`, content, sizes.get(name)!));
    }
  });
}

function encodeHeader(
  entries: readonly SafetensorsEntry[],
  sizes: ReadonlyMap<string, number>,
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
    const end = offset + sizes.get(name)!;
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

function checkBytes(what: string, data: Bytes, bytes: number): Uint8Array {
  if (!(data instanceof ArrayBuffer) && !ArrayBuffer.isView(data)) {
    invalid('safetensors', `${what} to be an ArrayBuffer or a view of one`, data);
  }
  if (data.byteLength !== bytes) invalid('safetensors', `${what} to have ${bytes} bytes`, data.byteLength);
  return data instanceof ArrayBuffer
    ? new Uint8Array(data)
    : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

async function readFully(file: FileHandle, path: string, out: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < out.length; ) {
    const length = Math.min(out.length - done, MAX_READ_BYTES);
    const { bytesRead } = await file.read(out, done, length, position + done);
    if (bytesRead === 0)
      invalid('safetensors', `${path} to have ${position + out.length} bytes`, position + done);
    done += bytesRead;
  }
}
