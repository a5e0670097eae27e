/**
 * TensorBoard event files: records of TFRecord framing, each an Event message with scalar summaries, in the little of
 * protocol buffers that it takes.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { makeFolder } from './folder.js';

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n;
  // Castagnoli's polynomial, reversed.
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0x82f63b78 : c >>> 1;
  return c >>> 0;
});

/** CRC-32C (RFC 3720). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** The rotated and shifted CRC that TFRecord stores. */
function maskedCrc(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/**
 * Writes scalars for TensorBoard into a file of its own in `folder`. A run that is resumed begins another file; where
 * both have a step, TensorBoard shows what was written last.
 */
export class TensorBoardWriter {
  readonly path: string;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  static async open(folder: string, wallTime = Date.now() / 1e3): Promise<TensorBoardWriter> {
    await makeFolder(folder);
    const name = `events.out.tfevents.${Math.floor(wallTime)}.${hostname()}.${process.pid}`;
    const path = join(folder, name);
    const writer = new TensorBoardWriter(path, await open(path, 'a'));
    await writer.#write(Buffer.concat([double(1, wallTime), bytes(3, Buffer.from('brain.Event:2'))]));
    return writer;
  }

  /** Writes one event with every finite number among `scalars`. */
  async scalars(
    step: number,
    scalars: Readonly<Record<string, unknown>>,
    wallTime = Date.now() / 1e3,
  ): Promise<void> {
    const values = Object.entries(scalars)
      .filter((entry): entry is [string, number] => Number.isFinite(entry[1]))
      .map(([tag, value]) => bytes(1, Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value)])));
    if (values.length === 0) return;
    const event = [double(1, wallTime), varint(2, step), bytes(5, Buffer.concat(values))];
    await this.#write(Buffer.concat(event));
  }

  async close(): Promise<void> {
    await this.#file.close();
  }

  async #write(data: Buffer): Promise<void> {
    const record = Buffer.alloc(12 + data.length + 4);
    record.writeBigUInt64LE(BigInt(data.length), 0);
    record.writeUInt32LE(maskedCrc(record.subarray(0, 8)), 8);
    data.copy(record, 12);
    record.writeUInt32LE(maskedCrc(data), 12 + data.length);
    await this.#file.appendFile(record);
  }
}

/** Unsigned integers in groups of seven bits, the lowest first. */
function groups(value: number): Buffer {
  const out: number[] = [];
  let rest = value;
  do {
    out.push((rest % 128) | (rest >= 128 ? 0x80 : 0));
    rest = Math.floor(rest / 128);
  } while (rest > 0);
  return Buffer.from(out);
}

const key = (field: number, wireType: number) => Buffer.from([(field << 3) | wireType]);

function varint(field: number, value: number): Buffer {
  return Buffer.concat([key(field, 0), groups(value)]);
}

function double(field: number, value: number): Buffer {
  const payload = Buffer.alloc(8);
  payload.writeDoubleLE(value);
  return Buffer.concat([key(field, 1), payload]);
}

function float(field: number, value: number): Buffer {
  const payload = Buffer.alloc(4);
  payload.writeFloatLE(value);
  return Buffer.concat([key(field, 5), payload]);
}

function bytes(field: number, payload: Buffer): Buffer {
  return Buffer.concat([key(field, 2), groups(payload.length), payload]);
}
