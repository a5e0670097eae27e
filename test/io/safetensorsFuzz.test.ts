/**
 * Broken, mangled and random input to everything that reads a model's files: it is accepted, and then every byte that is
 * read is the right one, or it is refused with an InvalidArgumentError. ISOPOLICY_FUZZ_RUNS=1000000 for a long run.
 */
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { openCheckpoint } from '../../lib/io/checkpointFiles.js';
import { openSafetensors } from '../../lib/io/safetensors.js';
import {
  parseSafetensorsHeader,
  type SafetensorsDtype,
  safetensorsDtypes,
} from '../../lib/io/safetensorsHeader.js';

const runs = Number(process.env.ISOPOLICY_FUZZ_RUNS ?? 2000);
const encoder = new TextEncoder();

const dtype = fc.constantFrom(...(Object.keys(safetensorsDtypes) as SafetensorsDtype[]));
const shape = fc.array(fc.integer({ min: 0, max: 3 }), { maxLength: 3 });
const name = fc.oneof(
  fc.constantFrom('a', 'b', 'model.norm.weight', '0', '__proto__', '__metadata__', 'ü"\\\n'),
  fc.string({ unit: 'grapheme', maxLength: 4 }),
);

/** Where a tensor is said to begin and end, less where it should: nothing, most of the time. */
const shift = fc.oneof(
  { weight: 9, arbitrary: fc.constant([0, 0] as const) },
  { weight: 1, arbitrary: fc.integer({ min: -4, max: 4 }).map((by) => [by, by] as const) },
  { weight: 1, arbitrary: fc.tuple(fc.integer({ min: -4, max: 4 }), fc.integer({ min: -4, max: 4 })) },
);

/** A right header of some tensors, most of the time, and the length of their data. */
const header = fc
  .record({
    tensors: fc.array(fc.record({ name, dtype, shape, shift }), { maxLength: 4 }),
    metadata: fc.option(fc.dictionary(fc.string({ maxLength: 3 }), fc.string({ maxLength: 3 }))),
    padding: fc.nat({ max: 8 }),
  })
  .map(({ tensors, metadata, padding }) => {
    let end = 0;
    const members = tensors.map(({ name, dtype, shape, shift }) => {
      const begin = end;
      end += shape.reduce((product, d) => product * d, safetensorsDtypes[dtype]);
      const range = [begin + shift[0], end + shift[1]];
      return `${JSON.stringify(name)}:{"dtype":"${dtype}","shape":[${shape}],"data_offsets":[${range}]}`;
    });
    if (metadata) members.push(`"__metadata__":${JSON.stringify(metadata)}`);
    return { text: `{${members.join(',')}}${' '.repeat(padding)}`, dataBytes: end };
  });

const fragment = fc.oneof(
  fc.constantFrom(
    ...'{}[]:,"\\ \n\t0129.-+eEu\0'.split(''),
    '"dtype":"F32",',
    '"shape":[2],',
    '"data_offsets":[0,8]',
    '"__metadata__":{}',
    '9007199254740993',
    '18446744073709551616',
    '1e400',
    'null',
    'true',
    '\\ud800',
    '\\u0061',
    '[[[[',
  ),
  fc.string({ unit: 'binary', maxLength: 3 }),
);

/** What happens to a text: pieces are cut out, put in, or doubled. */
const edits = fc.array(
  fc.record({ at: fc.nat(), cut: fc.nat({ max: 6 }), put: fc.option(fragment), again: fc.boolean() }),
  { maxLength: 4 },
);

function edited(text: string, changes: typeof edits extends fc.Arbitrary<infer T> ? T : never): string {
  let result = text;
  for (const { at, cut, put, again } of changes) {
    const begin = at % (result.length + 1);
    const piece = again ? result.slice(begin, begin + 8 * cut) : '';
    result = result.slice(0, begin) + piece + (put ?? '') + result.slice(begin + (again ? 0 : cut));
  }
  // An edit may leave half a surrogate pair, which no UTF-8 holds.
  return Buffer.from(result).toString();
}

/** Whether `body` accepts its input; an error other than the one for bad input fails the test. */
async function accepts(body: () => Promise<void> | void): Promise<boolean> {
  try {
    await body();
    return true;
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    return false;
  }
}

/** Asserts that a good share of the input was accepted, and of the other refused: that both paths were walked. */
function assertBoth(accepted: number): void {
  assert.ok(accepted > runs / 50 && accepted < runs - runs / 50, `${accepted} of ${runs} accepted`);
}

describe('fuzzing', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'isopolicy-fuzz-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('headers: what is accepted means what JSON says, and covers the data', async () => {
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(
        header,
        edits,
        fc.integer({ min: -3, max: 3 }),
        async ({ text, dataBytes }, changes, off) => {
          const changed = edited(text, changes);
          const size = Math.max(0, dataBytes + (changes.length === 0 ? off : 0));
          const good = await accepts(() => {
            const { tensors, metadata } = parseSafetensorsHeader(encoder.encode(changed), size);
            const { __metadata__: stored = {}, ...others } = JSON.parse(changed);
            assert.deepEqual(Object.fromEntries(metadata), stored);
            assert.deepEqual([...tensors.keys()].sort(), Object.keys(others).sort());
            const covered = new Uint8Array(size);
            for (const [key, { dtype, shape, offset, bytes }] of tensors) {
              assert.deepEqual({ dtype, shape, data_offsets: [offset, offset + bytes] }, others[key]);
              assert.equal(
                bytes,
                shape.reduce((product, d) => product * d, safetensorsDtypes[dtype]),
              );
              for (let i = offset; i < offset + bytes; i++) covered[i]!++;
            }
            assert.ok(covered.every((times) => times === 1));
          });
          if (good) accepted++;
        },
      ),
      { seed: 1, numRuns: runs },
    );
    assertBoth(accepted);
  });

  it('files: what is accepted is read byte for byte, within the file', async () => {
    const path = join(folder, 'fuzz.safetensors');
    const change = fc.record({ at: fc.nat(), value: fc.integer({ min: 0, max: 255 }) });
    const spec = fc.record({
      header,
      edits: fc.array(change, { maxLength: 3 }),
      /** Bytes put on the end (or cut off). */
      longer: fc.oneof(fc.constant(0), fc.integer({ min: -20, max: 20 })),
      /** What the length says more than there is. */
      length: fc.oneof(
        { weight: 8, arbitrary: fc.constant(0n) },
        fc.bigInt({ min: -16n, max: 16n }),
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      ),
      range: fc.tuple(fc.nat({ max: 40 }), fc.nat({ max: 40 })),
    });
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(spec, async ({ header: { text, dataBytes }, edits, longer, length, range }) => {
        const json = encoder.encode(text);
        const bytes = Buffer.alloc(Math.max(0, 8 + json.length + dataBytes + longer));
        const prefix = Buffer.alloc(8);
        prefix.writeBigUInt64LE(BigInt.asUintN(64, BigInt(json.length) + length));
        prefix.copy(bytes);
        bytes.set(json.subarray(0, Math.max(0, bytes.length - 8)), Math.min(8, bytes.length));
        for (let i = 8 + json.length; i < bytes.length; i++) bytes[i] = (i * 37) % 251;
        for (const { at, value } of edits) if (bytes.length > 0) bytes[at % bytes.length] = value;
        await writeFile(path, bytes);
        const good = await accepts(async () => {
          await using file = await openSafetensors(path);
          const dataStart = 8 + Number(bytes.readBigUInt64LE());
          const stored = JSON.parse(bytes.toString('utf8', 8, dataStart));
          for (const [key, { bytes: count }] of file.tensors) {
            const read = new Uint8Array(await file.read(key));
            const [first, last] = stored[key].data_offsets;
            assert.ok(dataStart + last <= bytes.length);
            assert.deepEqual(read, Uint8Array.from(bytes.subarray(dataStart + first, dataStart + last)));
            assert.equal(read.length, count);
            const [begin, end] = range;
            const inside = begin <= end && end <= count;
            const part = file.read(key, { begin, end });
            if (inside) assert.deepEqual(new Uint8Array(await part), read.slice(begin, end));
            else await assert.rejects(part, InvalidArgumentError);
          }
        });
        if (good) accepted++;
      }),
      { seed: 2, numRuns: runs },
    );
    assertBoth(accepted);
  });

  it('indexes: what is accepted has each tensor where it is said to be', async () => {
    const dir = join(folder, 'sharded');
    await mkdir(dir);
    const shard = (names: readonly string[], value: number) => {
      const members = names.map(
        (name, i) => `"${name}":{"dtype":"U8","shape":[2],"data_offsets":[${2 * i},${2 * i + 2}]}`,
      );
      const text = `{${members.join(',')}}`;
      const prefix = Buffer.alloc(8);
      prefix.writeBigUInt64LE(BigInt(text.length));
      return Buffer.concat([prefix, encoder.encode(text), Buffer.alloc(2 * names.length, value)]);
    };
    await writeFile(join(dir, 'one.safetensors'), shard(['a'], 1));
    await writeFile(join(dir, 'two.safetensors'), shard(['b', 'c'], 2));
    await writeFile(join(dir, 'again.safetensors'), shard(['a'], 3));
    await writeFile(join(folder, 'out.safetensors'), shard(['a'], 4));
    const file = fc.constantFrom(
      'one.safetensors',
      'two.safetensors',
      'again.safetensors',
      'none.safetensors',
      '../out.safetensors',
      join(folder, 'out.safetensors'),
      '.',
      '..',
      '',
      'model.safetensors.index.json',
    );
    const index = fc.oneof(
      fc.constant({
        weight_map: { a: 'one.safetensors', b: 'two.safetensors', c: 'two.safetensors' },
        metadata: { total_size: 4 },
      }),
      fc.record({
        weight_map: fc.dictionary(fc.constantFrom('a', 'b', 'c'), file),
        metadata: fc.jsonValue(),
      }),
      fc.record({ weight_map: fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 1 })) }),
      fc.jsonValue(),
    );
    let accepted = 0;
    await fc.assert(
      fc.asyncProperty(index, edits, async (value, changes) => {
        const text = edited(JSON.stringify(value), changes);
        await writeFile(join(dir, 'model.safetensors.index.json'), text);
        const good = await accepts(async () => {
          await using checkpoint = await openCheckpoint(dir);
          const found: Record<string, number> = {};
          for (const key of checkpoint.tensors.keys()) {
            found[key] = new Uint8Array(await checkpoint.read(key))[0]!;
          }
          const wanted = Object.entries(JSON.parse(text).weight_map).map(([key, file]) => [
            key,
            { 'one.safetensors': 1, 'two.safetensors': 2, 'again.safetensors': 3 }[file as string],
          ]);
          assert.deepEqual(found, Object.fromEntries(wanted));
        });
        if (good) accepted++;
      }),
      { seed: 3, numRuns: runs },
    );
    assertBoth(accepted);
  });
});
