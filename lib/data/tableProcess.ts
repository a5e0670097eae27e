/**
 * Reads tables in a process of its own, forked by tables.ts. Decoding columns takes long, and damaged bytes can ask the
 * decoders for more memory than there is, which ends a process whatever it does: this one alone.
 *
 * It is asked with messages and answers each with one: first the files, then `next` for each piece of the rows.
 */
import { openArrow } from './arrow.js';
import type { Format } from './format.js';
import { openParquet } from './parquet.js';
import type { DatasetRow } from './row.js';

/** A file of columns. */
export interface TableFile {
  readonly path: string;
  readonly format: Exclude<Format, 'json'>;
}

export type TableRequest =
  | { readonly kind: 'open'; readonly files: readonly TableFile[]; readonly columns?: readonly string[] }
  | { readonly kind: 'next' };

export type TableReply =
  /** The columns of the first file. */
  | { readonly kind: 'columns'; readonly columns: readonly string[] }
  | { readonly kind: 'rows'; readonly rows: readonly DatasetRow[] }
  /** The rows of a file begin: what ends the process from here on is that file. */
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'end' }
  | { readonly kind: 'failed'; readonly message: string };

const ROWS_PER_MESSAGE = 256;

// A Ctrl-C reaches every process of the terminal; this one waits for its parent's word, and ends with it.
process.on('SIGINT', () => {});
process.on('disconnect', () => process.exit());
// Several columns of one damaged file can fail at once; the first failure is the answer.
process.on('unhandledRejection', () => {});

let replies: AsyncGenerator<TableReply>;
process.on('message', async (request: TableRequest) => {
  if (request.kind === 'open') replies = repliesOf(request.files, request.columns);
  let reply: TableReply;
  try {
    reply = (await replies.next()).value ?? { kind: 'end' };
  } catch (error) {
    reply = { kind: 'failed', message: (error as Error).message };
  }
  process.send!(reply);
});

async function* repliesOf(
  files: readonly TableFile[],
  columns: readonly string[] | undefined,
): AsyncGenerator<TableReply> {
  for (const [i, { path, format }] of files.entries()) {
    if (i > 0) yield { kind: 'file', path };
    const table = await (format === 'arrow' ? openArrow : openParquet)(path);
    try {
      if (i === 0) yield { kind: 'columns', columns: table.columns };
      for await (const rows of table.batches(columns)) {
        for (let start = 0; start < rows.length; start += ROWS_PER_MESSAGE) {
          yield { kind: 'rows', rows: rows.slice(start, start + ROWS_PER_MESSAGE) };
        }
      }
    } finally {
      await table.close();
    }
  }
}
