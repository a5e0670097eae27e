import { readFile, stat } from 'node:fs/promises';
import { invalid } from '../errors.js';
import { isLfsPointer, LFS_ADVICE } from '../io/regularFile.js';

/** Expects `folder` to be a folder that is there. */
export async function checkModelFolder(where: string, folder: string): Promise<void> {
  const entry = await stat(folder).catch((error: NodeJS.ErrnoException) =>
    invalid(where, `the folder of a model (${error.code})`, folder),
  );
  if (!entry.isDirectory()) invalid(where, 'the folder of a model', folder);
}

/**
 * The text of a small file of a model's folder; nothing where it is missing. A byte order mark is cut off.
 *
 * @throws InvalidArgumentError naming the file where it cannot be read, is not UTF-8 or is a Git LFS pointer
 */
export async function readModelText(where: string, path: string): Promise<string | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return undefined;
    invalid(where, `a file that can be read (${code})`, path);
  }
  if (isLfsPointer(bytes)) invalid(where, `${path} to be the file itself`, LFS_ADVICE);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    invalid(where, `${path} to be UTF-8`, 'other bytes');
  }
}

/**
 * The JSON object in a small file of a model's folder; nothing where it is missing.
 *
 * @throws InvalidArgumentError naming the file where it cannot be read or holds anything else
 */
export async function readModelJson(
  where: string,
  path: string,
): Promise<Record<string, unknown> | undefined> {
  const text = await readModelText(where, path);
  if (text === undefined) return undefined;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    invalid(where, `${path} to be JSON`, (error as Error).message);
  }
  return checkObject(where, path, value);
}

/** Expects a JSON object and returns it. */
export function checkObject(where: string, what: string, value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    invalid(where, `${what} to be a JSON object`, kindOf(value));
  }
  return value as Record<string, unknown>;
}

/** What a JSON value is, in words, with its beginning where it is short enough to help. */
export function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'object')
    return `an object with ${Object.keys(value).slice(0, 8).join(', ') || 'no keys'}`;
  const text = typeof value === 'string' ? JSON.stringify(value) : String(value);
  return `the ${typeof value} ${text.length > 60 ? `${text.slice(0, 57)}...` : text}`;
}
