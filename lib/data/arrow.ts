/** Arrow tables: the IPC stream that `datasets` writes, and the IPC file, which is that stream between magic bytes. */
import type { FileHandle } from 'node:fs/promises';
import { MapRow, type RecordBatch, RecordBatchReader, StructRow, Vector } from 'apache-arrow';
import { invalid } from '../errors.js';
import { openRegularFile } from '../io/regularFile.js';
import { checkColumn } from './arrowCheck.js';
import { checkMessage } from './arrowMessage.js';
import { plainValue } from './plain.js';
import { DATA, type DatasetRow } from './row.js';
import { readBytes, readWhole, type Table } from './table.js';

const MAGIC = 'ARROW1';
/** The magic of a file is padded to eight bytes at its beginning, and follows a length of four bytes at its end. */
const FILE_START_BYTES = 8;
const FILE_END_BYTES = 4 + MAGIC.length;
const CONTINUATION = -1;

/**
 * Opens an Arrow stream or file and reads its schema. Batches are read one at a time.
 *
 * @throws InvalidArgumentError naming the file where it is cut short or damaged
 */
export async function openArrow(path: string): Promise<Table> {
  const { file, size } = await openRegularFile(DATA, path);
  try {
    const reader = await readWhole(path, 'Arrow', async () => {
      const opened = await RecordBatchReader.from(messages(path, file, size));
      return opened.open();
    });
    // A reader of something that holds no message has no schema.
    const fields = (reader.schema as typeof reader.schema | undefined)?.fields;
    if (fields === undefined) invalid(DATA, `${path} to be a whole Arrow file`, 'no schema');
    return {
      columns: fields.map((field) => field.name),
      batches: (columns) => batches(path, reader, columns),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function* batches(
  path: string,
  reader: Awaited<ReturnType<typeof RecordBatchReader.from>>,
  columns: readonly string[] | undefined,
): AsyncGenerator<DatasetRow[]> {
  const iterator = reader[Symbol.asyncIterator]() as AsyncIterator<RecordBatch>;
  let number = 0;
  for (;;) {
    const rows = await readWhole(path, 'Arrow', async () => {
      const { done, value: batch } = await iterator.next().catch((cause: Error) => {
        if (!cause.message.includes('compressed but codec')) throw cause;
        return invalid(DATA, `${path} to be uncompressed, as datasets writes it`, 'compressed buffers');
      });
      if (done) return undefined;
      // A stream without batches is read as one batch of no rows and no columns.
      return batch.numRows === 0 ? [] : rowsOf(path, batch, columns, number);
    });
    if (rows === undefined) return;
    number += rows.length;
    yield rows;
  }
}

function rowsOf(
  path: string,
  batch: RecordBatch,
  columns: readonly string[] | undefined,
  before: number,
): DatasetRow[] {
  const vectors: [name: string, vector: Vector][] = [];
  batch.schema.fields.forEach(({ name }, i) => {
    if (columns !== undefined && !columns.includes(name)) return;
    checkColumn(name, batch.data.children[i]!, batch.numRows);
    vectors.push([name, batch.getChildAt(i)!]);
  });
  return Array.from({ length: batch.numRows }, (_, i) => ({
    file: path,
    unit: 'row' as const,
    number: before + i + 1,
    values: Object.fromEntries(vectors.map(([name, vector]) => [name, plainArrow(vector.get(i))])),
  }));
}

function plainArrow(value: unknown): unknown {
  if (value instanceof Vector) return Array.from(value, plainArrow);
  if (value instanceof StructRow || value instanceof MapRow) {
    const members = value as Iterable<[name: unknown, value: unknown]>;
    return Object.fromEntries(Array.from(members, ([name, member]) => [String(name), plainArrow(member)]));
  }
  return plainValue(value);
}

/**
 * The messages of a stream, whole and one at a time. The library takes the end of its input for the end of the stream, so
 * what a cut leaves away is looked for here: a message that is not all there, a stream without its end mark.
 */
async function* messages(path: string, file: FileHandle, size: number): AsyncGenerator<Uint8Array> {
  const fail = (got: string): never => invalid(DATA, `${path} to be a whole Arrow file`, got);
  const start = await readBytes(file, 0, Math.min(size, FILE_START_BYTES));
  const isFile = start.toString('latin1', 0, MAGIC.length) === MAGIC;
  let end = size;
  if (isFile) {
    end -= FILE_END_BYTES;
    const mark = end < FILE_START_BYTES ? start : await readBytes(file, end, FILE_END_BYTES);
    if (mark.toString('latin1', 4) !== MAGIC) fail(`no ${MAGIC} at its end (is it cut short?)`);
    end -= mark.readInt32LE(0);
  }
  for (let position = isFile ? FILE_START_BYTES : 0; ; ) {
    if (position + 4 > end)
      fail(`no mark at the end of its messages, at byte ${position} (is it cut short?)`);
    const prefix = await readBytes(file, position, Math.min(8, end - position));
    // Streams before version 0.15 have the length alone.
    const prefixBytes = prefix.readInt32LE(0) === CONTINUATION ? 8 : 4;
    if (prefix.length < prefixBytes) fail(`half a message at byte ${position} (is it cut short?)`);
    const metadataBytes = prefix.readInt32LE(prefixBytes - 4);
    if (metadataBytes === 0) {
      const rest = end - position - prefixBytes;
      if (rest !== 0) fail(`${rest} bytes after its last message`);
      return;
    }
    const bodyStart = position + prefixBytes + metadataBytes;
    if (metadataBytes < 0 || bodyStart > end) fail(`half a message at byte ${position} (is it cut short?)`);
    const bodyBytes = checkMessage(await readBytes(file, position + prefixBytes, metadataBytes));
    if (bodyStart + bodyBytes > end) fail(`half a message at byte ${position} (is it cut short?)`);
    yield await readBytes(file, position, bodyStart + bodyBytes - position);
    position = bodyStart + bodyBytes;
  }
}
