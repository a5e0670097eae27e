import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { InvalidArgumentError } from '../../lib/errors.js';
import { listNames, openCheckpoint, writeCheckpoint } from '../../lib/io/checkpointFiles.js';
import { openSafetensors, type SafetensorsEntry, writeSafetensors } from '../../lib/io/safetensors.js';

const WHOLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12345\n`;

function bytes(name: string, ...values: number[]): SafetensorsEntry {
  return { name, dtype: 'U8', shape: [values.length], data: Uint8Array.from(values) };
}

describe('a model folder', () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'isopolicy-checkpoint-'));
  });
  afterEach(() => rm(dir, { recursive: true }));

  /** Two shards with their index, as every case begins. */
  async function shards(): Promise<void> {
    await writeSafetensors(join(dir, 'one.safetensors'), [bytes('a', 1, 2), bytes('b', 3)]);
    await writeSafetensors(join(dir, 'two.safetensors'), [bytes('c', 4, 5, 6)]);
    await index({ a: 'one.safetensors', b: 'one.safetensors', c: 'two.safetensors' });
  }
  const index = (weight_map: unknown, metadata: unknown = { total_size: 6 }) =>
    writeFile(join(dir, INDEX), JSON.stringify({ metadata, weight_map }));

  async function refused(...patterns: RegExp[]): Promise<void> {
    await assert.rejects(openCheckpoint(dir), (error) => {
      assert.ok(error instanceof InvalidArgumentError, String(error));
      for (const pattern of patterns) assert.match(error.message, pattern);
      return true;
    });
  }

  async function contents(): Promise<Record<string, number[]>> {
    await using checkpoint = await openCheckpoint(dir);
    const found: Record<string, number[]> = {};
    for (const name of checkpoint.tensors.keys())
      found[name] = [...new Uint8Array(await checkpoint.read(name))];
    return found;
  }

  it('is one file, or shards as the index says', async () => {
    await shards();
    assert.deepEqual(await contents(), { a: [1, 2], b: [3], c: [4, 5, 6] });
    await using checkpoint = await openCheckpoint(dir);
    const { dtype, shape, bytes: count } = checkpoint.tensors.get('c')!;
    assert.deepEqual({ dtype, shape, count }, { dtype: 'U8', shape: [3], count: 3 });
    assert.deepEqual([...new Uint8Array(await checkpoint.read('c', { begin: 1, end: 3 }))], [5, 6]);
    assert.deepEqual((await checkpoint.read('c', { begin: 3, end: 3 })).byteLength, 0);
    for (const [begin, end] of [
      [0, 4],
      [2, 1],
      [-1, 1],
      [0.5, 1],
      [0, Number.NaN],
    ] as const) {
      await assert.rejects(checkpoint.read('c', { begin, end }), /a range within the 3 bytes of c/);
    }
    await assert.rejects(checkpoint.read('d'), /\[checkpoint\] expected a tensor of .*, got "d"/);
    await checkpoint.close();
    await checkpoint.close();
    await assert.rejects(checkpoint.read('c'), /to be open, got "closed"/);

    // With both, the single file counts.
    await writeSafetensors(join(dir, WHOLE), [bytes('z', 9)]);
    assert.deepEqual(await contents(), { z: [9] });
  });

  it('does not need total_size, nor believes it', async () => {
    await shards();
    const map = { a: 'one.safetensors', b: 'one.safetensors', c: 'two.safetensors' };
    for (const metadata of [undefined, {}, { total_size: 1e18 }, 'none']) {
      await index(map, metadata);
      assert.deepEqual(Object.keys(await contents()), ['a', 'b', 'c']);
    }
  });

  it('may be made of links, as downloads are', async () => {
    await shards();
    const store = join(dir, 'store');
    await mkdir(store);
    await rename(join(dir, 'one.safetensors'), join(store, 'x'));
    await symlink(join(store, 'x'), join(dir, 'one.safetensors'));
    assert.deepEqual(await contents(), { a: [1, 2], b: [3], c: [4, 5, 6] });
  });

  it('names what is missing', async () => {
    await refused(/model\.safetensors or model\.safetensors\.index\.json in .*got "neither"/);
    await writeFile(join(dir, 'pytorch_model.bin'), 'x');
    await refused(/got "PyTorch pickles alone \(save the model as safetensors\)"/);
    await rm(join(dir, 'pytorch_model.bin'));
    await shards();
    await rm(join(dir, 'two.safetensors'));
    await refused(/expected the files that .*index\.json names, got "no two\.safetensors"/);
    const file = join(dir, 'one.safetensors');
    await assert.rejects(openCheckpoint(file), /a folder with a model, got ".*one\.safetensors"/);
    await assert.rejects(openCheckpoint(join(dir, 'none')), /a folder with a model/);
  });

  it('refuses an index that does not agree with its files', async () => {
    await shards();
    const [one, two] = ['one.safetensors', 'two.safetensors'];
    await index({ a: one, b: one, c: two, d: two, e: two });
    await refused(/two\.safetensors to have the tensors that .*index\.json says, got "no d, e"/);
    await index({ a: one, c: two });
    await refused(/one\.safetensors to have the tensors that .*index\.json says, got "also b"/);
    await writeSafetensors(join(dir, two), [bytes('c', 4), bytes('a', 1, 2)]);
    await index({ a: one, b: one, c: two });
    await refused(/two\.safetensors to have the tensors .*got "also a"/);
    await writeFile(join(dir, two), 'short');
    await refused(/two\.safetensors to have at least 8 bytes, got 5/);
    await writeFile(join(dir, two), pointer);
    await refused(/two\.safetensors to hold its content, got "a Git LFS pointer/);
  });

  it('refuses an index that is none', async () => {
    await shards();
    for (const map of [undefined, null, {}, [], 'one.safetensors', [['a', 'one.safetensors']]]) {
      await index(map);
      await refused(/weight_map of .*index\.json to be an object of tensor and file names/);
    }
    const cases: [text: string, message: RegExp][] = [
      ['', /index\.json to be JSON/],
      ['{"weight_map": {', /index\.json to be JSON/],
      ['[]', /index\.json to be a JSON object/],
      ['null', /index\.json to be a JSON object, got "null"/],
      [pointer, /index\.json to hold its content, got "a Git LFS pointer/],
    ];
    for (const [text, message] of cases) {
      await writeFile(join(dir, INDEX), text);
      await refused(message);
    }
    for (const map of ['[{"toString": ""}]', '{"constructor": {"name": {"toString": 1}}}', '[[[[{}]]]]']) {
      await writeFile(join(dir, INDEX), map);
      await refused(/index\.json/);
      await writeFile(join(dir, INDEX), `{"weight_map": {"a": ${map}}}`);
      await refused(/weight_map of .*index\.json to name \.safetensors files beside it/);
    }
    await writeFile(join(dir, INDEX), '{}');
    await truncate(join(dir, INDEX), 100_000_001);
    await refused(/index\.json to have at most 100000000 bytes/);
  });

  it('refuses file names that lead out of the folder', async () => {
    await shards();
    const inner = join(dir, 'inner');
    await mkdir(inner);
    await writeSafetensors(join(inner, 'x.safetensors'), [bytes('a', 1)]);
    const names = [
      'inner/x.safetensors',
      './one.safetensors',
      '../one.safetensors',
      'inner\\x.safetensors',
      join(inner, 'x.safetensors'),
      'C:x.safetensors',
      'one.safetensors\0',
      '..',
      '.',
      '',
      'inner',
      'one.bin',
      7,
      null,
      ['one.safetensors'],
    ];
    for (const name of names) {
      await index({ a: name });
      await refused(/weight_map of .*index\.json to name \.safetensors files beside it/);
    }
  });

  it('does not wait for a pipe', { skip: process.platform === 'win32' && 'Windows has none' }, async () => {
    execFileSync('mkfifo', [join(dir, WHOLE)]);
    await refused(/a regular file, got .*model\.safetensors/);
  });

  it('of 60 GB opens in a few megabytes, and reads what is asked for', async () => {
    const perShard = 20_000_000_000;
    const map: Record<string, string> = {};
    for (const shard of ['one', 'two', 'three']) {
      const text = JSON.stringify({
        [shard]: { dtype: 'BF16', shape: [perShard / 2], data_offsets: [0, perShard] },
      });
      const start = Buffer.alloc(8);
      start.writeBigUInt64LE(BigInt(text.length));
      const path = join(dir, `${shard}.safetensors`);
      await writeFile(path, Buffer.concat([start, Buffer.from(text)]));
      await truncate(path, 8 + text.length + perShard); // a hole: it takes no room on the disk
      const file = await open(path, 'r+');
      await file.write(Uint8Array.of(7), 0, 1, 8 + text.length + perShard - 1);
      await file.close();
      map[shard] = `${shard}.safetensors`;
    }
    await index(map);
    const before = process.memoryUsage().rss;
    await using checkpoint = await openCheckpoint(dir);
    const range = { begin: perShard - 3, end: perShard };
    assert.deepEqual([...new Uint8Array(await checkpoint.read('two', range))], [0, 0, 7]);
    const grown = process.memoryUsage().rss - before;
    assert.ok(grown < 64e6, `memory grew by ${grown} bytes`);
  });

  describe('written', () => {
    const entries = [bytes('b', 1, 2, 3), bytes('a', 4), bytes('c', 5, 6, 7, 8, 9, 10), bytes('d', 11)];
    const all = { a: [4], b: [1, 2, 3], c: [5, 6, 7, 8, 9, 10], d: [11] };

    it('is one file where it fits into one', async () => {
      const made = join(dir, 'deep', 'model');
      await writeCheckpoint(made, entries, { maxShardBytes: 11 });
      assert.deepEqual(await readdir(made), [WHOLE]);
      await using file = await openSafetensors(join(made, WHOLE));
      assert.deepEqual([...file.metadata], [['format', 'pt']]);
      dir = made;
      assert.deepEqual(await contents(), all);
      dir = join(made, '..', '..');
    });

    it('is cut into shards in order, at most as large as asked, but for a larger tensor', async () => {
      await writeCheckpoint(dir, entries, { maxShardBytes: 4 });
      const file = (i: number) => `model-0000${i}-of-00003.safetensors`;
      assert.deepEqual((await readdir(dir)).sort(), [file(1), file(2), file(3), INDEX].sort());
      assert.deepEqual(JSON.parse(await readFile(join(dir, INDEX), 'utf8')), {
        metadata: { total_size: 11 },
        weight_map: { b: file(1), a: file(1), c: file(2), d: file(3) },
      });
      const found = await contents();
      assert.deepEqual(found, all);
      await using shard = await openSafetensors(join(dir, file(2)));
      assert.deepEqual([...shard.metadata], [['format', 'pt']]);
    });

    it('is no model before it is whole, and can then be written anew', async () => {
      const failing = { ...bytes('e', 1), data: () => Promise.reject(new Error('the disk is gone')) };
      await assert.rejects(writeCheckpoint(dir, [...entries, failing], { maxShardBytes: 4 }), /disk is gone/);
      await refused(/got "neither"/);
      await writeCheckpoint(dir, entries, { maxShardBytes: 4 });
      assert.deepEqual(await contents(), all);
    });

    it('does not mix with a model that is there', async () => {
      await writeCheckpoint(dir, entries, { maxShardBytes: 4 });
      await assert.rejects(writeCheckpoint(dir, entries), /a folder without model\.safetensors\.index\.json/);
      await rm(join(dir, INDEX));
      await writeCheckpoint(dir, entries);
      await assert.rejects(
        writeCheckpoint(dir, entries),
        /\[writeCheckpoint\] expected a folder without model/,
      );
    });

    it('takes tensors in pieces', async () => {
      const pieces = (...parts: number[][]) =>
        async function* () {
          for (const part of parts) yield Uint8Array.from(part);
        };
      await writeCheckpoint(dir, [{ ...bytes('a', 1, 2, 3), data: pieces([1], [], [2, 3]) }]);
      assert.deepEqual(await contents(), { a: [1, 2, 3] });
      for (const parts of [
        [[1, 2]],
        [
          [1, 2],
          [3, 4],
        ],
        [],
      ]) {
        const path = join(dir, 'other.safetensors');
        const wrong = writeSafetensors(path, [{ ...bytes('a', 1, 2, 3), data: pieces(...parts) }]);
        await assert.rejects(wrong, /tensor "a" to have 3 bytes, got/);
        assert.deepEqual(await readdir(dir), [WHOLE]);
      }
    });

    it('is refused before anything is written', async () => {
      await assert.rejects(writeCheckpoint(dir, entries, { maxShardBytes: 0 }), /maxShardBytes .* got 0/);
      await assert.rejects(writeCheckpoint(dir, [...entries, bytes('a', 1)]), /every tensor name once/);
      const wrong = { ...bytes('x', 1), shape: [-1] };
      await assert.rejects(writeCheckpoint(dir, [wrong]), /dimensions that are non-negative/);
      assert.deepEqual(await readdir(dir), []);
    });
  });
});

describe('listNames', () => {
  it('names five at most', () => {
    assert.equal(listNames(['a', 'b']), 'a, b');
    assert.equal(listNames(['a', 'b', 'c', 'd', 'e']), 'a, b, c, d, e');
    assert.equal(listNames(['a', 'b', 'c', 'd', 'e', 'f', 'g']), 'a, b, c, d, e and 2 more');
  });
});
