import { randomUUID } from 'node:crypto';
import { access, mkdir, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { InvalidArgumentError, invalid } from '../errors.js';

/** Makes a folder and those above it. (Node's own recursive mkdir never ends where the system answers ENOENT.) */
export async function makeFolder(path: string): Promise<void> {
  const parent = dirname(path);
  if (parent !== path && !(await exists(parent))) await makeFolder(parent);
  try {
    await mkdir(path);
  } catch (error) {
    // Another process may have made it by now.
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !(await stat(path)).isDirectory()) throw error;
  }
}

/**
 * Makes a folder where it is missing and writes to it on trial, before work is done whose results belong there.
 *
 * @throws InvalidArgumentError naming the option `name`, with the system's reason
 */
export async function makeWritableFolder(where: string, name: string, path: string): Promise<void> {
  try {
    await makeFolder(path);
    const probe = join(path, `.tmp-probe-${randomUUID()}`);
    await writeFile(probe, 'probe');
    await rm(probe);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    const what =
      code === 'EEXIST' || code === 'ENOTDIR' ? 'a folder, not (in) a file' : 'a folder that can be written';
    throw new InvalidArgumentError(
      `[${where}] expected ${name} to be ${what} (${code}), got ${JSON.stringify(path)}`,
      { cause },
    );
  }
}

/** Expects `path` to be a folder that is there; `what` it is of, as an error says it. */
export async function checkFolder(where: string, what: string, path: string): Promise<void> {
  const entry = await stat(path).catch((error: NodeJS.ErrnoException) =>
    invalid(where, `${what} (${error.code})`, path),
  );
  if (!entry.isDirectory()) invalid(where, what, path);
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
