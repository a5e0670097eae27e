import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { invalid } from '../errors.js';

const LFS_POINTER = 'version https://git-lfs';

/** What is said of a file that git left behind in place of a large one. */
export const LFS_ADVICE = 'a Git LFS pointer (fetch the real file: git lfs pull)';

/** Whether text or bytes are a Git LFS pointer: the first line of one, in ASCII. */
export function isLfsPointer(start: string | Uint8Array): boolean {
  const text =
    typeof start === 'string' ? start : Buffer.from(start.subarray(0, LFS_POINTER.length)).toString('latin1');
  return text.startsWith(LFS_POINTER);
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
  let file: FileHandle;
  try {
    // Without O_NONBLOCK (which Windows does not know) a pipe would be waited for right here.
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
  } catch (error) {
    invalid(where, `a file that can be read (${(error as NodeJS.ErrnoException).code})`, path);
  }
  try {
    const stat = await file.stat();
    if (!stat.isFile()) invalid(where, 'a regular file', path);
    const opened = { file, path, size: stat.size };
    const start = new Uint8Array(Math.min(stat.size, LFS_POINTER.length));
    await readFully(where, opened, start, 0);
    if (isLfsPointer(start)) invalid(where, `${path} to hold its content`, LFS_ADVICE);
    return opened;
  } catch (error) {
    await file.close();
    throw error;
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
