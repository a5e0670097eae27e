/** Data sets of any form, as rows: JSON lines and arrays, Parquet, Arrow; a file or a folder of them. */
import { findDataFiles } from './files.js';
import { type Format, formatOf } from './format.js';
import { jsonRows } from './json.js';
import type { DatasetRow } from './row.js';
import { tableColumns, tableRows } from './tables.js';

export interface DatasetOptions {
  /** Which part of a folder with several: `train`, `test`, ... */
  readonly split?: string;
}

/** A data set whose files have been found; made by {@link openDataset}. */
export class Dataset {
  /** What it was opened with. */
  readonly path: string;
  /** Its files, in the order of the rows. */
  readonly files: readonly string[];
  /** The columns of the first file, for JSON those of the first row. */
  readonly columns: readonly string[];
  readonly #format: Format;

  /** @internal use {@link openDataset} */
  constructor(path: string, files: readonly string[], format: Format, columns: readonly string[]) {
    this.path = path;
    this.files = files;
    this.#format = format;
    this.columns = columns;
  }

  /**
   * The rows, streamed in the order of the files: a file of several gigabytes is not held in memory, but at most a row
   * group or a batch of it. Parquet and Arrow are decoded in another process, which ends with the loop.
   *
   * @param columns the columns that are wanted; the others of a Parquet or Arrow file are then not decoded
   * @throws InvalidArgumentError naming the file, the line or row, and what was found there
   */
  async *rows(columns?: readonly string[]): AsyncGenerator<DatasetRow> {
    const format = this.#format;
    if (format === 'json') for (const file of this.files) yield* jsonRows(file);
    else
      yield* tableRows(
        this.files.map((path) => ({ path, format })),
        columns,
      );
  }
}

/**
 * Opens a data set: a file (`.jsonl`, `.json`, `.parquet`, `.arrow`), a folder that `datasets` has saved to disk, or a
 * folder of shards as on the hub. Looks at the first bytes of every file and at the columns of the first.
 *
 * @throws InvalidArgumentError for what is missing, damaged, a Git LFS pointer, or named by another format
 */
export async function openDataset(path: string, { split }: DatasetOptions = {}): Promise<Dataset> {
  const files = await findDataFiles(path, split);
  const formats: Format[] = [];
  for (const file of files) formats.push(await formatOf(file));
  const format = formats[0]!;
  const first = files[0]!;
  if (format !== 'json') {
    return new Dataset(path, files, format, await tableColumns([{ path: first, format }]));
  }
  for await (const { values } of jsonRows(first)) {
    return new Dataset(path, files, format, Object.keys(values));
  }
  return new Dataset(path, files, format, []);
}
