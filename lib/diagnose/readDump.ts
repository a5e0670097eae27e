/** Dumps of log-probs, read response by response: JSON lines or one JSON array, packed with gzip or not. */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { fileChunks, type JsonText, jsonRowsOf } from '../data/json.js';
import { InternalError, invalid } from '../errors.js';
import { gunzipped, isGzip } from '../io/gunzip.js';
import { openRegularFile, type RegularFile, readFully } from '../io/regularFile.js';
import { type Format, type FormatName, formatOf } from './formats/index.js';
import { parseJson } from './parseJson.js';
import { DIAGNOSE } from './place.js';
import type { DumpRecord } from './record.js';
import { RowFormat } from './rowFormat.js';

/** What a file that is no text begins with, and what to do about it. */
const OTHERS: readonly [start: string, what: string][] = [
  ['\x28\xb5\x2f\xfd', 'a file packed with Zstandard (unpack it: zstd -d)'],
  ['\xfd7zXZ\0', 'a file packed with xz (unpack it: xz -d)'],
  ['BZh', 'a file packed with bzip2 (unpack it: bzip2 -d)'],
  ['PK\x03\x04', 'a zip archive, as of torch.save or numpy.savez (unpack it, or write JSON lines)'],
  ['PAR1', "a Parquet table (write JSON lines: DataFrame.to_json(orient='records', lines=True))"],
  ['ARROW1', 'an Arrow table (write JSON lines: Dataset.to_json)'],
  ['\xff\xfe', 'UTF-16 (write UTF-8)'],
  ['\xfe\xff', 'UTF-16 (write UTF-8)'],
];
const LONGEST_START = 8;

export interface DumpOptions {
  /** What the file is written in; found out from its first row, where it is left out. */
  readonly format?: FormatName;
}

/** Where a record lies in the unpacked bytes of its file. */
export interface Location {
  /** Offset of its row. */
  readonly start: number;
  readonly bytes: number;
  /** As in {@link Place}. */
  readonly line: number;
  /** Which of the records of its row, from 0. */
  readonly part: number;
}

/** A record, and where it can be found again. */
export interface DumpEntry {
  readonly record: DumpRecord;
  readonly location: Location;
}

/**
 * A file of log-probs for {@link Dump.entries}.
 *
 * @throws InvalidArgumentError for what is missing, empty, a folder, a Git LFS pointer or packed in a way that can't be read
 */
export async function openDump(path: string, { format }: DumpOptions = {}): Promise<Dump> {
  if (format !== undefined) formatOf(format);
  await refuseFolderOrPipe(path);
  const opened = await openRegularFile(DIAGNOSE, path);
  try {
    const start = new Uint8Array(Math.min(LONGEST_START, opened.size));
    await readFully(DIAGNOSE, opened, start, 0);
    const text = Buffer.from(start).toString('latin1');
    for (const [magic, what] of OTHERS) {
      if (text.startsWith(magic)) invalid(DIAGNOSE, `${path} to hold JSON lines or a JSON array`, what);
    }
    if (start.length === 0) invalid(DIAGNOSE, `${path} to hold responses`, 'an empty file');
    return new Dump(path, isGzip(start), format);
  } finally {
    await opened.file.close();
  }
}

/** A file of log-probs. It is open only while it is read. */
export class Dump implements AsyncIterable<DumpRecord> {
  readonly path: string;
  /** Whether it is packed with gzip. */
  readonly compressed: boolean;
  readonly #rows: RowFormat;
  #whole: { bytes: number; sha256: string; responses: number } | undefined;

  /** See {@link openDump}, which checks what the file is. */
  constructor(path: string, compressed: boolean, format: FormatName | undefined) {
    this.path = path;
    this.compressed = compressed;
    this.#rows = new RowFormat(path, format);
  }

  /** What is known of the file once it has been read to its end. */
  get whole(): { readonly bytes: number; readonly sha256: string; readonly responses: number } {
    if (this.#whole === undefined) throw new InternalError(`[${DIAGNOSE}] ${this.path} has not been read`);
    return this.#whole;
  }

  /** The format of its rows, once the first of them has been read. */
  get format(): Format {
    return this.#rows.format;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<DumpRecord, void> {
    for await (const { record } of this.entries()) yield record;
  }

  /**
   * The responses in the order of the file, each with its place. The bytes are hashed on the way, the first time.
   *
   * @throws InvalidArgumentError naming the file, the line, and what was found there; the signal's reason, once it is aborted
   */
  async *entries(signal?: AbortSignal): AsyncGenerator<DumpEntry, void> {
    const opened = await openRegularFile(DIAGNOSE, this.path);
    try {
      const hash = createHash('sha256');
      const packed = watched(opened, signal, this.#whole === undefined ? hash : undefined);
      const text = this.compressed ? gunzipped(DIAGNOSE, opened, packed) : packed;
      let responses = 0;
      for await (const { values, number, start, bytes } of jsonRowsOf(this.#json, text)) {
        signal?.throwIfAborted();
        const records = this.#rows.records(values, { file: this.path, line: number });
        for (const [part, record] of records.entries()) {
          responses++;
          yield { record, location: { start, bytes, line: number, part } };
        }
      }
      if (responses === 0) invalid(DIAGNOSE, `${this.path} to hold responses`, 'none');
      this.#whole ??= { bytes: opened.size, sha256: hash.digest('hex'), responses };
    } finally {
      await opened.file.close();
    }
  }

  /** The unpacked bytes, without a check of what is in them. */
  async *unpacked(opened: RegularFile, signal?: AbortSignal): AsyncGenerator<Buffer, void> {
    yield* gunzipped(DIAGNOSE, opened, watched(opened, signal));
  }

  /** The records of a row that `entries` has given before, from the text of it. */
  parse(text: string, line: number): DumpRecord[] {
    return this.format.records(parseJson(text) as Record<string, unknown>, { file: this.path, line });
  }

  get #json(): JsonText {
    const { path } = this;
    return { where: DIAGNOSE, path, parse: parseJson, nameLine: (line) => `${path}:${line}` };
  }
}

/** The bytes of a file, hashed on the way. */
async function* watched(
  opened: RegularFile,
  signal: AbortSignal | undefined,
  hash?: ReturnType<typeof createHash>,
): AsyncGenerator<Buffer, void> {
  for await (const chunk of fileChunks(DIAGNOSE, opened)) {
    signal?.throwIfAborted();
    hash?.update(chunk);
    yield chunk;
  }
}

async function refuseFolderOrPipe(path: string): Promise<void> {
  const entry = await stat(path).catch(() => undefined);
  if (entry?.isFIFO())
    invalid(DIAGNOSE, `${path} to be a file`, 'a pipe, which can be read only once: write it to a file');
  if (!entry?.isDirectory()) return;
  const names = (await readdir(path)).sort();
  const some = names.slice(0, 5).join(', ');
  invalid(
    DIAGNOSE,
    `${path} to be a file`,
    names.length === 0
      ? 'an empty folder'
      : `a folder (${some}${names.length > 5 ? ', ...' : ''}): give one file, or put its JSON lines together with cat`,
  );
}
