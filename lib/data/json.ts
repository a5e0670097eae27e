/** Rows of JSON, read piece by piece: a line each, or the elements of one array. */
import type { FileHandle } from 'node:fs/promises';
import { InvalidArgumentError, invalid } from '../errors.js';
import { kindOf } from '../io/jsonFile.js';
import { openRegularFile } from '../io/regularFile.js';
import { DATA, type DatasetRow } from './row.js';

const CHUNK_BYTES = 1 << 20;
/** Longest row: what one string of JavaScript surely holds. */
const MAX_ROW_BYTES = 2 ** 28;
const [NEWLINE, QUOTE, BACKSLASH, COMMA] = [0x0a, 0x22, 0x5c, 0x2c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/**
 * The rows of a file of JSON lines (blank lines aside) or of one JSON array of objects.
 *
 * @throws InvalidArgumentError naming the file, the line, and what was found there
 */
export async function* jsonRows(path: string): AsyncGenerator<DatasetRow> {
  const { file, size } = await openRegularFile(DATA, path);
  try {
    const chunks = chunksOf(path, file, size);
    const first = (await chunks.next()).value as Buffer | undefined;
    if (first === undefined) return;
    const start = first.subarray(0, 3).equals(Buffer.of(0xef, 0xbb, 0xbf)) ? first.subarray(3) : first;
    const isArray = /^\s*\[/.test(start.toString('latin1', 0, 4096));
    yield* (isArray ? arrayRows : lineRows)(path, start, chunks);
  } finally {
    await file.close();
  }
}

type Chunks = AsyncGenerator<Buffer>;

async function* chunksOf(path: string, file: FileHandle, size: number): Chunks {
  for (let position = 0; position < size; ) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - position));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) invalid(DATA, `${path} to have ${size} bytes still`, position);
    position += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}

async function* lineRows(path: string, first: Buffer, chunks: Chunks): AsyncGenerator<DatasetRow> {
  const line = new Pieces(path);
  let number = 0;
  for (let chunk: Buffer | undefined = first; chunk !== undefined; chunk = (await chunks.next()).value) {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      number++;
      line.add(chunk.subarray(start, end), number);
      start = end + 1;
      const text = line.take(number);
      if (text.trim() !== '') yield rowOf(path, 'line', number, `line ${number}`, text);
    }
    line.add(chunk.subarray(start), number + 1);
  }
  const text = line.take(number + 1);
  if (text.trim() !== '') yield rowOf(path, 'line', number + 1, `line ${number + 1}`, text);
}

/** Cuts an array at the commas between its elements: what is inside of an element is for JSON.parse to judge. */
async function* arrayRows(path: string, first: Buffer, chunks: Chunks): AsyncGenerator<DatasetRow> {
  const element = new Pieces(path);
  let number = 0;
  let line = 1;
  /** The line on which the element begins. */
  let begin = 1;
  /** How many lists and objects are open; 0 before the array and after it. */
  let depth = 0;
  let isText = false;
  let isEscaped = false;
  let isOver = false;
  for (let chunk: Buffer | undefined = first; chunk !== undefined; chunk = (await chunks.next()).value) {
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (byte === NEWLINE) line++;
      if (isText) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) isText = false;
        continue;
      }
      if (isOver && !isSpace(byte)) {
        invalid(
          DATA,
          `nothing after the array of ${path}`,
          `${JSON.stringify(String.fromCharCode(byte))} on line ${line}`,
        );
      }
      if (byte === QUOTE) isText = true;
      else if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
        if (depth++ === 0) {
          start = i + 1;
          begin = line;
        }
      } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) depth--;
      else if (byte !== COMMA) continue;
      if (!(depth === 0 || (depth === 1 && byte === COMMA))) continue;
      if (depth === 0 && byte !== CLOSE_LIST)
        invalid(DATA, `the array of ${path} to end with ]`, `} on line ${line}`);
      element.add(chunk.subarray(start, i), begin);
      start = i + 1;
      isOver = depth === 0;
      const text = element.take(begin);
      const isEmpty = text.trim() === '';
      if (!(isEmpty && isOver && number === 0)) {
        number++;
        // White space before an element can have lines of its own.
        const lines = /^\s*/.exec(text)![0].split('\n').length - 1;
        yield rowOf(path, 'element', number, `element ${number} (line ${begin + lines})`, text);
      }
      begin = line;
    }
    if (!isOver) element.add(chunk.subarray(start), begin);
  }
  if (!isOver) {
    invalid(
      DATA,
      `the array of ${path} to end with ]`,
      `the end of the file on line ${line} (is it cut short?)`,
    );
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** The bytes of one row, which can lie in several chunks. */
class Pieces {
  readonly #path: string;
  #pieces: Buffer[] = [];
  #bytes = 0;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(path: string) {
    this.#path = path;
  }

  add(piece: Buffer, line: number): void {
    if (piece.length > 0) this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes > MAX_ROW_BYTES) {
      invalid(
        DATA,
        `line ${line} of ${this.#path} to have at most ${MAX_ROW_BYTES} bytes`,
        `${this.#bytes} or more`,
      );
    }
  }

  /** The text of all, which are then forgotten. */
  take(line: number): string {
    const bytes = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#bytes = 0;
    try {
      return this.#decoder.decode(bytes);
    } catch {
      invalid(DATA, `line ${line} of ${this.#path} to be UTF-8`, 'other bytes');
    }
  }
}

function rowOf(
  path: string,
  unit: DatasetRow['unit'],
  number: number,
  what: string,
  text: string,
): DatasetRow {
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (cause) {
    throw new InvalidArgumentError(
      `[${DATA}] expected ${what} of ${path} to be JSON, got ${excerpt(text.trim())}`,
      {
        cause,
      },
    );
  }
  if (typeof values !== 'object' || values === null || Array.isArray(values)) {
    invalid(DATA, `${what} of ${path} to be a JSON object`, kindOf(values));
  }
  return { file: path, unit, number, values: values as Record<string, unknown> };
}

/** The beginning and the end of a text, where most of what is wrong with a row can be seen. */
function excerpt(text: string): string {
  const shown = text.length <= 80 ? text : `${text.slice(0, 50)} ... ${text.slice(-25)}`;
  return text === '' ? 'nothing' : JSON.stringify(shown);
}
