import type { FileHandle } from 'node:fs/promises';
import { InvalidArgumentError } from '../errors.js';
import { DATA, type DatasetRow } from './row.js';

/** Largest single read: Linux and Node both stop short of 2 GiB. */
const MAX_READ_BYTES = 2 ** 30;

/** An open file of columns. */
export interface Table {
  readonly columns: readonly string[];
  /** The rows, as many at a time as are decoded together; of all columns, or of some. */
  batches(columns?: readonly string[]): AsyncGenerator<DatasetRow[]>;
  close(): Promise<void>;
}

/**
 * What `body` gives; what a reader makes of damaged bytes (errors of any kind) becomes one error that names the file.
 */
export async function readWhole<T>(path: string, format: string, body: () => Promise<T> | T): Promise<T> {
  try {
    return await body();
  } catch (cause) {
    if (cause instanceof InvalidArgumentError) throw cause;
    throw new InvalidArgumentError(
      `[${DATA}] expected ${path} to be a whole ${format} file, got: ${(cause as Error).message} (is it cut short or damaged?)`,
      { cause },
    );
  }
}

/** Bytes of a file, in a buffer of their own. */
export async function readBytes(
  file: FileHandle,
  position: number,
  length: number,
): Promise<Buffer<ArrayBuffer>> {
  const out = Buffer.from(new ArrayBuffer(length));
  for (let done = 0; done < length; ) {
    const { bytesRead } = await file.read(
      out,
      done,
      Math.min(length - done, MAX_READ_BYTES),
      position + done,
    );
    if (bytesRead === 0) throw new Error(`it ends at byte ${position + done}`);
    done += bytesRead;
  }
  return out;
}
