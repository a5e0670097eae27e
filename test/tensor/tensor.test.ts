import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { memory } from '../../lib/runtime.js';
import { dtypes, floatDtypes } from '../../lib/tensor/dtype.js';
import {
  cast,
  copy,
  empty,
  fill,
  full,
  randomNormal,
  readTensors,
  type Tensor,
  tensor,
  tensorFromBits,
  view,
  zeros,
} from '../../lib/tensor/tensor.js';
import { normals } from '../support/compare.js';

/** Runs body and fails where it leaves tensors behind. */
async function leavesNothing(body: (own: (t: Tensor) => Tensor) => Promise<void> | void): Promise<void> {
  const before = memory();
  const made: Tensor[] = [];
  await body((t) => {
    made.push(t);
    return t;
  });
  for (const t of made) t.dispose();
  assert.equal(memory().tensors, before.tensors, 'tensors');
  assert.equal(memory().bytes, before.bytes, 'bytes');
}

describe('tensors', () => {
  for (const dtype of dtypes) {
    it(`are made, described and read in ${dtype}`, () =>
      leavesNothing(async (own) => {
        const values = [0, 1, -2, 3, 100, -128];
        const t = own(tensor(values, [2, 3], dtype));
        assert.deepEqual([t.shape, t.dtype, t.size, t.disposed], [[2, 3], dtype, 6, false]);
        assert.equal(t.bytes, dtype === 'fp32' || dtype === 'int32' ? 24 : 12);
        const data = await t.data();
        assert.ok(dtype === 'int32' ? data instanceof Int32Array : data instanceof Float32Array);
        assert.deepEqual([...data], values);
        assert.deepEqual([...(await own(zeros([3], dtype)).data())], [0, 0, 0]);
        assert.deepEqual([...(await own(full([2], -7, dtype)).data())], [-7, -7]);
        assert.equal(await own(full([1, 1], 9, dtype)).item(), 9);
        assert.equal((await own(empty([0, 4], dtype)).data()).length, 0);
        const scalar = own(tensor([5], [], dtype));
        assert.deepEqual([scalar.shape, scalar.size, await scalar.item()], [[], 1, 5]);
        const duplicate = own(copy(t));
        fill(t, 1);
        assert.deepEqual([...(await duplicate.data())], values);
        assert.deepEqual([...(await t.data())], [1, 1, 1, 1, 1, 1]);
      }));
  }

  it('hold the documented bits', () =>
    leavesNothing(async (own) => {
      assert.deepEqual([...(await own(tensor([1, -2, 1.5], [3], 'fp16')).bits())], [0x3c00, 0xc000, 0x3e00]);
      assert.deepEqual([...(await own(tensor([1, -2, 1.5], [3], 'bf16')).bits())], [0x3f80, 0xc000, 0x3fc0]);
      assert.deepEqual([...(await own(tensor([1])).bits())], [0x3f800000]);
      assert.deepEqual([...(await own(tensor([-1], [1], 'int32')).bits())], [-1]);
      const half = own(tensorFromBits(new Uint16Array([0x3c00, 0x7c00]), [2], 'fp16'));
      assert.deepEqual([...(await half.floats())], [1, Infinity]);
    }));

  it('are read together, as each stood when the read was asked for', () =>
    leavesNothing(async (own) => {
      const a = own(tensor([1, 2]));
      const b = own(tensor([3], [1], 'int32'));
      const pending = readTensors([a, b, a]);
      a.upload([8, 9]);
      b.dispose();
      assert.deepEqual(await pending, [
        new Float32Array([1, 2]),
        new Int32Array([3]),
        new Float32Array([1, 2]),
      ]);
      assert.deepEqual(await readTensors([]), []);
    }));

  it('own what was uploaded: the caller may change its array at once', () =>
    leavesNothing(async (own) => {
      const values = new Float32Array([1, 2, 3]);
      const t = own(tensor(values));
      values.fill(0);
      assert.deepEqual([...(await t.data())], [1, 2, 3]);
      const part = new Float32Array([9, 8, 7, 6]).subarray(1, 4);
      t.upload(part);
      assert.deepEqual([...(await t.data())], [8, 7, 6]);
    }));

  it('refuse values that do not fit, and leak nothing then', () =>
    leavesNothing((own) => {
      for (const dtype of dtypes) {
        assert.throws(
          () => tensor([1, 2, 3], [2], dtype),
          /^InvalidArgumentError: \[upload\] expected 2 values for shape \[2\], got 3$/,
        );
        assert.throws(
          () => own(zeros([2, 2], dtype)).upload([1]),
          /expected 4 values for shape \[2, 2\], got 1/,
        );
      }
      assert.throws(
        () => tensorFromBits(new Uint16Array(3), [2], 'fp16'),
        /expected 4 bytes for fp16 \[2\], got 6/,
      );
      assert.throws(
        () => tensorFromBits(new Uint16Array(2), [1], 'fp32' as 'fp16'),
        /expected dtype to be one of fp16, bf16/,
      );
      for (const value of [1.5, 2 ** 31, -(2 ** 31) - 1, Number.NaN, Infinity])
        assert.throws(
          () => tensor([0, value], [2], 'int32'),
          /\[upload\] expected integers from -2\^31 to 2\^31 - 1/,
        );
      assert.throws(() => full([2], Number.NaN), /\[fill\] expected value to be a finite number, got NaN/);
      assert.throws(() => full([2], 0.5, 'int32'), /expected value to be a 32-bit integer/);
    }));

  it('refuse shapes and types that do not exist', () =>
    leavesNothing(() => {
      for (const shape of [[-1], [1.5], [Number.NaN], [1, 1, 1, 1, 1, 1], 'x' as unknown as number[]]) {
        assert.throws(() => empty(shape), /^InvalidArgumentError: \[empty\] expected /);
        assert.throws(() => tensor([1], shape), /^InvalidArgumentError: \[tensor\] expected /);
        assert.throws(
          () => randomNormal(shape, { seed: 1 }),
          /^InvalidArgumentError: \[randomNormal\] expected /,
        );
      }
      assert.throws(() => empty([1], 'fp8' as 'fp16'), /expected dtype to be fp16, bf16, .*got "fp8"/);
      assert.throws(() => empty([2 ** 31 - 1, 2 ** 31 - 1]), /^DeviceError: \[memory\] out of memory/);
      assert.throws(() => randomNormal([1], { seed: -1 }), /expected seed to be an integer/);
      assert.throws(() => randomNormal([1], { seed: 1, std: -1 }), /expected std of at least 0/);
    }));

  it('refuse to be read as what they are not', () =>
    leavesNothing(async (own) => {
      await assert.rejects(
        own(zeros([2], 'int32')).floats(),
        /expected a floating-point tensor, got "int32"/,
      );
      await assert.rejects(own(zeros([2])).item(), /\[item\] expected a tensor of one element, got \[2\]/);
    }));

  it('share memory with their views', () =>
    leavesNothing(async (own) => {
      const t = own(tensor([0, 1, 2, 3, 4, 5], [3, 2]));
      const bytes = memory().bytes;
      const flat = own(t.reshape(6));
      const row = own(t.rows(1, 3));
      const window = own(view(t, 3, [2]));
      assert.equal(memory().bytes, bytes);
      assert.deepEqual([flat.shape, row.shape, own(t.rows(2, 2)).shape], [[6], [2, 2], [0, 2]]);
      assert.deepEqual([...(await row.data())], [2, 3, 4, 5]);
      assert.deepEqual([...(await window.data())], [3, 4]);
      fill(window, 7);
      t.dispose();
      assert.deepEqual([...(await flat.data())], [0, 1, 2, 7, 7, 5]);
      assert.equal(memory().bytes, bytes);
    }));

  it('have bounds that views keep to', () =>
    leavesNothing((own) => {
      const t = own(zeros([3, 2]));
      assert.throws(() => t.reshape(5), /\[reshape\] expected a shape of 6 elements, got \[5\]/);
      assert.throws(() => t.reshape(-2, -3), /expected dimensions that are integers of at least 0, got -2/);
      for (const [begin, end] of [
        [-1, 1],
        [0, 4],
        [2, 1],
        [0.5, 1],
        [0, Number.NaN],
      ] as const)
        assert.throws(() => t.rows(begin, end), /\[rows\] expected 0 <= begin <= end <= 3, got /);
      assert.throws(() => own(tensor([1], [])).rows(0, 1), /\[rows\] expected/);
      assert.throws(
        () => view(t, 3, [4]),
        /\[view\] expected shape to fit the 6 elements of \[3, 2\], got \[4\] at element 3/,
      );
      assert.throws(() => view(t, -1, [1]), /expected offset to be an integer from 0/);
      assert.throws(() => view(t, 0.5, [1]), /expected offset to be an integer/);
      // Products of 2^64 and 2^63: nothing, and negative, in 64-bit integers.
      assert.throws(() => view(t, 0, [65536, 65536, 65536, 65536]), /expected shape to fit the 6 elements/);
      assert.throws(() => view(t, 0, [65536, 65536, 65536, 32768]), /expected shape to fit the 6 elements/);
    }));

  it('are refused by every entry point once disposed of', () =>
    leavesNothing(async (own) => {
      const gone = zeros([2]);
      const live = own(zeros([2]));
      const half = zeros([2], 'fp16');
      gone.dispose();
      gone.dispose();
      half.dispose();
      assert.ok(gone.disposed);
      const refused =
        /^InvalidArgumentError: \[\w+\] expected .*live tensor, got a tensor that was disposed of$/;
      for (const call of [
        () => gone.upload([1, 2]),
        () => half.upload([1, 2]),
        () => gone.reshape(2, 1),
        () => gone.rows(0, 1),
        () => fill(gone, 1),
        () => cast(gone, 'fp16'),
        () => cast(live, 'fp32', gone),
        () => copy(gone),
        () => copy(live, gone),
        () => view(gone, 0, [1]),
      ])
        assert.throws(call, refused);
      for (const read of [gone.data(), gone.floats(), gone.bits(), readTensors([live, gone])])
        await assert.rejects(read, refused);
      // Its slot is taken again: the old handle must not reach the new tensor.
      const next = own(full([2], 3));
      assert.throws(() => fill(gone, 1), refused);
      gone.dispose();
      assert.deepEqual([...(await next.data())], [3, 3]);
    }));

  it('take results of cast and copy where out is given, and say what does not fit', () =>
    leavesNothing(async (own) => {
      const x = own(tensor([1, 2.5]));
      const out = own(zeros([2], 'bf16'));
      assert.equal(cast(x, 'bf16', out), out);
      assert.deepEqual([...(await out.data())], [1, 2.5]);
      assert.throws(() => cast(x, 'fp16', out), /\[cast\] expected out of dtype fp16, got bf16/);
      assert.throws(
        () => cast(x, 'fp32', own(zeros([3]))),
        /\[cast\] expected out of shape \[2\], got \[3\]/,
      );
      assert.throws(
        () => cast(own(zeros([2], 'int32')), 'fp32'),
        /expected x of dtype fp32, fp16 or bf16, got int32/,
      );
      assert.throws(() => copy(x, out), /\[copy\] expected out of dtype fp32, got bf16/);
      assert.equal(copy(x, x), x);
    }));

  it('leave tensors and bytes as they were after a thousand iterations', () =>
    leavesNothing(async () => {
      const iteration = (i: number) => {
        const x = tensor(normals(100 + (i % 7), i), [100 + (i % 7)], floatDtypes[i % 3]!);
        const y = cast(x, 'fp32');
        const flat = y.reshape(1, y.size);
        for (const t of [x, y, flat]) t.dispose();
      };
      for (let i = 0; i < 1000; i++) iteration(i);
      const { cachedBytes } = memory();
      for (let i = 0; i < 1000; i++) iteration(i);
      assert.equal(memory().cachedBytes, cachedBytes);
    }));

  it('draw normal values that are a function of seed and stream', () =>
    leavesNothing(async (own) => {
      const draw = async (options: Parameters<typeof randomNormal>[1], size = 20_001) =>
        own(randomNormal([size], options)).floats();
      const a = await draw({ seed: 7 });
      assert.deepEqual(await draw({ seed: 7 }), a);
      assert.deepEqual(await draw({ seed: 7 }, 5), a.slice(0, 5));
      assert.notDeepEqual(await draw({ seed: 8 }), a);
      assert.notDeepEqual(await draw({ seed: 7, stream: 1 }), a);
      const b = await draw({ seed: 1, mean: 3, std: 0.5 });
      const mean = b.reduce((s, v) => s + v, 0) / b.length;
      const variance = b.reduce((s, v) => s + (v - mean) ** 2, 0) / b.length;
      assert.ok(Math.abs(mean - 3) < 0.02, `mean ${mean}`);
      assert.ok(Math.abs(variance - 0.25) < 0.01, `variance ${variance}`);
    }));
});
