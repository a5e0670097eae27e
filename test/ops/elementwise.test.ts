import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { accumulate, add, multiply, scale } from '../../lib/ops/elementwise.js';
import { memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, formats } from '../../lib/tensor/dtype.js';
import { cast, randomNormal, readTensors, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { roundTo } from '../support/rounding.js';

const f = Math.fround;
const sizes = [0, 1, 5, 16, 33, 64, 100, 257];
const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));

for (const level of vectorLevels()) {
  describe(`elementwise at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: every result is the fp32 result rounded once`, async () => {
        setVectorLevel(level);
        for (const size of sizes) {
          const a = tensor(normals(size, size), [size], dtype);
          const b = tensor(normals(size, size + 1), [size], dtype);
          const target = tensor(normals(size, size + 2), [size]);
          const [x, y, before] = await readTensors([a, b, target]);
          const sum = add(a, b);
          const product = multiply(a, b);
          const scaled = scale(a, 0.3);
          accumulate(target, b);
          const [s, p, k, t] = await readTensors([sum, product, scaled, target]);
          const model = (value: (i: number) => number, to = dtype) =>
            Array.from({ length: size }, (_, i) => roundTo(f(value(i)), to));
          assertSameBits(
            s!,
            model((i) => x![i]! + y![i]!),
            `add, ${size}`,
          );
          assertSameBits(
            p!,
            model((i) => x![i]! * y![i]!),
            `multiply, ${size}`,
          );
          assertSameBits(
            k!,
            model((i) => x![i]! * f(0.3)),
            `scale, ${size}`,
          );
          assertSameBits(
            t!,
            model((i) => before![i]! + y![i]!, 'fp32'),
            `accumulate, ${size}`,
          );
          for (const each of [a, b, target, sum, product, scaled]) each.dispose();
        }
      });

      it(`${dtype}: infinities, NaN, overflow, underflow and signed zeros come out as IEEE 754 says`, async () => {
        setVectorLevel(level);
        const { max, minSubnormal } = formats[dtype];
        const a = tensor([Infinity, Infinity, -Infinity, NaN, max, -0, minSubnormal], [7], dtype);
        const b = tensor([1, -Infinity, 0, 1, max, -0, 0.5], [7], dtype);
        const sum = add(a, b);
        const product = multiply(a, b);
        const [s, p] = await readTensors([sum, product]);
        assertSameBits(s!.subarray(0, 6), [Infinity, NaN, -Infinity, NaN, Infinity, -0], 'add');
        // Half the smallest subnormal is a tie, which goes to the even neighbour: 0.
        assertSameBits(p!, [Infinity, -Infinity, NaN, NaN, Infinity, 0, 0], 'multiply');
        for (const each of [a, b, sum, product]) each.dispose();
      });

      it(`${dtype}: the same bits at 1 and 3 threads`, async () => {
        setVectorLevel(level);
        const shape = [3, 70001];
        const a = randomNormal(shape, { seed: 1, dtype });
        const b = randomNormal(shape, { seed: 2, dtype });
        const runs = [];
        for (const threads of [1, 3]) {
          setThreads(threads);
          const sum = add(a, b);
          const target = zeros(shape);
          accumulate(target, a);
          accumulate(target, b);
          assert.deepEqual(sum.shape, shape);
          runs.push(await readTensors([sum, target]));
          sum.dispose();
          target.dispose();
        }
        setThreads(2);
        assertSameBits(runs[0]![0]!, runs[1]![0]!, 'add');
        assertSameBits(runs[0]![1]!, runs[1]![1]!, 'accumulate');
        a.dispose();
        b.dispose();
      });
    }
  });
}

describe('elementwise', () => {
  it('is checked against a model of rounding that agrees with cast()', async () => {
    const { minSubnormal } = formats.fp16;
    const values = Float32Array.from([
      ...normals(2000, 3),
      ...normals(2000, 4, 1e-5),
      ...[
        65504,
        65519.9,
        65520,
        -65520,
        3.4e38,
        1 + 2 ** -11,
        1 + 3 * 2 ** -11,
        1 + 2 ** -8,
        minSubnormal / 2,
      ],
      ...[Infinity, -Infinity, 0, -0, 1e-40, 3 * 2 ** -25],
    ]);
    for (const dtype of floatDtypes) {
      const t = tensor(values);
      const rounded = cast(t, dtype);
      assertSameBits(
        await rounded.floats(),
        Array.from(values, (x) => roundTo(x, dtype)),
        dtype,
      );
      t.dispose();
      rounded.dispose();
    }
  });

  it('adds a tensor to itself', async () => {
    const x = tensor([1, 2, 3]);
    accumulate(x, x);
    const twice = add(x, x);
    assert.deepEqual([...(await twice.floats())], [4, 8, 12]);
    x.dispose();
    twice.dispose();
  });

  it('names the argument that does not fit', () => {
    const x = zeros([2, 3]);
    const other = zeros([3, 2]);
    const half = zeros([2, 3], 'fp16');
    const ids = zeros([2, 3], 'int32');
    const live = memory().tensors;
    const cases: [() => void, RegExp][] = [
      [() => add(ids, ids), /^\[add\] expected a of dtype fp32, fp16 or bf16, got int32$/],
      [() => add(x, other), /^\[add\] expected b of shape \[2, 3\], got \[3, 2\]$/],
      [() => multiply(x, half), /^\[multiply\] expected b of dtype fp32, got fp16$/],
      [() => scale(ids, 2), /^\[scale\] expected x of dtype/],
      [() => scale(x, NaN), /^\[scale\] expected factor to be a finite number, got NaN$/],
      [() => scale(x, 1e39), /^\[scale\] expected factor within the range of fp32/],
      [() => accumulate(half, x), /^\[accumulate\] expected target of dtype fp32, got fp16$/],
      [() => accumulate(x, other), /^\[accumulate\] expected x of shape \[2, 3\], got \[3, 2\]$/],
      [() => accumulate(x, ids), /^\[accumulate\] expected x of dtype/],
    ];
    for (const [call, message] of cases) assert.throws(call, { code: 'ERR_INVALID_ARGUMENT', message });
    assert.equal(memory().tensors, live);
    for (const t of [x, other, half, ids]) t.dispose();
  });
});
