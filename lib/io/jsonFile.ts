import { InvalidArgumentError, invalid } from '../errors.js';
import { openRegularFile, readFully } from './regularFile.js';

/** What a file of settings or an index may have: the index of the largest published models has a few megabytes. */
const MAX_BYTES = 100_000_000;

/**
 * Reads a JSON file that holds an object.
 *
 * @throws InvalidArgumentError naming the file, with the reason
 */
export async function readJsonObject(where: string, path: string): Promise<Record<string, unknown>> {
  const opened = await openRegularFile(where, path);
  try {
    if (opened.size > MAX_BYTES) invalid(where, `${path} to have at most ${MAX_BYTES} bytes`, opened.size);
    const bytes = new Uint8Array(opened.size);
    await readFully(where, opened, bytes, 0);
    let value: unknown;
    try {
      value = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
    } catch (cause) {
      throw new InvalidArgumentError(
        `[${where}] expected ${path} to be JSON, got ${(cause as Error).message}`,
        {
          cause,
        },
      );
    }
    if (!isObject(value)) invalid(where, `${path} to hold a JSON object`, value);
    return value;
  } finally {
    await opened.file.close();
  }
}

/** Whether a JSON value is an object. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
