/**
 * The metadata of an Arrow message, checked before the library reads it. It is a flatbuffer, and the library's reader
 * of those checks nothing: a damaged length is a loop of billions, a damaged offset reads zeros.
 *
 * A flatbuffer table lies at the end of an unsigned offset. Its first word tells how far before it its vtable is; that
 * has 16-bit offsets of the fields, by their number in the schema, after two words of its own. Strings, vectors and
 * tables within a table are at unsigned offsets again, a vector with its length first. Offsets lead forwards, so there
 * are no circles. Field numbers are those of Message.fbs and Schema.fbs of Apache Arrow.
 */

/** What kind of header a message has. */
const [SCHEMA, DICTIONARY_BATCH, RECORD_BATCH] = [1, 2, 3];
/** Field nodes and buffers are structs of two 64-bit integers. */
const PAIR_BYTES = 16;
/** No type of a column is nested deeper in earnest. */
const MAX_DEPTH = 64;

/**
 * Checks a message's metadata.
 *
 * @returns the length of the body that follows it, in bytes
 * @throws Error saying what is damaged
 */
export function checkMessage(metadata: Buffer): number {
  const message = Table.root(metadata);
  const bodyBytes = Number(message.int64(3));
  if (!(bodyBytes >= 0)) throw new Error('a body of fewer than no bytes');
  const header = message.table(2);
  const kind = message.byte(1);
  if (header === undefined) throw new Error('a message without header');
  if (kind === SCHEMA) checkSchema(header);
  else if (kind === RECORD_BATCH) checkBatch(header, bodyBytes);
  else if (kind === DICTIONARY_BATCH) {
    const batch = header.table(1);
    if (batch === undefined) throw new Error('a dictionary without values');
    checkBatch(batch, bodyBytes);
  } else throw new Error(`a message of kind ${kind}`);
  return bodyBytes;
}

function checkBatch(batch: Table, bodyBytes: number): void {
  if (batch.int64(0) < 0n) throw new Error('a batch of fewer than no rows');
  for (const [length, nulls] of batch.pairs(1)) {
    if (length < 0n || nulls < 0n || nulls > length) throw new Error(`${nulls} nulls in ${length} rows`);
  }
  for (const [offset, length] of batch.pairs(2)) {
    if (offset < 0n || length < 0n || offset + length > BigInt(bodyBytes)) {
      throw new Error('a buffer beyond its message');
    }
  }
  batch.vector(4, 8);
}

function checkSchema(schema: Table): void {
  const fields = schema.tables(1);
  if (fields.length === 0) throw new Error('a schema without columns');
  checkMetadata(schema, 2);
  for (const field of fields) checkField(field, 0);
}

function checkField(field: Table, depth: number): void {
  if (depth > MAX_DEPTH) throw new Error('types nested too deeply');
  field.string(0);
  if (field.table(3) === undefined) throw new Error('a column without type');
  field.table(4)?.table(1);
  for (const child of field.tables(5)) checkField(child, depth + 1);
  checkMetadata(field, 6);
}

function checkMetadata(owner: Table, field: number): void {
  for (const pair of owner.tables(field)) {
    pair.string(0);
    pair.string(1);
  }
}

/** A table of a flatbuffer. Every read is within the buffer, or throws. */
class Table {
  readonly #bytes: Buffer;
  readonly #at: number;
  readonly #vtable: number;
  readonly #vtableBytes: number;

  static root(bytes: Buffer): Table {
    return new Table(bytes, bytes.readUInt32LE(0));
  }

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes;
    this.#at = at;
    this.#vtable = at - bytes.readInt32LE(at);
    this.#vtableBytes = bytes.readUInt16LE(this.#vtable);
    const tableBytes = bytes.readUInt16LE(this.#vtable + 2);
    if (this.#vtable + this.#vtableBytes > bytes.length || at + tableBytes > bytes.length) {
      throw new Error('a table beyond its message');
    }
  }

  byte(field: number): number {
    const at = this.#field(field);
    return at === undefined ? 0 : this.#bytes.readUInt8(at);
  }

  int64(field: number): bigint {
    const at = this.#field(field);
    return at === undefined ? 0n : this.#bytes.readBigInt64LE(at);
  }

  table(field: number): Table | undefined {
    const at = this.#target(field);
    return at === undefined ? undefined : new Table(this.#bytes, at);
  }

  string(field: number): void {
    this.vector(field, 1);
  }

  /** Where the items of a vector begin, and how many there are. */
  vector(field: number, itemBytes: number): readonly [start: number, count: number] {
    const at = this.#target(field);
    if (at === undefined) return [0, 0];
    const count = this.#bytes.readUInt32LE(at);
    if (at + 4 + count * itemBytes > this.#bytes.length) throw new Error('a list beyond its message');
    return [at + 4, count];
  }

  tables(field: number): Table[] {
    const [start, count] = this.vector(field, 4);
    return Array.from({ length: count }, (_, i) => {
      const at = start + 4 * i;
      return new Table(this.#bytes, at + this.#bytes.readUInt32LE(at));
    });
  }

  pairs(field: number): [bigint, bigint][] {
    const [start, count] = this.vector(field, PAIR_BYTES);
    return Array.from({ length: count }, (_, i) => {
      const at = start + PAIR_BYTES * i;
      return [this.#bytes.readBigInt64LE(at), this.#bytes.readBigInt64LE(at + 8)];
    });
  }

  #target(field: number): number | undefined {
    const at = this.#field(field);
    return at === undefined ? undefined : at + this.#bytes.readUInt32LE(at);
  }

  /** Where a field lies; undefined for one that has been left away. */
  #field(field: number): number | undefined {
    const slot = 4 + 2 * field;
    const offset = slot + 2 <= this.#vtableBytes ? this.#bytes.readUInt16LE(this.#vtable + slot) : 0;
    return offset === 0 ? undefined : this.#at + offset;
  }
}
