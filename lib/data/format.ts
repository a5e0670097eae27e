import { extname } from 'node:path';
import { invalid } from '../errors.js';
import { openRegularFile, readFully } from '../io/regularFile.js';
import { DATA } from './row.js';

/** The families of files: JSON lines and arrays; Arrow streams and files; Parquet. */
export type Format = 'json' | 'arrow' | 'parquet';

const EXTENSIONS: Readonly<Record<string, Format>> = {
  '.jsonl': 'json',
  '.ndjson': 'json',
  '.json': 'json',
  '.arrow': 'arrow',
  '.feather': 'arrow',
  '.ipc': 'arrow',
  '.parquet': 'parquet',
};
const NAMES: Readonly<Record<Format, string>> = { json: 'JSON', arrow: 'Arrow', parquet: 'Parquet' };
const COMPRESSED: readonly (readonly [magic: string, name: string])[] = [
  ['\x1f\x8b', 'gzip'],
  ['\x28\xb5\x2f\xfd', 'Zstandard'],
  ['PK\x03\x04', 'ZIP'],
  ['BZh', 'bzip2'],
  ['\xfd7zXZ', 'xz'],
];
const START_BYTES = 4096;

export const dataExtensions: readonly string[] = Object.keys(EXTENSIONS);

/** The format that a file's name promises, if it promises one. */
export function formatOfName(path: string): Format | undefined {
  return EXTENSIONS[extname(path).toLowerCase()];
}

/**
 * The format of a file, by its first bytes, which must not contradict its name.
 *
 * @throws InvalidArgumentError for a Git LFS pointer, a compressed file, a wrong extension, or none of the formats
 */
export async function formatOf(path: string): Promise<Format> {
  const opened = await openRegularFile(DATA, path);
  const start = Buffer.alloc(Math.min(START_BYTES, opened.size));
  try {
    await readFully(DATA, opened, start, 0);
  } finally {
    await opened.file.close();
  }
  const text = start.toString('latin1');
  const compressed = COMPRESSED.find(([magic]) => text.startsWith(magic));
  if (compressed !== undefined) invalid(DATA, `${path} to be unpacked`, `a ${compressed[1]} file`);
  const promised = formatOfName(path);
  const found = formatOfStart(text);
  if (promised !== undefined && found !== undefined && promised !== found) {
    invalid(
      DATA,
      `${path} to hold ${NAMES[promised]}, as its extension says`,
      `${NAMES[found]} (name it by what it holds)`,
    );
  }
  const format = found ?? promised;
  if (format === undefined) {
    invalid(
      DATA,
      `${path} to hold JSON lines, a JSON array, Parquet or Arrow`,
      `${JSON.stringify(text.slice(0, 16))}...`,
    );
  }
  if (format === 'parquet' && found === undefined) {
    invalid(DATA, `${path} to begin with PAR1, as Parquet does`, text.slice(0, 4));
  }
  return format;
}

function formatOfStart(text: string): Format | undefined {
  if (text.startsWith('PAR1')) return 'parquet';
  if (text.startsWith('ARROW1') || text.startsWith('\xff\xff\xff\xff')) return 'arrow';
  return /^(?:\xef\xbb\xbf)?\s*[{[]/.test(text) ? 'json' : undefined;
}
