import { createHash } from 'node:crypto';
import { InternalError, InvalidArgumentError, invalid } from '../errors.js';
import { isObject, kindOf } from '../io/jsonFile.js';
import type { Format, FormatName } from './formats/index.js';
import { DIAGNOSE } from './place.js';
import type { DumpEntry, Location } from './readDump.js';
import type { DumpRecord } from './record.js';
import { RowFormat } from './rowFormat.js';

/** Rows that are in memory, as a dump. A typed array in a row is as an array of numbers. */
export class RowsDump {
  /** What stands for a file's name. */
  readonly path: string;
  readonly compressed = false;
  readonly #values: readonly object[];
  readonly #rows: RowFormat;
  #whole: { bytes: number; sha256: string; responses: number } | undefined;

  /** @param name such as `rollout` */
  constructor(name: string, values: readonly object[], format: FormatName | undefined) {
    this.path = name;
    this.#values = values;
    this.#rows = new RowFormat(name, format);
  }

  get format(): Format {
    return this.#rows.format;
  }

  /** Bytes and hash are those of the rows as JSON lines. */
  get whole(): { readonly bytes: number; readonly sha256: string; readonly responses: number } {
    if (this.#whole === undefined) throw new InternalError(`[${DIAGNOSE}] ${this.path} has not been read`);
    return this.#whole;
  }

  /** The responses in order. @throws InvalidArgumentError naming the row and what was found there */
  async *entries(signal?: AbortSignal): AsyncGenerator<DumpEntry, void> {
    const hash = createHash('sha256');
    let [bytes, responses] = [0, 0];
    for (let at = 0; at < this.#values.length; at++) {
      signal?.throwIfAborted();
      const line = this.#lineOf(at);
      hash.update(line);
      bytes += Buffer.byteLength(line);
      for (const [part, record] of this.#recordsOf(at).entries()) {
        responses++;
        yield { record, location: { start: at, bytes: 0, line: at + 1, part } };
      }
    }
    if (responses === 0) invalid(DIAGNOSE, `${this.path} to hold responses`, 'none');
    this.#whole = { bytes, sha256: hash.digest('hex'), responses };
  }

  /** A record that `entries` has given. */
  read({ start, part }: Location): DumpRecord {
    return this.#recordsOf(start)[part]!;
  }

  #recordsOf(at: number): DumpRecord[] {
    return this.#rows.records(this.#rowOf(at), { file: this.path, line: at + 1 });
  }

  #rowOf(at: number): Record<string, unknown> {
    const row: unknown = this.#values[at];
    if (!isObject(row)) invalid(DIAGNOSE, `${this.path}:${at + 1} to be an object`, kindOf(row));
    return Object.fromEntries(
      Object.entries(row).map(([name, value]) => [name, isTyped(value) ? Array.from(value) : value]),
    );
  }

  #lineOf(at: number): string {
    try {
      return `${JSON.stringify(this.#rowOf(at))}\n`;
    } catch (error) {
      if (error instanceof InvalidArgumentError) throw error;
      return invalid(DIAGNOSE, `${this.path}:${at + 1} to hold what JSON can`, (error as Error).message);
    }
  }
}

function isTyped(value: unknown): value is ArrayLike<unknown> {
  return ArrayBuffer.isView(value) && !(value instanceof DataView);
}
