/** Dumps of log-probs in files. */
import { gzipSync } from 'node:zlib';
import { type Match, pairs } from '../../lib/diagnose/pairs.js';
import { openDump } from '../../lib/diagnose/readDump.js';
import { fileOf } from '../data/fixtures.js';

/** Rows of the plain format as JSON lines. */
export function lines(rows: readonly unknown[]): string {
  return rows.map((row) => `${JSON.stringify(row)}\n`).join('');
}

/** A response of as many tokens as log-probs. */
export function response(id: string | number | undefined, logprobs: readonly unknown[], more = {}): object {
  return { id, tokens: logprobs.map((_, t) => 100 + t), logprobs, ...more };
}

export async function collectAll<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

/** All matches of two files (or one) with this content, packed where `packed` names them. */
export async function matchesOf(
  rollout: string,
  training: string | null,
  packed: '' | 'rollout' | 'training' | 'both' = '',
): Promise<Match[]> {
  const write = (name: string, text: string) =>
    packed === name || packed === 'both'
      ? fileOf(`${name}.jsonl.gz`, gzipSync(text))
      : fileOf(`${name}.jsonl`, text);
  const a = await openDump(await write('rollout', rollout));
  const b = training === null ? null : await openDump(await write('training', training));
  return collectAll(pairs(a, b));
}
