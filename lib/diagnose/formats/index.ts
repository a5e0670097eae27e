/** The formats of dumps, by name and by the looks of a row. */
import { checkChoice } from '../../errors.js';
import { DIAGNOSE } from '../place.js';
import { type Format, type FormatName, formatNames } from './format.js';
import { plain } from './plain.js';
import { primeRl } from './primeRl.js';
import { sglang } from './sglang.js';
import { slime } from './slime.js';
import { trl } from './trl.js';
import { verl } from './verl.js';
import { vllm } from './vllm.js';

export { type Format, type FormatName, formatNames } from './format.js';

const formats: readonly Format[] = [plain, verl, trl, vllm, sglang, primeRl, slime];

/**
 * The format of this name.
 *
 * @throws InvalidArgumentError where there is none
 */
export function formatOf(name: FormatName): Format {
  const known = checkChoice(DIAGNOSE, 'format', name, formatNames);
  return formats.find((format) => format.name === known)!;
}

/** The format that a row is of; undefined where it looks like none. */
export function detectFormat(row: Readonly<Record<string, unknown>>): Format | undefined {
  return formats.find((format) => format.detects(row));
}
