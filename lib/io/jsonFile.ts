/** Small files of text and JSON: settings, indexes, templates. */
import { InvalidArgumentError, invalid } from '../errors.js';
import { openIfThere, openRegularFile, type RegularFile, readFully } from './regularFile.js';

/** What such a file may have: the index of the largest published models has a few megabytes. */
const MAX_BYTES = 100_000_000;

/**
 * The text of a small file; undefined where it is missing. A byte order mark is cut off.
 *
 * @throws InvalidArgumentError naming the file where it cannot be read, is not UTF-8 or is a Git LFS pointer
 */
export async function readTextIfThere(where: string, path: string): Promise<string | undefined> {
  const opened = await openIfThere(where, path);
  return opened && textOf(where, opened);
}

/**
 * The object in a small JSON file.
 *
 * @throws InvalidArgumentError naming the file where it is missing, cannot be read or holds anything else
 */
export async function readJsonObject(where: string, path: string): Promise<Record<string, unknown>> {
  return parseObject(where, path, await textOf(where, await openRegularFile(where, path)));
}

/** The same; undefined where the file is missing. */
export async function readJsonObjectIfThere(
  where: string,
  path: string,
): Promise<Record<string, unknown> | undefined> {
  const text = await readTextIfThere(where, path);
  return text === undefined ? undefined : parseObject(where, path, text);
}

async function textOf(where: string, opened: RegularFile): Promise<string> {
  const { file, path, size } = opened;
  try {
    if (size > MAX_BYTES) invalid(where, `${path} to have at most ${MAX_BYTES} bytes`, size);
    const bytes = new Uint8Array(size);
    await readFully(where, opened, bytes, 0);
    try {
      return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    } catch {
      invalid(where, `${path} to be UTF-8`, 'other bytes');
    }
  } finally {
    await file.close();
  }
}

function parseObject(where: string, path: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new InvalidArgumentError(
      `[${where}] expected ${path} to be JSON, got ${(cause as Error).message}`,
      { cause },
    );
  }
  return checkObject(where, path, value);
}

/** Whether a JSON value is an object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Expects a JSON object and returns it. */
export function checkObject(where: string, what: string, value: unknown): Record<string, unknown> {
  if (!isObject(value)) invalid(where, `${what} to be a JSON object`, kindOf(value));
  return value;
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
