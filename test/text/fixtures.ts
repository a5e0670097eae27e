/** Model folders that test/fixtures/text/generate.py made, with what the Python packages make of texts with them. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after } from 'node:test';
import type { ChatMessage } from '../../lib/text/chatTemplate.js';

const FIXTURES = join(import.meta.dirname, '../../../test/fixtures/text');

export const shapes = ['llama3', 'qwen2', 'r1', 'mixtral', 'metaspace'] as const;
export type Shape = (typeof shapes)[number];

export interface Fixture {
  /** The files of the folder by name: JSON values, or text. */
  readonly files: ReadonlyMap<string, unknown>;
  /** How many ids there are. */
  readonly size: number;
  readonly encoded: readonly { readonly text: string; readonly ids: number[]; readonly plain: number[] }[];
  readonly decoded: readonly { readonly ids: number[]; readonly text: string; readonly skipped: string }[];
  readonly chats: readonly {
    readonly messages: ChatMessage[];
    readonly options: Record<string, unknown>;
    readonly text: string;
  }[];
}

export async function readFixture(shape: Shape): Promise<Fixture> {
  const text = await readFile(join(FIXTURES, `${shape}.jsonl`), 'utf8');
  const rows = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const all = (name: string) => rows.filter((row) => name in row).map((row) => row[name]);
  return {
    files: new Map(rows.filter((row) => 'file' in row).map((row) => [row.file, row.content])),
    size: all('size')[0],
    encoded: all('encoded'),
    decoded: all('decoded'),
    chats: all('chat'),
  };
}

/** Lays out a model's folder, with `changes` to its files (undefined takes one away); gone after the test. */
export async function layOut(
  files: ReadonlyMap<string, unknown>,
  changes: Readonly<Record<string, unknown>> = {},
): Promise<string> {
  const folder = await temporaryFolder();
  for (const [name, content] of [...files, ...Object.entries(changes)]) {
    const path = join(folder, name);
    if (content === undefined) await rm(path, { force: true });
    else
      await writeFile(
        path,
        typeof content === 'string' || content instanceof Uint8Array ? content : JSON.stringify(content),
      );
  }
  return folder;
}

const folders: string[] = [];

/** A folder of the test file's own, removed when its tests are over. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'isopolicy-text-'));
  folders.push(folder);
  return folder;
}

after(async () => {
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
});
