/** Puts the responses of a rollout's dump and a training engine's dump side by side, in whatever order each has them. */
import { invalid } from '../errors.js';
import { IdIndex } from './idIndex.js';
import { DIAGNOSE, placeText } from './place.js';
import type { Dump, DumpEntry } from './readDump.js';
import type { DumpRecord, Place, Series, Side } from './record.js';
import { openRecords, type RecordSource } from './recordReader.js';
import type { RowsDump } from './rowsDump.js';

/** A file, or rows in memory. */
export type AnyDump = Dump | RowsDump;

/** A response with one engine's log-probs. */
export type OwnRecord = DumpRecord & { readonly own: Series };

/** One response under both engines. */
export interface Matched {
  /** Its number in the order of the rollout's file, from 0. */
  readonly index: number;
  readonly rollout: OwnRecord;
  readonly training: OwnRecord;
}

/** One response that the other side lacks. */
export interface Unmatched {
  readonly missing: Side;
  readonly place: Place;
  /** Null where it has none, or where it was not read again: only the first {@link NAMED} of training's are. */
  readonly id: string | null;
}

export type Match = Matched | Unmatched;

export interface PairsOptions {
  readonly signal?: AbortSignal;
}

/** Examples that are told of one thing; of so many responses that rollout lacks the ids are read. */
export const NAMED = 3;

/**
 * All responses of both files, each once: matched by id, in the order of the rollout's file, or by place where no response has
 * an id; then those of training without a rollout. Files in the same order are read once, side by side. From the first
 * difference on, responses of training are read in the order of rollout, by an index of some 36 bytes a response.
 *
 * @param training null: `rollout` has both engines' log-probs
 * @throws InvalidArgumentError for ids in part of the responses or twice in a file, and for files that do not hold what is asked
 *   of them; the signal's reason, once it is aborted
 */
export async function* pairs(
  rollout: AnyDump,
  training: AnyDump | null,
  { signal }: PairsOptions = {},
): AsyncGenerator<Match, void> {
  if (training === null) yield* pairsOfOne(rollout, signal);
  else yield* pairsOfTwo(rollout, training, signal);
}

async function* pairsOfOne(dump: AnyDump, signal: AbortSignal | undefined): AsyncGenerator<Match, void> {
  const ids = new KnownIds(dump, signal);
  try {
    let index = 0;
    for await (const entry of dump.entries(signal)) {
      const { both, ...record } = entry.record;
      if (both === null) {
        invalid(
          DIAGNOSE,
          `both engines' log-probs on ${placeText(record.place)}, or a second file with those of the training engine`,
          "one engine's",
        );
      }
      if (ids.expect(entry)) await ids.add(entry);
      yield {
        index: index++,
        rollout: { ...record, both, own: both.rollout },
        training: { ...record, both, own: both.training },
      };
    }
  } finally {
    await ids.close();
  }
}

async function* pairsOfTwo(
  rollout: AnyDump,
  training: AnyDump,
  signal: AbortSignal | undefined,
): AsyncGenerator<Match, void> {
  const known = new KnownIds(training, signal);
  /** Those of rollout that training lacks. */
  const alone = new KnownIds(rollout, signal);
  const left = rollout.entries(signal);
  const right = training.entries(signal);
  /** Checks what each response of a file has to have. */
  const next = async (entries: AsyncGenerator<DumpEntry, void>, ids: KnownIds) => {
    const { value } = await entries.next();
    if (!value) return undefined;
    ids.expect(value);
    return { record: ownOf(value.record), location: value.location };
  };
  try {
    let index = 0;
    let a = await next(left, alone);
    let b = await next(right, known);
    if (alone.haveIds !== known.haveIds) {
      const [having, lacking] = alone.haveIds ? [rollout, training] : [training, rollout];
      invalid(
        DIAGNOSE,
        `ids in both files, or in neither (${having.path} has them)`,
        `none in ${lacking.path}`,
      );
    }
    while (a !== undefined && b !== undefined && a.record.id === b.record.id) {
      if (known.haveIds) known.index.setPartner(await known.add(b), a.location.line);
      yield { index: index++, rollout: a.record, training: b.record };
      a = await next(left, alone);
      b = await next(right, known);
    }
    if (!known.haveIds) {
      for (; a !== undefined; a = await next(left, alone)) yield unmatched('training', a.record);
      for (; b !== undefined; b = await next(right, known)) yield unmatched('rollout', b.record);
      return;
    }
    for (; b !== undefined; b = await next(right, known)) await known.add(b);
    for (; a !== undefined; a = await next(left, alone)) {
      const { record, location } = a;
      const found = await known.find(record.id!);
      if (found === undefined) {
        await alone.add(a);
        yield unmatched('training', record);
        continue;
      }
      const before = known.index.partner(found.at);
      if (before > 0) refuseTwice(record.id!, rollout.path, before, location.line);
      known.index.setPartner(found.at, location.line);
      yield { index: index++, rollout: record, training: ownOf(found.record) };
    }
    yield* withoutPartner(known, training);
  } finally {
    await left.return();
    await right.return();
    await known.close();
    await alone.close();
  }
}

async function* withoutPartner(known: KnownIds, training: AnyDump): AsyncGenerator<Unmatched, void> {
  let named = 0;
  for (let at = 0; at < known.index.length; at++) {
    if (known.index.partner(at) > 0) continue;
    const place = { file: training.path, line: known.index.location(at).line };
    const id = named++ < NAMED ? (await known.read(at)).id : null;
    yield { missing: 'rollout', place, id };
  }
}

function unmatched(missing: Side, { id, place }: DumpRecord): Unmatched {
  return { missing, place, id };
}

/** The ids of a file that have been met. */
class KnownIds {
  readonly index = new IdIndex();
  readonly #dump: AnyDump;
  readonly #signal: AbortSignal | undefined;
  #reader: RecordSource | undefined;
  #first: DumpRecord | undefined;

  constructor(dump: AnyDump, signal: AbortSignal | undefined) {
    this.#dump = dump;
    this.#signal = signal;
  }

  /** Whether responses of this file have ids, as the first of them does. */
  get haveIds(): boolean {
    return this.#first !== undefined && this.#first.id !== null;
  }

  /** Expects an id if the first response has one, and none otherwise; whether it has. */
  expect({ record }: DumpEntry): boolean {
    this.#first ??= record;
    if ((record.id === null) !== (this.#first.id === null)) {
      const [having, lacking] = record.id === null ? [this.#first, record] : [record, this.#first];
      invalid(
        DIAGNOSE,
        `an id on ${placeText(lacking.place)}, as ${placeText(having.place)} has one`,
        'none',
      );
    }
    return record.id !== null;
  }

  /** Notes the id of an entry that must have one, and returns its number in the index. */
  async add({ record, location }: DumpEntry): Promise<number> {
    const found = await this.find(record.id!);
    if (found !== undefined) {
      refuseTwice(record.id!, this.#dump.path, this.index.location(found.at).line, location.line);
    }
    return this.index.add(record.id!, location);
  }

  /** The record with this id, read again from the file. */
  async find(id: string): Promise<{ at: number; record: DumpRecord } | undefined> {
    for (const at of this.index.candidates(id)) {
      const record = await this.read(at);
      if (record.id === id) return { at, record };
    }
    return undefined;
  }

  async read(at: number): Promise<DumpRecord> {
    this.#signal?.throwIfAborted();
    this.#reader ??= await openRecords(this.#dump, this.#signal);
    return this.#reader.read(this.index.location(at));
  }

  async close(): Promise<void> {
    await this.#reader?.close();
  }
}

/** Two files have one engine's log-probs each. */
function ownOf(record: DumpRecord): OwnRecord {
  if (isOwn(record)) return record;
  return invalid(
    DIAGNOSE,
    `one engine's log-probs on ${placeText(record.place)}, beside a second file`,
    "both engines' (give that file alone)",
  );
}

function isOwn(record: DumpRecord): record is OwnRecord {
  return record.own !== null;
}

/** Characters of an id in a message. */
const LONGEST_ID = 80;

function refuseTwice(id: string, path: string, first: number, second: number): never {
  const shown = id.length <= LONGEST_ID ? id : `${id.slice(0, LONGEST_ID)}...`;
  invalid(DIAGNOSE, `each id once in ${path}`, `id ${shown} on ${path}:${first} and ${path}:${second}`);
}
