/** Unpacks gzip piece by piece, of one member or several. */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGunzip } from 'node:zlib';
import { invalid } from '../errors.js';
import type { RegularFile } from './regularFile.js';

const CHUNK_BYTES = 1 << 18;

/** Whether bytes begin as gzip does. */
export function isGzip(start: Uint8Array): boolean {
  return start[0] === 0x1f && start[1] === 0x8b;
}

/**
 * The unpacked bytes of a file whose packed ones are `packed`, all of which have been read at the end.
 *
 * @throws InvalidArgumentError where the file is damaged or cut short, or goes on after its last member
 */
export async function* gunzipped(
  where: string,
  file: RegularFile,
  packed: AsyncGenerator<Buffer>,
): AsyncGenerator<Buffer, void> {
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  // What fails on the way in is thrown by the way out, too.
  const done = pipeline(Readable.from(packed), gunzip).catch(() => {});
  try {
    yield* gunzip as AsyncIterable<Buffer>;
    // Node stops without a word at a zero after a member, whatever follows.
    const rest = file.size - gunzip.bytesWritten;
    if (rest > 0) invalid(where, `${file.path} to end with its gzip data`, `${rest} bytes more`);
  } catch (error) {
    // A reason to abort can be anything.
    const code = (error as { code?: unknown } | null)?.code;
    if (code === 'Z_BUF_ERROR') {
      invalid(where, `${file.path} to be whole`, 'gzip that ends too early (is it cut short?)');
    }
    if (typeof code === 'string' && code.startsWith('Z_')) {
      invalid(where, `${file.path} to be gzip`, `damaged data (${(error as Error).message})`);
    }
    throw error;
  } finally {
    gunzip.destroy();
    await done;
  }
}
