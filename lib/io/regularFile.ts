import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { invalid } from '../errors.js';

const LFS_POINTER = 'version https://git-lfs';

/** What git leaves behind in place of a large file begins with this line, in ASCII. */
function isLfsPointer(start: Uint8Array): boolean {
  return Buffer.from(start).toString('latin1') === LFS_POINTER;
}

/** Largest single read: Linux and Node both stop short of 2 GiB. */
const MAX_READ_BYTES = 2 ** 30;

/** A file that is open for reading, with its size when it was opened. */
export interface RegularFile {
  readonly file: FileHandle;
  readonly path: string;
  readonly size: number;
}

/**
 * Opens a file of content: not a folder, not a device or a pipe (which would make a reader wait), and not the pointer that
 * Git LFS leaves where content has not been fetched.
 *
 * @throws InvalidArgumentError naming the file, with the reason
 */
export async function openRegularFile(where: string, path: string): Promise<RegularFile> {
  return (await openIfThere(where, path)) ?? invalid(where, 'a file that can be read (ENOENT)', path);
}

/** The same; undefined where there is no such file. */
export async function openIfThere(where: string, path: string): Promise<RegularFile | undefined> {
  let file: FileHandle;
  try {
    // Without O_NONBLOCK (which Windows does not know) a pipe would be waited for right here.
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    invalid(where, `a file that can be read (${code})`, path);
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) invalid(where, 'a regular file', path);
    const opened = { file, path, size: stat.size };
    const start = new Uint8Array(Math.min(stat.size, LFS_POINTER.length));
    await readFully(where, opened, start, 0);
    if (isLfsPointer(start)) {
      invalid(where, `${path} to hold its content`, 'a Git LFS pointer (fetch the real file: git lfs pull)');
    }
    return opened;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The size of the file that a Git LFS pointer stands for; undefined for any other file. */
export async function lfsPointerSize(path: string): Promise<number | undefined> {
  const file = await open(path, 'r');
  try {
    // A pointer has three short lines.
    const { bytesRead, buffer } = await file.read(Buffer.alloc(1024), 0, 1024, 0);
    const text = buffer.toString('latin1', 0, bytesRead);
    const size = text.startsWith(LFS_POINTER) ? /^size (\d{1,15})$/m.exec(text)?.[1] : undefined;
    return size === undefined ? undefined : Number(size);
  } finally {
    await file.close();
  }
}

/** Fills `out` with the bytes of a file from `position` on; a file that ends before is an error. */
export async function readFully(
  where: string,
  { file, path }: RegularFile,
  out: Uint8Array,
  position: number,
): Promise<void> {
  for (let done = 0; done < out.length; ) {
    const length = Math.min(out.length - done, MAX_READ_BYTES);
    const { bytesRead } = await file.read(out, done, length, position + done);
    if (bytesRead === 0) invalid(where, `${path} to have ${position + out.length} bytes`, position + done);
    done += bytesRead;
  }
}
