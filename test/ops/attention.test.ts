import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { attention, type KvCacheView, pagedAttention, writeKvCache } from '../../lib/ops/attention.js';
import { currentDevice, memory, record, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import {
  type AttentionCase,
  cuSeqlensOf,
  int32,
  keptReference,
  offsets,
  pagedCache,
  randomQkv,
  referenceAttention,
} from '../support/attention.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { onEmulator } from '../support/cuda.js';
import { vectorLevels } from '../support/levels.js';

const cases: AttentionCase[] = [
  { lengths: [1, 7, 33, 300, 0], numHeads: 4, numKvHeads: 2, headDim: 32 },
  { lengths: [0, 130, 16, 15, 17], numHeads: 4, numKvHeads: 1, headDim: 36 },
  { lengths: [65, 0, 3, 129], numHeads: 2, numKvHeads: 2, headDim: 64 },
  { lengths: [40, 5], numHeads: 3, numKvHeads: 1, headDim: 2 },
  { lengths: [129, 20], numHeads: 2, numKvHeads: 1, headDim: 128 },
  { lengths: [150], numHeads: 6, numKvHeads: 1, headDim: 250 },
];
const nameOf = (c: AttentionCase) =>
  `${c.numHeads}/${c.numKvHeads} heads of ${c.headDim}, lengths ${c.lengths}`;
const dispose = (...all: Disposable[]) => {
  for (const x of all) x[Symbol.dispose]();
};

/** Tokens of the sequences as a prefill presents them: slot s is sequence s. */
function places(lengths: readonly number[]): { slots: number[]; positions: number[] } {
  return {
    slots: lengths.flatMap((n, s) => new Array<number>(n).fill(s)),
    positions: lengths.flatMap((n) => Array.from({ length: n }, (_, i) => i)),
  };
}

/** A cache that holds every sequence of the case. */
function filledCache(c: AttentionCase, qkv: Tensor, dtype: NativeFloatDType): KvCacheView {
  const at = places(c.lengths);
  const cache = {
    ...pagedCache(c, dtype, c.lengths.length),
    slots: int32(at.slots),
    positions: int32(at.positions),
  };
  writeKvCache(qkv, cache, c);
  return cache;
}
const disposeCache = (c: KvCacheView) =>
  dispose(c.keyCache, c.valueCache, c.blockTable, c.slots, c.positions);

afterEach(() => setThreads(1));

for (const level of vectorLevels()) {
  describe(`attention at ${level}`, () => {
    for (const c of cases)
      for (const dtype of floatDtypes)
        it(`${dtype}, ${nameOf(c)}: both families are close to fp64 at any knobs`, async () => {
          setVectorLevel(level);
          const before = memory().tensors;
          const qkv = randomQkv(c, dtype);
          const cu = cuSeqlensOf(c.lengths);
          const cache = filledCache(c, qkv, dtype);
          for (const [order, scale] of [
            [{}, undefined],
            [{ chunk: 32, tile: 16 }, 0.7],
            [{ chunk: 96, tile: 48 }, undefined],
          ] as const) {
            const heads = { ...c, ...order, ...(scale === undefined ? {} : { scale }) };
            const key = `${nameOf(c)} ${dtype} ${scale}`;
            const expected = keptReference(key, c, await qkv.floats(), scale ?? c.headDim ** -0.5);
            const label = JSON.stringify({ ...order, scale });
            const { out, lse } = attention(qkv, cu, heads);
            const paged = pagedAttention(qkv, cache, heads);
            assert.deepEqual(out.shape, [qkv.shape[0], c.numHeads * c.headDim]);
            assert.deepEqual(lse.shape, [c.numHeads, qkv.shape[0]]);
            assert.equal(out.dtype, dtype);
            assertClose(await out.floats(), expected.out, dtype, `training ${label}`);
            assertClose(await paged.floats(), expected.out, dtype, `rollout ${label}`);
            // The log-sum-exp never sees a rounding to 16 bits.
            assertClose(await lse.floats(), expected.lse, 'fp32', `lse ${label}`, 2e-6);
            dispose(out, lse, paged);
          }
          dispose(qkv, cu);
          disposeCache(cache);
          assert.equal(memory().tensors, before);
        });

    for (const dtype of floatDtypes)
      for (const [chunk, tile] of [
        [0, 128],
        [256, 32],
        [256, 64],
        [96, 48],
      ] as const)
        it(`${dtype}, chunk ${chunk}, tile ${tile}: rollout gives the bits of training, prefill and decode`, async () => {
          setVectorLevel(level);
          for (const [i, shape] of [
            { numHeads: 4, numKvHeads: 2, headDim: 32 },
            { numHeads: 4, numKvHeads: 1, headDim: 36 },
            { numHeads: 1, numKvHeads: 1, headDim: 48 },
            { numHeads: 6, numKvHeads: 1, headDim: 64 },
          ].entries()) {
            const lengths = [31, 32, 33, 300];
            // How a sequence ends has nothing to do with heads.
            if (i === 0 || !onEmulator()) lengths.push(255, 256, 257);
            const c = { lengths, ...shape };
            const qkv = randomQkv(c, dtype, 5);
            const cu = cuSeqlensOf(lengths);
            const { out, lse } = attention(qkv, cu, { ...c, chunk, tile });
            const cache = filledCache(c, qkv, dtype);
            const prefill = pagedAttention(qkv, cache, { ...c, chunk, tile });
            const expected = await out.floats();
            assertSameBits(await prefill.floats(), expected, 'prefill');

            // Decode: the tokens at one position of each sequence, in steps, the last step of each included.
            const starts = offsets(lengths);
            const width = c.numHeads * c.headDim;
            const rowSize = qkv.size / qkv.shape[0]!;
            const values = await qkv.floats();
            for (const position of [0, 15, 16, 30, 31, 32, 47, 48, 95, 96, 254, 255, 256, 271, 299]) {
              const slots = lengths.flatMap((n, s) => (n > position ? [s] : []));
              const tokens = slots.map((s) => starts[s]! + position);
              const step = tensor(
                tokens.flatMap((t) => [...values.subarray(t * rowSize, (t + 1) * rowSize)]),
                [tokens.length, qkv.shape[1]!, c.headDim],
                dtype,
              );
              const at = {
                slots: int32(slots),
                positions: int32(slots.map(() => position)),
              };
              const decoded = pagedAttention(step, { ...cache, ...at }, { ...c, chunk, tile });
              const rows = await decoded.floats();
              for (const [i, t] of tokens.entries())
                assertSameBits(
                  rows.subarray(i * width, (i + 1) * width),
                  expected.subarray(t * width, (t + 1) * width),
                  `decode of position ${position}, slot ${slots[i]}`,
                );
              dispose(step, decoded, at.slots, at.positions);
            }
            dispose(qkv, cu, out, lse, prefill);
            disposeCache(cache);
          }
        });

    it('generates token by token, writing the cache as it goes, with the bits of one training pass', async () => {
      setVectorLevel(level);
      const c = { lengths: [40, 40, 40], numHeads: 4, numKvHeads: 2, headDim: 20 };
      const width = c.numHeads * c.headDim;
      for (const dtype of floatDtypes) {
        const qkv = randomQkv(c, dtype, 9);
        const cu = cuSeqlensOf(c.lengths);
        const { out, lse } = attention(qkv, cu, { ...c, chunk: 32, tile: 16 });
        const expected = await out.floats();
        const values = await qkv.floats();
        const rowSize = values.length / 120;
        const cache = {
          ...pagedCache(c, dtype, 3),
          slots: int32([2, -1, 0, 1]),
          positions: int32([0, 0, 0, 0]),
        };
        // One recorded step, replayed with new contents: as an engine does.
        const step = zeros([4, qkv.shape[1]!, c.headDim], dtype);
        const { recording, result } = record(() => {
          writeKvCache(step, cache, c);
          return pagedAttention(step, cache, { ...c, chunk: 32, tile: 16 });
        });
        for (let position = 0; position < 40; position++) {
          const tokens = [80 + position, 0, position, 40 + position];
          step.upload(tokens.flatMap((t) => [...values.subarray(t * rowSize, (t + 1) * rowSize)]));
          cache.positions.upload([position, 12345, position, position]);
          recording.replay();
          const rows = await result.floats();
          for (const [i, t] of tokens.entries())
            assertSameBits(
              rows.subarray(i * width, (i + 1) * width),
              i === 1 ? new Float32Array(width) : expected.subarray(t * width, (t + 1) * width),
              `${dtype}, position ${position}, row ${i}`,
            );
        }
        recording.dispose();
        dispose(qkv, cu, out, lse, step, result);
        disposeCache(cache);
      }
    });

    it('a sequence has the same bits alone, among others and at any number of threads', async () => {
      setVectorLevel(level);
      const shape = { numHeads: 4, numKvHeads: 2, headDim: 32 };
      for (const dtype of floatDtypes) {
        const many = { lengths: [17, 100, 1, 290, 64, 33, 90, 250], ...shape };
        const qkv = randomQkv(many, dtype, 3);
        const cu = cuSeqlensOf(many.lengths);
        const first = attention(qkv, cu, many);
        const expected = await first.out.floats();
        // The emulator does the same twice, and knows no threads.
        if (!onEmulator()) {
          const cache = filledCache(many, qkv, dtype);
          const paged = pagedAttention(qkv, cache, many);
          const expectedPaged = await paged.floats();
          setThreads(3);
          const again = attention(qkv, cu, many);
          const pagedAgain = pagedAttention(qkv, cache, many);
          assertSameBits(await again.out.floats(), expected, 'training, 3 threads');
          assertSameBits(await again.lse.floats(), await first.lse.floats(), 'lse, 3 threads');
          assertSameBits(await pagedAgain.floats(), expectedPaged, 'rollout, 3 threads');
          dispose(paged, again.out, again.lse, pagedAgain);
          disposeCache(cache);
        }
        const starts = offsets(many.lengths);
        for (const [s, length] of many.lengths.entries()) {
          const part = qkv.rows(starts[s]!, starts[s + 1]!);
          const bounds = int32([0, length]);
          const alone = attention(part, bounds, many);
          const from = starts[s]! * 128;
          assertSameBits(
            await alone.out.floats(),
            expected.subarray(from, from + length * 128),
            `${dtype} sequence ${s}`,
          );
          dispose(part, bounds, alone.out, alone.lse);
        }
        dispose(qkv, cu, first.out, first.lse);
      }
    });

    it('a step of many tokens gives each the bits that it has in a prompt', async () => {
      setVectorLevel(level);
      // So many that a GPU has work enough without sharing the chunks of a token among blocks.
      const [length, count] = [100, 560];
      const c = { lengths: [length], numHeads: 4, numKvHeads: 2, headDim: 16, chunk: 32, tile: 16 };
      for (const dtype of floatDtypes) {
        const qkv = randomQkv(c, dtype, 13);
        const prompt = filledCache(c, qkv, dtype);
        const all = pagedAttention(qkv, prompt, c);
        const expected = await all.floats();
        const values = await qkv.floats();
        // All slots have the pages of the one.
        const pages = Array.from(await prompt.blockTable.data());
        const position = (i: number) => (i * 37) % length;
        const tokens = Array.from({ length: count }, (_, i) => position(i));
        const step = tensor(
          tokens.flatMap((t) => [...values.subarray(t * 128, (t + 1) * 128)]),
          [count, 8, 16],
          dtype,
        );
        const cache = {
          ...prompt,
          blockTable: tensor(
            tokens.flatMap(() => pages),
            [count, pages.length],
            'int32',
          ),
          slots: int32(tokens.map((_, i) => i)),
          positions: int32(tokens),
        };
        const out = pagedAttention(step, cache, c);
        const rows = await out.floats();
        for (const [i, t] of tokens.entries())
          assertSameBits(
            rows.subarray(i * 64, (i + 1) * 64),
            expected.subarray(t * 64, (t + 1) * 64),
            `${dtype}, token ${i}`,
          );
        dispose(qkv, all, step, out, cache.blockTable, cache.slots, cache.positions);
        disposeCache(prompt);
      }
    });

    it('one long sequence is cut for the threads and keeps its bits', async () => {
      setVectorLevel(level);
      const length = 600;
      for (const dtype of floatDtypes)
        for (const [numHeads, numKvHeads] of [
          [2, 1],
          [3, 3],
          [6, 1],
        ] as const) {
          const c = { lengths: [length, 40], numHeads, numKvHeads, headDim: 16, chunk: 96, tile: 48 };
          const qkv = randomQkv(c, dtype, 9);
          const cache = filledCache(c, qkv, dtype);
          // The end of a prompt.
          const count = 40;
          const tail = qkv.rows(length - count, length);
          const tailCache = {
            ...cache,
            slots: int32(new Array(count).fill(0)),
            positions: int32(Array.from({ length: count }, (_, i) => length - count + i)),
          };
          const end = pagedAttention(tail, tailCache, c);
          const width = numHeads * 16;
          const row = (await end.floats()).subarray((count - 1) * width);
          const last = qkv.rows(length - 1, length);
          const values = await last.floats();
          const absent = new Float32Array(values.length);
          const three = tensor([...absent, ...values, ...values], [3, last.shape[1]!, 16], dtype);
          const alone = { ...cache, slots: int32([0]), positions: int32([length - 1]) };
          const among = {
            ...cache,
            slots: int32([-1, 0, 0]),
            positions: int32([0, length - 1, length - 1]),
          };
          for (const threads of currentDevice() === 'cuda' ? [1] : [1, 2, 5]) {
            setThreads(threads);
            const [one, more] = [pagedAttention(last, alone, c), pagedAttention(three, among, c)];
            assertSameBits(await one.floats(), row, `${dtype}, ${numHeads} heads, ${threads} threads`);
            const got = await more.floats();
            assert.ok(got.subarray(0, width).every((x) => x === 0));
            assertSameBits(got.subarray(width, 2 * width), row, 'among others');
            assertSameBits(got.subarray(2 * width), row, 'once more');
            dispose(one, more);
          }
          dispose(tail, tailCache.slots, tailCache.positions, end);
          dispose(qkv, last, three, alone.slots, alone.positions, among.slots, among.positions);
          disposeCache(cache);
        }
    });

    it('rounds the probabilities to 16 bits against the running maximum of each tile', async () => {
      setVectorLevel(level);
      // Two keys in different tiles, headDim 2: tile 16 rounds exp(0) = 1 for key 0 and scales the sum by exp(-s);
      // one tile of 32 rounds exp(-s) itself.
      const s = Math.fround(0.3);
      const rows = Array.from({ length: 17 }, (_, j) => [
        1,
        0,
        j === 0 ? -40 : j === 16 ? s - 40 : -4096,
        0,
        j === 0 ? 1 : 0,
        0,
      ]);
      const qkv = tensor(rows.flat(), [17, 3, 2], 'fp32');
      const cu = int32([0, 17]);
      for (const dtype of ['fp16', 'bf16'] as const) {
        const round = (x: number) => {
          const grid = 2 ** (Math.floor(Math.log2(x)) - (dtype === 'fp16' ? 10 : 7));
          const n = x / grid;
          const floor = Math.floor(n);
          return (n - floor > 0.5 || (n - floor === 0.5 && floor % 2 === 1) ? floor + 1 : floor) * grid;
        };
        const narrow = tensor(await qkv.floats(), [17, 3, 2], dtype);
        const k = await narrow.floats();
        const gap = k[16 * 6 + 2]! - k[2]!;
        assert.ok(gap > 0.2);
        for (const [tile, weight] of [
          [16, Math.exp(-gap)],
          [32, round(Math.exp(-gap))],
        ] as const) {
          const { out, lse } = attention(narrow, cu, { numHeads: 1, numKvHeads: 1, scale: 1, tile });
          const got = (await out.floats())[32]!;
          assert.equal(got, round(weight / (1 + Math.exp(-gap))), `${dtype}, tile ${tile}`);
          dispose(out, lse);
        }
        narrow.dispose();
      }
      dispose(qkv, cu);
    });

    it('keys that are masked or absent cannot reach a row, whatever they hold', async () => {
      setVectorLevel(level);
      for (const dtype of floatDtypes)
        for (const [length, from, order] of [
          [20, 15, {}],
          [100, 71, {}],
          [100, 71, { chunk: 32, tile: 16 }],
          [100, 71, { chunk: 96, tile: 48 }],
        ] as const) {
          const c = { lengths: [length, 20], numHeads: 2, numKvHeads: 1, headDim: 18 };
          const options = { ...c, ...order };
          const clean = randomQkv(c, dtype, 4);
          const dirtyValues = await clean.floats();
          dirtyValues.fill(Number.NaN, from * 72, length * 72);
          const dirty = tensor(dirtyValues, clean.shape, dtype);
          const cu = cuSeqlensOf(c.lengths);
          const a = attention(clean, cu, options);
          const b = attention(dirty, cu, options);
          const [cacheA, cacheB] = [filledCache(c, clean, dtype), filledCache(c, dirty, dtype)];
          const pa = pagedAttention(clean, cacheA, options);
          const pb = pagedAttention(dirty, cacheB, options);
          for (const [x, y] of [
            [a.out, b.out],
            [pa, pb],
          ] as const) {
            const [u, v] = [await x.floats(), await y.floats()];
            assertSameBits(v.subarray(0, from * 36), u.subarray(0, from * 36), 'rows before');
            assertSameBits(v.subarray(length * 36), u.subarray(length * 36), 'the next sequence');
            assert.ok(v.subarray(from * 36, length * 36).every(Number.isNaN), 'NaN is kept where it belongs');
          }
          dispose(clean, dirty, cu, a.out, a.lse, b.out, b.lse, pa, pb);
          disposeCache(cacheA);
          disposeCache(cacheB);
        }
    });

    it('gives one row the same bits in both families from subnormals to large numbers', async () => {
      setVectorLevel(level);
      const c = { lengths: [90], numHeads: 2, numKvHeads: 1, headDim: 32 };
      for (const dtype of floatDtypes) {
        // Queries and keys keep the scores moderate; values span what the dtype holds, zeros and subnormals too.
        const random = normals(90 * 4 * 32, 17);
        const spread = dtype === 'fp16' ? 24 : 140;
        const values = random.map((x, i) => {
          if (Math.floor(i / 32) % 4 !== 3) return x * 4;
          return i % 7 === 0 ? -0 : x * 2 ** (((i * 37) % (spread + 10)) - spread);
        });
        const qkv = tensor(values, [90, 4, 32], dtype);
        const cu = cuSeqlensOf(c.lengths);
        const cache = filledCache(c, qkv, dtype);
        for (const order of [{ tile: 32 }, { chunk: 48, tile: 16 }]) {
          const { out, lse } = attention(qkv, cu, { ...c, ...order });
          const prefill = pagedAttention(qkv, cache, { ...c, ...order });
          const expected = await out.floats();
          assertSameBits(await prefill.floats(), expected, `${dtype}, prefill`);
          for (const position of [0, 1, 17, 31, 32, 63, 89]) {
            const step = qkv.rows(position, position + 1);
            const at = { slots: int32([0]), positions: int32([position]) };
            const decoded = pagedAttention(step, { ...cache, ...at }, { ...c, ...order });
            assertSameBits(
              await decoded.floats(),
              expected.subarray(position * 64, (position + 1) * 64),
              `${dtype}, decode of position ${position}`,
            );
            dispose(step, decoded, at.slots, at.positions);
          }
          dispose(out, lse, prefill);
        }
        dispose(qkv, cu);
        disposeCache(cache);
      }
    });

    it('stays finite for scores far apart', async () => {
      setVectorLevel(level);
      const c = { lengths: [70], numHeads: 1, numKvHeads: 1, headDim: 8 };
      const qkv = tensor(normals(70 * 24, 8, 30), [70, 3, 8]);
      const cu = cuSeqlensOf(c.lengths);
      const { out, lse } = attention(qkv, cu, { ...c, tile: 16, chunk: 32 });
      const expected = referenceAttention(c, await qkv.floats(), 8 ** -0.5);
      assertClose(await out.floats(), expected.out, 'fp32', 'out', 1e-4);
      assertClose(await lse.floats(), expected.lse, 'fp32', 'lse');
      dispose(qkv, cu, out, lse);
    });
  });
}

describe('writeKvCache', () => {
  it('stores keys and values in the order that the device reads them in, and nothing else', async () => {
    const onGpu = currentDevice() === 'cuda';
    const c = { lengths: [19], numHeads: 2, numKvHeads: 2, headDim: 6 };
    for (const dtype of floatDtypes) {
      const qkv = randomQkv(c, dtype, 6);
      const cache = {
        ...pagedCache(c, dtype, 1),
        slots: int32(Array.from({ length: 19 }, (_, i) => (i === 4 ? -1 : 0))),
        positions: int32(Array.from({ length: 19 }, (_, i) => i)),
      };
      writeKvCache(qkv, cache, c);
      const [x, keys, values, table] = await Promise.all([
        qkv.floats(),
        cache.keyCache.floats(),
        cache.valueCache.floats(),
        cache.blockTable.data(),
      ]);
      let written = 0;
      for (let i = 0; i < 19; i++)
        for (let h = 0; h < 2; h++)
          for (let d = 0; d < 6; d++) {
            const page = table[i >> 4]!;
            const base = (page * 2 + h) * 6 * 16;
            const at = i & 15;
            // On the CPU keys of a page are transposed; bf16: two neighbours along headDim, or two keys, side by
            // side. On a GPU both lie by rows.
            const pair = dtype === 'bf16' && !onGpu ? 2 : 1;
            const k =
              keys[base + (onGpu ? at * 6 + d : (Math.floor(d / pair) * 16 + at) * pair + (d % pair))]!;
            const v = values[base + (Math.floor(at / pair) * 6 + d) * pair + (at % pair)]!;
            if (i === 4) assert.ok(Number.isNaN(k) && Number.isNaN(v));
            else {
              assert.equal(k, x[(i * 6 + 2 + h) * 6 + d]);
              assert.equal(v, x[(i * 6 + 4 + h) * 6 + d]);
              written++;
            }
          }
      assert.equal(keys.filter((k) => !Number.isNaN(k)).length, written);
      assert.equal(values.filter((v) => !Number.isNaN(v)).length, written);
      qkv.dispose();
      disposeCache(cache);
    }
  });
});
