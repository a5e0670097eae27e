/**
 * The safetensors format, strictly: eight bytes of header length (u64, little endian), a JSON header, then the
 * tensors' bytes, little endian, back to back.
 */
import { invalid } from '../errors.js';
import { atomicWrite } from './atomicWrite.js';
import { openRegularFile, type RegularFile, readFully } from './regularFile.js';
import {
  checkEntry,
  encodeSafetensorsHeader,
  type HeaderEntry,
  LENGTH_BYTES,
  MAX_HEADER_BYTES,
  parseSafetensorsHeader,
  type SafetensorsHeader,
  safetensorsDtypes,
  type TensorInfo,
} from './safetensorsHeader.js';

type Bytes = ArrayBuffer | ArrayBufferView;

/** Bytes of a tensor, from `begin` up to `end`. */
export interface ByteRange {
  readonly begin: number;
  readonly end: number;
}

/** A tensor to write. */
export interface SafetensorsEntry extends HeaderEntry {
  /** Its bytes, or a function that fetches them, whole or in pieces, when their turn comes: then no more is in memory. */
  readonly data: Bytes | (() => Bytes | Promise<Bytes> | AsyncIterable<Bytes>);
}

/** An open safetensors file whose header has been checked. Reads fetch the bytes asked for and nothing else. */
export class SafetensorsFile {
  readonly path: string;
  readonly metadata: ReadonlyMap<string, string>;
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  #opened: RegularFile | undefined;

  /** @internal use {@link openSafetensors} */
  constructor(header: SafetensorsHeader, opened: RegularFile) {
    this.path = opened.path;
    this.metadata = header.metadata;
    this.tensors = header.tensors;
    this.#opened = opened;
  }

  /** The bytes of one tensor, row-major, little endian; with `range` these alone. */
  async read(name: string, range?: ByteRange): Promise<ArrayBuffer> {
    const info = this.tensors.get(name);
    if (info === undefined) invalid('safetensors', `a tensor of ${this.path}`, name);
    if (this.#opened === undefined) invalid('safetensors', `${this.path} to be open`, 'closed');
    const { begin, end } = range ?? { begin: 0, end: info.bytes };
    const whole = Number.isInteger(begin) && Number.isInteger(end);
    if (!whole || begin < 0 || end < begin || end > info.bytes) {
      invalid('safetensors', `a range within the ${info.bytes} bytes of ${name}`, [begin, end]);
    }
    const buffer = new ArrayBuffer(end - begin);
    await readFully('safetensors', this.#opened, new Uint8Array(buffer), info.offset + begin);
    return buffer;
  }

  /** Closes the file; closing twice is harmless. */
  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await opened?.file.close();
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
  const where = 'safetensors';
  const opened = await openRegularFile(where, path);
  const { size } = opened;
  try {
    if (size < LENGTH_BYTES) invalid(where, `${path} to have at least 8 bytes`, size);
    const prefix = new DataView(new ArrayBuffer(LENGTH_BYTES));
    await readFully(where, opened, new Uint8Array(prefix.buffer), 0);
    const length = prefix.getBigUint64(0, true);
    const limit = Math.min(size - LENGTH_BYTES, MAX_HEADER_BYTES);
    if (length > limit) invalid(where, `the header of ${path} to have at most ${limit} bytes`, length);
    const bytes = new Uint8Array(Number(length));
    await readFully(where, opened, bytes, LENGTH_BYTES);
    const dataStart = LENGTH_BYTES + bytes.length;
    const header = parseSafetensorsHeader(bytes, size - dataStart, path);
    const tensors = new Map<string, TensorInfo>();
    for (const [name, info] of header.tensors)
      tensors.set(name, { ...info, offset: dataStart + info.offset });
    return new SafetensorsFile({ metadata: header.metadata, tensors }, opened);
  } catch (error) {
    await opened.file.close();
    throw error;
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
  for (const entry of sorted) {
    const { name, data } = entry;
    if (sizes.has(name)) invalid('safetensors', 'every tensor name once', name);
    const bytes = checkEntry(entry);
    if (typeof data !== 'function') checkLength(name, checkBytes(name, data).byteLength, bytes);
    sizes.set(name, bytes);
  }
  sorted.sort(
    (a, b) => safetensorsDtypes[b.dtype] - safetensorsDtypes[a.dtype] || (a.name < b.name ? -1 : 1),
  );

  const header = encodeSafetensorsHeader(sorted, metadata);
  await atomicWrite(path, async (file) => {
    await file.writeFile(header);
    for (const { name, data } of sorted) {
      const content = typeof data === 'function' ? await data() : data;
      let written = 0;
      for await (const piece of Symbol.asyncIterator in content ? content : [content]) {
        const bytes = checkBytes(name, piece);
        written += bytes.length;
        await file.writeFile(bytes);
      }
      checkLength(name, written, sizes.get(name)!);
    }
  });
}

function checkBytes(name: string, data: Bytes): Uint8Array {
  if (data instanceof ArrayBuffer) return new Uint8Array(data);
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  invalid('safetensors', `tensor ${JSON.stringify(name)} to be an ArrayBuffer or a view of one`, data);
}

function checkLength(name: string, found: number, bytes: number): void {
  if (found !== bytes) invalid('safetensors', `tensor ${JSON.stringify(name)} to have ${bytes} bytes`, found);
}
