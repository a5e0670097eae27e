import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { attention, attentionBackward } from '../../lib/ops/attention.js';
import { memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor, view, zeros } from '../../lib/tensor/tensor.js';
import {
  type AttentionCase,
  cuSeqlensOf,
  keptReference,
  offsets,
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
  { lengths: [131, 0, 2], numHeads: 2, numKvHeads: 1, headDim: 128 },
  { lengths: [70], numHeads: 1, numKvHeads: 1, headDim: 250 },
];
const dispose = (...all: Disposable[]) => {
  for (const x of all) x[Symbol.dispose]();
};
const randomDOut = (c: AttentionCase, qkv: Tensor, seed: number) => {
  const shape = [qkv.shape[0]!, c.numHeads * c.headDim];
  return tensor(normals(shape[0]! * shape[1]!, seed), shape, qkv.dtype);
};

afterEach(() => setThreads(1));

for (const level of vectorLevels()) {
  describe(`attentionBackward at ${level}`, () => {
    for (const c of cases)
      for (const dtype of floatDtypes)
        it(`${dtype}, ${c.numHeads}/${c.numKvHeads} heads of ${c.headDim}: close to the fp64 gradient`, async () => {
          setVectorLevel(level);
          const before = memory().tensors;
          const qkv = randomQkv(c, dtype, 11);
          const dOut = randomDOut(c, qkv, 12);
          const cu = cuSeqlensOf(c.lengths);
          for (const scale of [undefined, 0.6]) {
            const heads = { ...c, ...(scale === undefined ? {} : { scale }) };
            const { out, lse } = attention(qkv, cu, heads);
            const dqkv = attentionBackward(dOut, qkv, out, lse, cu, heads);
            assert.deepEqual(dqkv.shape, qkv.shape);
            assert.equal(dqkv.dtype, dtype);
            const expected = keptReference(
              `${c.lengths} ${c.numHeads} ${c.numKvHeads} ${c.headDim} ${dtype} ${scale}`,
              c,
              await qkv.floats(),
              scale ?? c.headDim ** -0.5,
              await dOut.floats(),
            ).dqkv;
            const got = await dqkv.floats();
            const rowSize = got.length / qkv.shape[0]!;
            const parts = [
              ['dQ', 0, c.numHeads],
              ['dK', c.numHeads, c.numHeads + c.numKvHeads],
              ['dV', c.numHeads + c.numKvHeads, c.numHeads + 2 * c.numKvHeads],
            ] as const;
            for (const [name, from, to] of parts) {
              const width = (to - from) * c.headDim;
              const pick = (x: Float32Array | Float64Array) => {
                const part = new Float64Array((x.length / rowSize) * width);
                for (let row = 0, at = from * c.headDim; at < x.length; row++, at += rowSize)
                  part.set(x.subarray(at, at + width), row * width);
                return part;
              };
              assertClose(pick(got), pick(expected), dtype, `${name}, scale ${scale}`);
            }
            dispose(out, lse, dqkv);
          }
          dispose(qkv, dOut, cu);
          assert.equal(memory().tensors, before);
        });

    it('agrees with finite differences of the fp64 forward', async () => {
      setVectorLevel(level);
      const c = { lengths: [5, 18], numHeads: 4, numKvHeads: 2, headDim: 6 };
      const qkv = randomQkv(c, 'fp32', 21);
      const dOut = randomDOut(c, qkv, 22);
      const cu = cuSeqlensOf(c.lengths);
      const { out, lse } = attention(qkv, cu, { ...c, scale: 0.5 });
      const dqkv = attentionBackward(dOut, qkv, out, lse, cu, { ...c, scale: 0.5 });
      const got = await dqkv.floats();
      const x = Float64Array.from(await qkv.floats());
      const weights = await dOut.floats();
      const loss = () =>
        referenceAttention(c, x, 0.5).out.reduce((total, o, i) => total + o * weights[i]!, 0);
      const step = 1e-5;
      const differences = Array.from(x, (value, i) => {
        x[i] = value + step;
        const up = loss();
        x[i] = value - step;
        const down = loss();
        x[i] = value;
        return (up - down) / (2 * step);
      });
      assertClose(got, differences, 'fp32', 'finite differences');
      dispose(qkv, dOut, cu, out, lse, dqkv);
    });

    it('a sequence has the same bits alone, among others and at any number of threads', async () => {
      setVectorLevel(level);
      const c = { lengths: [17, 100, 1, 200, 64, 33], numHeads: 4, numKvHeads: 2, headDim: 32 };
      for (const dtype of floatDtypes) {
        const qkv = randomQkv(c, dtype, 31);
        const dOut = randomDOut(c, qkv, 32);
        const cu = cuSeqlensOf(c.lengths);
        const { out, lse } = attention(qkv, cu, c);
        const once = attentionBackward(dOut, qkv, out, lse, cu, c);
        const expected = await once.floats();
        // The emulator does the same twice, and knows no threads.
        if (!onEmulator()) {
          setThreads(3);
          const again = attentionBackward(dOut, qkv, out, lse, cu, c);
          assertSameBits(await again.floats(), expected, '3 threads');
          again.dispose();
        }
        const starts = offsets(c.lengths);
        const rowSize = 8 * 32;
        for (const [s, length] of c.lengths.entries()) {
          const rows = (t: Tensor) => t.rows(starts[s]!, starts[s + 1]!);
          const [x, dx, bounds] = [rows(qkv), rows(dOut), cuSeqlensOf([length])];
          const alone = attention(x, bounds, c);
          const gradient = attentionBackward(dx, x, alone.out, alone.lse, bounds, c);
          assertSameBits(
            await gradient.floats(),
            expected.subarray(starts[s]! * rowSize, starts[s + 1]! * rowSize),
            `${dtype}, sequence ${s}`,
          );
          dispose(x, dx, bounds, alone.out, alone.lse, gradient);
        }
        dispose(qkv, dOut, cu, out, lse, once);
      }
    });

    it('where memory begins changes no bit, forward and backward', async () => {
      setVectorLevel(level);
      const c = { lengths: [70, 19], numHeads: 2, numKvHeads: 1, headDim: 64 };
      for (const dtype of floatDtypes) {
        const qkv = randomQkv(c, dtype, 51);
        const dOut = randomDOut(c, qkv, 52);
        const cu = cuSeqlensOf(c.lengths);
        const { out, lse } = attention(qkv, cu, c);
        const dqkv = attentionBackward(dOut, qkv, out, lse, cu, c);
        const [expected, expectedGradient] = [await out.floats(), await dqkv.floats()];
        for (const offset of [1, 2, 5]) {
          const made: Tensor[] = [];
          const moved = async (x: Tensor) => {
            const values = [...new Float32Array(offset), ...(await x.floats())];
            const whole = tensor(values, [values.length], x.dtype);
            const placed = view(whole, offset, x.shape);
            made.push(whole, placed);
            return placed;
          };
          const x = await moved(qkv);
          const again = attention(x, cu, c);
          const gradient = attentionBackward(await moved(dOut), x, await moved(out), lse, cu, c);
          assertSameBits(await again.out.floats(), expected, `${dtype}, ${offset} elements in`);
          assertSameBits(
            await gradient.floats(),
            expectedGradient,
            `${dtype} gradient, ${offset} elements in`,
          );
          dispose(again.out, again.lse, gradient, ...made);
        }
        dispose(qkv, dOut, cu, out, lse, dqkv);
      }
    });

    it('a gradient beyond fp16 becomes infinite or NaN, as loss scaling expects, and stays finite in bf16', async () => {
      setVectorLevel(level);
      const c = { lengths: [9], numHeads: 1, numKvHeads: 1, headDim: 64 };
      for (const dtype of ['fp16', 'bf16'] as const) {
        const qkv = randomQkv(c, dtype, 41);
        const cu = cuSeqlensOf(c.lengths);
        const dOut = tensor(normals(9 * 64, 42, 15000), [9, 64], dtype);
        assert.ok((await dOut.floats()).every(Number.isFinite));
        const { out, lse } = attention(qkv, cu, c);
        const dqkv = attentionBackward(dOut, qkv, out, lse, cu, c);
        assert.equal((await dqkv.floats()).every(Number.isFinite), dtype === 'bf16');
        dispose(qkv, cu, dOut, out, lse, dqkv);
      }
    });
  });
}

describe('attentionBackward, wrong arguments', () => {
  const heads = { numHeads: 2, numKvHeads: 1 };
  const qkv = zeros([5, 4, 8], 'fp16');
  const out = zeros([5, 16], 'fp16');
  const lse = zeros([2, 5]);
  const cu = cuSeqlensOf([5]);
  const wrong: [string, () => unknown, RegExp][] = [
    [
      'dOut',
      () => attentionBackward(zeros([5, 8], 'fp16'), qkv, out, lse, cu, heads),
      /^\[attentionBackward\] expected dOut of shape .*\[5, 16\], got \[5, 8\]/,
    ],
    [
      'dOut dtype',
      () => attentionBackward(zeros([5, 16]), qkv, out, lse, cu, heads),
      /dOut of dtype fp16, got fp32/,
    ],
    [
      'out',
      () => attentionBackward(out, qkv, zeros([4, 16], 'fp16'), lse, cu, heads),
      /expected out of shape .*got \[4, 16\]/,
    ],
    [
      'out dtype',
      () => attentionBackward(out, qkv, zeros([5, 16], 'bf16'), lse, cu, heads),
      /expected out of dtype fp16, got bf16/,
    ],
    [
      'lse',
      () => attentionBackward(out, qkv, out, zeros([5, 2]), cu, heads),
      /lse of shape .*\[2, 5\], got \[5, 2\]/,
    ],
    [
      'lse dtype',
      () => attentionBackward(out, qkv, out, zeros([2, 5], 'fp16'), cu, heads),
      /lse of dtype fp32/,
    ],
    [
      'heads',
      () => attentionBackward(out, qkv, out, lse, cu, { numHeads: 3, numKvHeads: 2 }),
      /numHeads to be a multiple/,
    ],
    [
      'scale',
      () => attentionBackward(out, qkv, out, lse, cu, { ...heads, scale: Infinity }),
      /scale to be a finite number/,
    ],
    ['cuSeqlens', () => attentionBackward(out, qkv, out, lse, zeros([2]), heads), /cuSeqlens of dtype int32/],
  ];
  for (const [name, act, message] of wrong)
    it(name, () => assert.throws(act, { code: 'ERR_INVALID_ARGUMENT', message }));

  it('offsets that do not end at the tokens', async () => {
    const bad = attentionBackward(out, qkv, out, lse, cuSeqlensOf([4]), heads);
    await assert.rejects(bad.data(), { code: 'ERR_DEVICE', message: /cuSeqlens to end at 5 tokens, got 4/ });
  });
});
