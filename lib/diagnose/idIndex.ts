/** Where the response with an id lies in its file, for millions of ids, without holding the ids. */
import type { Location } from './readDump.js';

/** Entries are kept in blocks of this many, so that growing copies none. */
const BLOCK = 2 ** 14;
const FIRST_SLOTS = 2 ** 10;
const NONE = -1;

interface Block {
  readonly hashes: Float64Array;
  readonly starts: Float64Array;
  readonly bytes: Uint32Array;
  readonly lines: Uint32Array;
  readonly partners: Uint32Array;
  /** Made where a row has more than one record. */
  parts: Uint32Array | undefined;
}

/**
 * A hash table with open addressing, linear probing and at most three entries for four slots, of 53-bit hashes: about 36
 * bytes an id. Two ids can have one hash, so what is found has to be read and compared: see {@link candidates}.
 */
export class IdIndex {
  #slots = new Int32Array(FIRST_SLOTS).fill(NONE);
  readonly #blocks: Block[] = [];
  #length = 0;
  readonly #hash: (id: string) => number;

  /** @param hash for tests */
  constructor(hash: (id: string) => number = hashOf) {
    this.#hash = hash;
  }

  get length(): number {
    return this.#length;
  }

  /** Adds an id without a look at whether it is there, and returns its number: 0, 1, ... */
  add(id: string, location: Location): number {
    if (4 * (this.#length + 1) > 3 * this.#slots.length) this.#grow();
    const at = this.#length++;
    const i = at % BLOCK;
    if (i === 0) this.#blocks.push(newBlock());
    const block = this.#blocks.at(-1)!;
    block.hashes[i] = this.#hash(id);
    block.starts[i] = location.start;
    block.bytes[i] = location.bytes;
    block.lines[i] = location.line;
    if (location.part > 0) {
      block.parts ??= new Uint32Array(BLOCK);
      block.parts[i] = location.part;
    }
    this.#place(at, block.hashes[i]!);
    return at;
  }

  /** Numbers of the entries with this id's hash: the id's own, if it was added, and by chance another's. */
  *candidates(id: string): Generator<number, void> {
    const hash = this.#hash(id);
    const mask = this.#slots.length - 1;
    for (let slot = hash & mask; this.#slots[slot] !== NONE; slot = (slot + 1) & mask) {
      const at = this.#slots[slot]!;
      if (this.#block(at).hashes[at % BLOCK] === hash) yield at;
    }
  }

  location(at: number): Location {
    const { starts, bytes, lines, parts } = this.#block(at);
    const i = at % BLOCK;
    return { start: starts[i]!, bytes: bytes[i]!, line: lines[i]!, part: parts?.[i] ?? 0 };
  }

  /** The line of the same id in the other file; 0 as long as none has been set. */
  partner(at: number): number {
    return this.#block(at).partners[at % BLOCK]!;
  }

  setPartner(at: number, line: number): void {
    this.#block(at).partners[at % BLOCK] = line;
  }

  #block(at: number): Block {
    return this.#blocks[Math.floor(at / BLOCK)]!;
  }

  #place(at: number, hash: number): void {
    const mask = this.#slots.length - 1;
    let slot = hash & mask;
    while (this.#slots[slot] !== NONE) slot = (slot + 1) & mask;
    this.#slots[slot] = at;
  }

  #grow(): void {
    this.#slots = new Int32Array(2 * this.#slots.length).fill(NONE);
    for (let at = 0; at < this.#length; at++) this.#place(at, this.#block(at).hashes[at % BLOCK]!);
  }
}

function newBlock(): Block {
  return {
    hashes: new Float64Array(BLOCK),
    starts: new Float64Array(BLOCK),
    bytes: new Uint32Array(BLOCK),
    lines: new Uint32Array(BLOCK),
    partners: new Uint32Array(BLOCK),
    parts: undefined,
  };
}

/** 53 bits of a string: two multiplicative hashes of 32 bits that mix into each other at the end (as in MurmurHash3). */
function hashOf(id: string): number {
  let low = 0xdeadbeef;
  let high = 0x41c6ce57;
  for (let i = 0; i < id.length; i++) {
    const code = id.charCodeAt(i);
    low = Math.imul(low ^ code, 0x9e3779b1);
    high = Math.imul(high ^ code, 0x5f356495);
  }
  low = Math.imul(low ^ (low >>> 16), 0x85ebca6b) ^ Math.imul(high ^ (high >>> 13), 0xc2b2ae35);
  high = Math.imul(high ^ (high >>> 16), 0x85ebca6b) ^ Math.imul(low ^ (low >>> 13), 0xc2b2ae35);
  return (high >>> 11) * 2 ** 32 + (low >>> 0);
}
