/** Tables that test/fixtures/text/tables/generate.py made, and the rows that pyarrow reads from them. */
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { DatasetRow } from '../../lib/data/row.js';
import { InvalidArgumentError } from '../../lib/errors.js';
import { temporaryFolder } from '../text/fixtures.js';

const TABLES = join(import.meta.dirname, '../../../test/fixtures/text/tables');

export function tablePath(name: string): string {
  return join(TABLES, name);
}

const lines = (await readFile(tablePath('expected.jsonl'), 'utf8')).trim().split('\n');
const expected: Record<string, unknown>[] = lines.map((line) => JSON.parse(line));

/** The rows that a table must give. */
export function expectedRows(name: string): unknown[] {
  return expected.filter((line) => line.file === name).map((line) => line.row);
}

/** A folder as `DatasetDict.save_to_disk` writes it: train in two shards, test in one. */
export async function savedFolder(): Promise<string> {
  const files: Record<string, string | Uint8Array> = {};
  for (const { saved, content } of expected) {
    if (saved !== undefined) files[saved as string] = JSON.stringify(content);
  }
  for (const shard of [
    'train/data-00000-of-00002.arrow',
    'train/data-00001-of-00002.arrow',
    'test/data-00000-of-00001.arrow',
  ]) {
    files[shard] = await readFile(tablePath(join('saved', shard)));
  }
  return folderOf(files);
}

/** A temporary folder with files in it, by their paths. */
export async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const folder = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), content);
  }
  return folder;
}

export async function fileOf(name: string, content: string | Uint8Array): Promise<string> {
  return join(await folderOf({ [name]: content }), name);
}

export async function collect(rows: AsyncIterable<DatasetRow>): Promise<DatasetRow[]> {
  const all: DatasetRow[] = [];
  for await (const row of rows) all.push(row);
  return all;
}

/** Rows as JSON has them: the numbers that a double does not hold exactly are compared elsewhere. */
export function comparable(rows: readonly DatasetRow[]): unknown[] {
  return rows.map(({ values }) =>
    JSON.parse(JSON.stringify(values, (_key, value) => (typeof value === 'bigint' ? Number(value) : value))),
  );
}

export function refuses(...messages: RegExp[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof InvalidArgumentError, String((error as Error).stack));
    for (const message of messages) assert.match(error.message, message);
    return true;
  };
}
