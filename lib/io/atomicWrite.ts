/**
 * Files that are either the old ones or the new ones, whole: written beside their place, flushed to the disk and
 * renamed into it.
 */
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';

/**
 * Replaces the file at `path` with what `write` puts into a fresh file. When `write` or the disk fails, the old
 * file stays as it was and the temporary one is removed. A symbolic link at `path` is replaced, not followed.
 *
 * @throws InvalidArgumentError where `path` is a device, pipe or socket, which a rename would put out of the system
 */
export async function atomicWrite(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const present = await stat(path).catch(() => undefined);
  if (present && !present.isFile() && !present.isDirectory()) {
    throw new InvalidArgumentError(`[write] expected a file, not a device or a pipe, got ${path}`);
  }
  const folder = dirname(path);
  const temporary = join(folder, `.tmp-${process.pid}-${randomBytes(6).toString('hex')}`);
  const file = await open(temporary, 'wx');
  try {
    try {
      await write(file);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(folder);
}

/** {@link atomicWrite} of one piece of text (UTF-8) or bytes, which must not change until the promise settles. */
export async function atomicWriteFile(path: string, data: string | Uint8Array): Promise<void> {
  await atomicWrite(path, (file) => file.writeFile(data));
}

/** Flushes a folder's entries (creations, renames, removals), where the platform can. */
export async function syncFolder(path: string): Promise<void> {
  // Windows opens no handle on a folder, and its file systems journal renames themselves.
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Some network file systems cannot flush a folder: there is nothing more to be done there.
    if (code !== 'EINVAL' && code !== 'ENOTSUP') throw error;
  } finally {
    await folder.close();
  }
}
