import { type ChildProcess, fork } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { InternalError, InvalidArgumentError } from '../errors.js';
import { DATA, type DatasetRow } from './row.js';
import type { TableFile, TableReply, TableRequest } from './tableProcess.js';

/** How long a piece of a table may take: this much, and what reading its whole file at a megabyte a second takes. */
const LIMIT_SECONDS = 30;
const SLOWEST_BYTES_PER_SECOND = 1e6;

/** The columns of the first of some tables. */
export async function tableColumns(files: readonly TableFile[]): Promise<readonly string[]> {
  const reader = new TableReader(files, undefined, await limitOf(files));
  try {
    return await reader.open();
  } finally {
    reader.close();
  }
}

/**
 * The rows of tables, one file after the other, read in another process.
 *
 * @param columns which columns, all where undefined; one that a file lacks is not in its rows
 * @param limitSeconds how long a piece may take before its file is taken for damaged; default by the size of the files
 */
export async function* tableRows(
  files: readonly TableFile[],
  columns: readonly string[] | undefined,
  limitSeconds?: number,
): AsyncGenerator<DatasetRow> {
  const reader = new TableReader(files, columns, limitSeconds ?? (await limitOf(files)));
  try {
    await reader.open();
    for (let rows = await reader.next(); rows !== undefined; rows = await reader.next()) yield* rows;
  } finally {
    reader.close();
  }
}

async function limitOf(files: readonly TableFile[]): Promise<number> {
  const sizes = await Promise.all(files.map(async ({ path }) => (await stat(path)).size));
  return LIMIT_SECONDS + Math.max(...sizes) / SLOWEST_BYTES_PER_SECOND;
}

/** The parent's end of a table process. */
class TableReader {
  readonly #child: ChildProcess;
  readonly #files: readonly TableFile[];
  readonly #columns: readonly string[] | undefined;
  readonly #limitSeconds: number;
  /** The file that is being read. */
  #path: string;

  constructor(files: readonly TableFile[], columns: readonly string[] | undefined, limitSeconds: number) {
    this.#files = files;
    this.#columns = columns;
    this.#limitSeconds = limitSeconds;
    this.#path = files[0]!.path;
    this.#child = fork(new URL('./tableProcess.js', import.meta.url), [], {
      serialization: 'advanced',
      execArgv: [],
      // What V8 says when it runs out of memory is no concern of the user's.
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
  }

  async open(): Promise<readonly string[]> {
    const columns = this.#columns;
    const reply = await this.#ask({
      kind: 'open',
      files: this.#files,
      ...(columns !== undefined && { columns }),
    });
    if (reply.kind !== 'columns') throw new InternalError(`a table process that answers ${reply.kind}`);
    return reply.columns;
  }

  async next(): Promise<readonly DatasetRow[] | undefined> {
    for (;;) {
      const reply = await this.#ask({ kind: 'next' });
      if (reply.kind === 'rows') return reply.rows;
      if (reply.kind === 'end') return undefined;
      if (reply.kind === 'file') this.#path = reply.path;
    }
  }

  close(): void {
    this.#child.kill('SIGKILL');
  }

  /** Sends a request and waits for its answer, the end of the process, or the limit. */
  #ask(request: TableRequest): Promise<TableReply> {
    const child = this.#child;
    const damaged = (got: string) =>
      new InvalidArgumentError(
        `[${DATA}] expected ${this.#path} to be a whole file, got ${got} (is it damaged?)`,
      );
    return new Promise((resolve, reject) => {
      if (child.exitCode !== null || child.signalCode !== null) {
        reject(
          damaged(`bytes on which its reader ended (${child.signalCode ?? `exit code ${child.exitCode}`})`),
        );
        return;
      }
      const settle = (act: () => void) => {
        clearTimeout(timer);
        child.off('message', onMessage).off('error', onError).off('exit', onExit);
        // Nobody waits for a reader whose rows are not asked for.
        child.unref();
        child.channel?.unref();
        act();
      };
      const onMessage = (message: unknown) => {
        const reply = message as TableReply;
        settle(() =>
          reply.kind === 'failed' ? reject(new InvalidArgumentError(reply.message)) : resolve(reply),
        );
      };
      const onError = (error: Error) => settle(() => reject(error));
      const onExit = (code: number | null, signal: string | null) =>
        settle(() => reject(damaged(`bytes on which its reader ended (${signal ?? `exit code ${code}`})`)));
      const timer = setTimeout(() => {
        this.close();
        settle(() => reject(damaged(`no rows within ${Math.round(this.#limitSeconds)} s`)));
      }, this.#limitSeconds * 1000);
      child.ref();
      child.channel?.ref();
      child.on('message', onMessage).on('error', onError).on('exit', onExit);
      child.send(request, (error) => {
        // A process that has ended says so itself, with more.
        if (error !== null && child.connected) onError(error);
      });
    });
  }
}
