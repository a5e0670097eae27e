/** Rows of JSON, read piece by piece: a line each, or the elements of one array. */
import { InvalidArgumentError, invalid } from '../errors.js';
import { checkObject } from '../io/jsonFile.js';
import { openRegularFile, type RegularFile } from '../io/regularFile.js';
import { DATA, type DatasetRow } from './row.js';

const CHUNK_BYTES = 1 << 20;
/** Longest row: what one string of JavaScript surely holds. */
const MAX_ROW_BYTES = 2 ** 28;
/** Bytes that tell an array from lines. */
const HEAD_BYTES = 4096;
const SPREAD = ' (is it an object over several lines? Rows are one a line, or the elements of an array)';
const [NEWLINE, QUOTE, BACKSLASH, COMMA] = [0x0a, 0x22, 0x5c, 0x2c];
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];

/** What JSON is read from, and how errors speak of it. */
export interface JsonText {
  /** Where errors are said to come from. */
  readonly where: string;
  readonly path: string;
  /** Reads one row; JSON.parse, where it is left out. */
  readonly parse?: (text: string) => unknown;
  /** A line in errors; `line 3 of FILE`, where it is left out. */
  readonly nameLine?: (line: number) => string;
}

/** A row, and the bytes of the text that hold it. */
export interface JsonRow extends DatasetRow {
  readonly unit: 'line' | 'element';
  /** Offset of its first byte. */
  readonly start: number;
  readonly bytes: number;
}

/**
 * The rows of a file of JSON lines (blank lines aside) or of one JSON array of objects.
 *
 * @throws InvalidArgumentError naming the file, the line, and what was found there
 */
export async function* jsonRows(path: string): AsyncGenerator<JsonRow> {
  const opened = await openRegularFile(DATA, path);
  try {
    yield* jsonRowsOf({ where: DATA, path }, fileChunks(DATA, opened));
  } finally {
    await opened.file.close();
  }
}

/** The same of bytes that come in pieces of any size. */
export async function* jsonRowsOf(json: JsonText, bytes: AsyncGenerator<Buffer>): AsyncGenerator<JsonRow> {
  try {
    let first: Buffer = Buffer.alloc(0);
    while (first.length < HEAD_BYTES) {
      const { value, done } = await bytes.next();
      if (done) break;
      first = first.length === 0 ? value : Buffer.concat([first, value]);
    }
    const start = first.subarray(0, 3).equals(Buffer.of(0xef, 0xbb, 0xbf)) ? 3 : 0;
    const isArray = /^\s*\[/.test(first.toString('latin1', start, HEAD_BYTES));
    const chunks = placed(first, start, bytes);
    yield* isArray ? arrayRows(json, chunks) : lineRows(json, chunks);
  } finally {
    await bytes.return(undefined);
  }
}

/** The bytes of a file from its beginning to the size that it had when it was opened. */
export async function* fileChunks(
  where: string,
  { file, path, size }: RegularFile,
): AsyncGenerator<Buffer, void> {
  for (let position = 0; position < size; ) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, size - position));
    const { bytesRead } = await file.read(chunk, 0, chunk.length, position);
    if (bytesRead === 0) invalid(where, `${path} to have ${size} bytes still`, position);
    position += bytesRead;
    yield chunk.subarray(0, bytesRead);
  }
}

/** A piece of the text, and where it begins. */
interface Chunk {
  readonly bytes: Buffer;
  readonly at: number;
}

async function* placed(first: Buffer, start: number, rest: AsyncIterable<Buffer>): AsyncGenerator<Chunk> {
  let at = first.length;
  yield { bytes: first.subarray(start), at: start };
  for await (const bytes of rest) {
    yield { bytes, at };
    at += bytes.length;
  }
}

async function* lineRows(json: JsonText, chunks: AsyncIterable<Chunk>): AsyncGenerator<JsonRow> {
  const line = new Row(json);
  let number = 1;
  for await (const { bytes, at } of chunks) {
    let start = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, start)) {
      line.add(bytes.subarray(start, end), at + start, number);
      start = end + 1;
      const row = line.take('line', number, number, false);
      if (row !== undefined) yield row;
      number++;
    }
    line.add(bytes.subarray(start), at + start, number);
  }
  const row = line.take('line', number, number, true);
  if (row !== undefined) yield row;
}

/** Cuts an array at the commas between its elements: what is inside of an element is for JSON.parse to judge. */
async function* arrayRows(json: JsonText, chunks: AsyncIterable<Chunk>): AsyncGenerator<JsonRow> {
  const { where, path } = json;
  const element = new Row(json);
  let number = 0;
  let line = 1;
  /** The line on which the element begins. */
  let begin = 1;
  /** How many lists and objects are open; 0 before the array and after it. */
  let depth = 0;
  let isText = false;
  let isEscaped = false;
  let isOver = false;
  for await (const { bytes, at } of chunks) {
    let start = 0;
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!;
      if (byte === NEWLINE) line++;
      if (isText) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) isText = false;
        continue;
      }
      if (isOver && !isSpace(byte)) {
        invalid(
          where,
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
        invalid(where, `the array of ${path} to end with ]`, `} on line ${line}`);
      element.add(bytes.subarray(start, i), at + start, begin);
      start = i + 1;
      isOver = depth === 0;
      // Nothing between two commas is an element that is missing; nothing between [ and ] is an array of none.
      const isEmpty = isOver && number === 0 && element.isBlank();
      const row = isEmpty ? undefined : element.take('element', ++number, begin, false);
      if (row !== undefined) yield row;
      begin = line;
    }
    if (!isOver) element.add(bytes.subarray(start), at + start, begin);
  }
  if (!isOver) {
    invalid(
      where,
      `the array of ${path} to end with ]`,
      `the end of the file on line ${line} (is it cut short?)`,
    );
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || (byte >= 0x09 && byte <= 0x0d);
}

/** The bytes of one row, which can lie in several chunks. */
class Row {
  readonly #json: JsonText;
  #pieces: Buffer[] = [];
  #start = 0;
  #bytes = 0;
  readonly #decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

  constructor(json: JsonText) {
    this.#json = json;
  }

  /** @param at the place of the piece in the whole text */
  add(piece: Buffer, at: number, line: number): void {
    if (this.#bytes === 0) this.#start = at;
    if (piece.length > 0) this.#pieces.push(piece);
    this.#bytes += piece.length;
    if (this.#bytes > MAX_ROW_BYTES) {
      invalid(
        this.#json.where,
        `${nameOf(this.#json, 'line', line, line)} to have at most ${MAX_ROW_BYTES} bytes`,
        `${this.#bytes} or more`,
      );
    }
  }

  isBlank(): boolean {
    return this.#pieces.every((piece) => piece.every(isSpace));
  }

  /**
   * The row, whose bytes are then forgotten; nothing for a blank line.
   *
   * @param line the line on which its bytes begin
   * @param isLast whether the file ends with it, and not with an end of line: then it may be cut short
   */
  take(unit: JsonRow['unit'], number: number, line: number, isLast: boolean): JsonRow | undefined {
    const { where, path, parse = JSON.parse } = this.#json;
    const [start, bytes] = [this.#start, this.#bytes];
    const whole = this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#bytes = 0;
    const hint = isLast ? ' (the file ends there: is it cut short?)' : '';
    let text: string;
    try {
      text = this.#decoder.decode(whole);
    } catch {
      throw new InvalidArgumentError(
        `[${where}] expected ${nameOf(this.#json, 'line', line, line)} to be UTF-8, got other bytes${hint}`,
      );
    }
    // White space before an element can have lines of its own.
    const blank = /^\s*/.exec(text)![0];
    if (unit === 'line' && blank.length === text.length) return undefined;
    const what = nameOf(this.#json, unit, number, line + blank.split('\n').length - 1);
    let values: unknown;
    try {
      values = parse(text);
    } catch (cause) {
      throw new InvalidArgumentError(
        `[${where}] expected ${what} to be JSON, got ${excerpt(text.trim())}${text.trim() === '{' ? SPREAD : hint}`,
        { cause },
      );
    }
    return { file: path, unit, number, values: checkObject(where, what, values), start, bytes };
  }
}

/** A row for errors. */
function nameOf({ path, nameLine }: JsonText, unit: JsonRow['unit'], number: number, line: number): string {
  if (unit === 'element') return `element ${number} (line ${line}) of ${path}`;
  return nameLine?.(line) ?? `line ${line} of ${path}`;
}

/** The beginning and the end of a text, where most of what is wrong with a row can be seen. */
function excerpt(text: string): string {
  const shown = text.length <= 80 ? text : `${text.slice(0, 50)} ... ${text.slice(-25)}`;
  return text === '' ? 'nothing' : JSON.stringify(shown);
}
