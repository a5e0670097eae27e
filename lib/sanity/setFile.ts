import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import type { PerfectibleSet } from './perfectible.js';

/** The problems that a run trains on, in its folder. */
export const SET_FILE = 'set.json';

/** The perfectible set of the run in `path`. */
export async function readSet(path: string): Promise<PerfectibleSet> {
  const file = join(path, SET_FILE);
  try {
    return JSON.parse(await readFile(file, 'utf8'));
  } catch (cause) {
    throw new InvalidArgumentError(`[sanity] expected ${file} to be readable JSON`, { cause });
  }
}
