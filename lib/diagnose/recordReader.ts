/** Records of a dump in any order, by where they lie. */
import { invalid } from '../errors.js';
import { openRegularFile, type RegularFile, readFully } from '../io/regularFile.js';
import { scratchFile } from '../io/scratchFile.js';
import { DIAGNOSE } from './place.js';
import type { Dump, Location } from './readDump.js';
import type { DumpRecord } from './record.js';
import { RowsDump } from './rowsDump.js';

/** Reads the records of a dump again. */
export interface RecordSource {
  read(location: Location): DumpRecord | Promise<DumpRecord>;
  close(): Promise<void>;
}

/** Opens a dump that has been read from its first row on. */
export async function openRecords(dump: Dump | RowsDump, signal?: AbortSignal): Promise<RecordSource> {
  if (!(dump instanceof RowsDump)) return RecordReader.open(dump, signal);
  return { read: (location) => dump.read(location), close: async () => {} };
}

export class RecordReader {
  readonly #dump: Dump;
  readonly #opened: RegularFile;
  #buffer = Buffer.alloc(0);
  /** The row read last: one with several records is asked for again at once. */
  #row: { readonly start: number; readonly records: readonly DumpRecord[] } | undefined;

  private constructor(dump: Dump, opened: RegularFile) {
    this.#dump = dump;
    this.#opened = opened;
  }

  /**
   * Opens a dump that has been read from its first row on. What is packed is unpacked to a temporary file, which has no name
   * and goes with {@link close}.
   *
   * @throws InvalidArgumentError where there is no room to unpack it
   */
  static async open(dump: Dump, signal?: AbortSignal): Promise<RecordReader> {
    const opened = await openRegularFile(DIAGNOSE, dump.path);
    if (!dump.compressed) return new RecordReader(dump, opened);
    try {
      const what = `${dump.path} unpacked`;
      return new RecordReader(dump, await scratchFile(DIAGNOSE, what, dump.unpacked(opened, signal)));
    } finally {
      await opened.file.close();
    }
  }

  async read({ start, bytes, line, part }: Location): Promise<DumpRecord> {
    if (this.#row?.start !== start) {
      if (this.#buffer.length < bytes) this.#buffer = Buffer.allocUnsafe(2 * bytes);
      await readFully(DIAGNOSE, this.#opened, this.#buffer.subarray(0, bytes), start);
      this.#row = { start, records: this.#parse(this.#buffer.toString('utf8', 0, bytes), line) };
    }
    return this.#row.records[part] ?? this.#changed(line);
  }

  async close(): Promise<void> {
    await this.#opened.file.close();
  }

  /** It has been read without fault before. */
  #parse(text: string, line: number): DumpRecord[] {
    try {
      return this.#dump.parse(text, line);
    } catch {
      this.#changed(line);
    }
  }

  #changed(line: number): never {
    invalid(DIAGNOSE, `${this.#dump.path}:${line} to stay as it was`, 'a file that changes while it is read');
  }
}
