/** A file for what does not fit in memory, gone when it is closed or the process ends, however it ends. */
import { randomUUID } from 'node:crypto';
import { open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { invalid } from '../errors.js';
import type { RegularFile } from './regularFile.js';

/**
 * Writes bytes to a new file of the system's folder for temporary files.
 *
 * @param what what they are, for messages
 * @throws InvalidArgumentError where there is no room for them
 */
export async function scratchFile(
  where: string,
  what: string,
  bytes: AsyncIterable<Uint8Array>,
): Promise<RegularFile> {
  const folder = tmpdir();
  const path = join(folder, `isopolicy-${randomUUID()}`);
  let size = 0;
  const file = await open(path, 'wx+', 0o600).catch((error) => refuse(error));
  try {
    // Without a name it needs no clearing up, not even after a kill.
    await unlink(path);
    for await (const chunk of bytes) {
      for (let done = 0; done < chunk.length; ) {
        const { bytesWritten } = await file
          .write(chunk, done, chunk.length - done, size + done)
          .catch((error) => refuse(error));
        done += bytesWritten;
      }
      size += chunk.length;
    }
    return { file, path, size };
  } catch (error) {
    await file.close();
    throw error;
  }

  function refuse({ code }: NodeJS.ErrnoException): never {
    invalid(
      where,
      `room for ${what} in ${folder}`,
      `${code} after ${size} bytes (TMPDIR can name another folder)`,
    );
  }
}
