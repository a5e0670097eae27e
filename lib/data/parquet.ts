/** Parquet tables, a row group at a time. */
import type { FileHandle } from 'node:fs/promises';
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { invalid } from '../errors.js';
import { openRegularFile } from '../io/regularFile.js';
import { plainValue } from './plain.js';
import { DATA, type DatasetRow } from './row.js';
import { readBytes, readWhole, type Table } from './table.js';

const MAGIC_BYTES = 4;

/**
 * Opens a Parquet file and reads its footer.
 *
 * @throws InvalidArgumentError naming the file where it is cut short or damaged
 */
export async function openParquet(path: string): Promise<Table> {
  const { file, size } = await openRegularFile(DATA, path);
  try {
    if (size < 3 * MAGIC_BYTES) invalid(DATA, `${path} to be a whole Parquet file`, `${size} bytes`);
    const buffer = asyncBuffer(file, size);
    const metadata = await readWhole(path, 'Parquet', async () => {
      const footer = await parquetMetadataAsync(buffer);
      checkFooter(footer, size);
      return footer;
    });
    const names = parquetSchema(metadata).children.map((child) => child.element.name);
    return {
      columns: names,
      batches: (columns = names) =>
        batches(
          path,
          buffer,
          metadata,
          names.filter((name) => columns.includes(name)),
        ),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Expects the row groups to be as long as the table together, and their columns to lie within the file. */
function checkFooter(metadata: FileMetaData, size: number): void {
  const end = BigInt(size - metadata.metadata_length - 2 * MAGIC_BYTES);
  let rows = 0n;
  for (const group of metadata.row_groups) {
    if (group.num_rows < 0n) throw new Error('a row group of fewer than no rows');
    rows += group.num_rows;
    for (const { meta_data: column } of group.columns) {
      if (column === undefined) throw new Error('a column without description');
      const start = column.dictionary_page_offset || column.data_page_offset;
      if (start < 0n || column.total_compressed_size < 0n || start + column.total_compressed_size > end) {
        throw new Error(`column ${column.path_in_schema.join('.')} beyond the end of the data`);
      }
    }
  }
  if (rows !== metadata.num_rows) throw new Error(`${rows} rows in row groups for ${metadata.num_rows}`);
}

async function* batches(
  path: string,
  file: AsyncBuffer,
  metadata: FileMetaData,
  columns: string[],
): AsyncGenerator<DatasetRow[]> {
  let start = 0;
  for (const group of metadata.row_groups) {
    const end = start + Number(group.num_rows);
    const rows = await readWhole(path, 'Parquet', async () => {
      const objects = await parquetReadObjects({
        file,
        metadata,
        compressors,
        columns,
        rowStart: start,
        rowEnd: end,
      });
      if (objects.length !== end - start)
        throw new Error(`${objects.length} rows in a group of ${end - start}`);
      return objects.map((values, i) => ({
        file: path,
        unit: 'row' as const,
        number: start + i + 1,
        values: plainRow(values),
      }));
    });
    start = end;
    yield rows;
  }
}

function plainRow(values: Record<string, unknown>): Record<string, unknown> {
  for (const [name, value] of Object.entries(values)) {
    // Nulls are null; what pages have left away is undefined.
    if (value === undefined) throw new Error(`column ${name} with fewer values than rows`);
  }
  return plainValue(values) as Record<string, unknown>;
}

function asyncBuffer(file: FileHandle, size: number): AsyncBuffer {
  return {
    byteLength: size,
    async slice(start, end = size) {
      if (!(start >= 0 && start <= end && end <= size))
        throw new Error(`bytes ${start} to ${end} of ${size}`);
      return (await readBytes(file, start, end - start)).buffer;
    },
  };
}
