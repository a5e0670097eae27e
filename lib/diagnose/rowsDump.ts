import { createHash } from 'node:crypto';
import { invalid } from '../errors.js';
import { isObject, kindOf } from '../io/jsonFile.js';
import type { Format, FormatName } from './formats/index.js';
import { DIAGNOSE } from './place.js';
import type { DumpEntry, Location } from './readDump.js';
import type { DumpRecord } from './record.js';
import { RowFormat } from './rowFormat.js';

/** Rows that are in memory, as a dump. */
export class RowsDump {
  /** What stands for a file's name. */
  readonly path: string;
  readonly compressed = false;
  readonly #values: readonly object[];
  readonly #rows: RowFormat;
  #responses = 0;

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
    const hash = createHash('sha256');
    let bytes = 0;
    for (const row of this.#values) {
      const line = `${JSON.stringify(row)}\n`;
      hash.update(line);
      bytes += Buffer.byteLength(line);
    }
    return { bytes, sha256: hash.digest('hex'), responses: this.#responses };
  }

  /** The responses in order. @throws InvalidArgumentError naming the row and what was found there */
  async *entries(signal?: AbortSignal): AsyncGenerator<DumpEntry, void> {
    this.#responses = 0;
    for (let at = 0; at < this.#values.length; at++) {
      signal?.throwIfAborted();
      for (const [part, record] of this.#recordsOf(at).entries()) {
        this.#responses++;
        yield { record, location: { start: at, bytes: 0, line: at + 1, part } };
      }
    }
    if (this.#responses === 0) invalid(DIAGNOSE, `${this.path} to hold responses`, 'none');
  }

  /** A record that `entries` has given. */
  read({ start, part }: Location): DumpRecord {
    return this.#recordsOf(start)[part]!;
  }

  #recordsOf(at: number): DumpRecord[] {
    const row: unknown = this.#values[at];
    if (!isObject(row)) invalid(DIAGNOSE, `${this.path}:${at + 1} to be an object`, kindOf(row));
    return this.#rows.records(row, { file: this.path, line: at + 1 });
  }
}
