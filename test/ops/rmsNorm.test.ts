import assert from 'node:assert/strict';
import { after, describe, it } from 'node:test';
import { add } from '../../lib/ops/elementwise.js';
import { addRmsNorm, addRmsNormBackward, rmsNorm, rmsNormBackward } from '../../lib/ops/rmsNorm.js';
import { currentDevice, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { randomNormal, readTensors, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals, tolerance } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { addLanes, roundTo } from '../support/rounding.js';

const f = Math.fround;
// Up to more than a block of a GPU holds in registers.
const widths = [1, 5, 16, 33, 64, 100, 257, 1100, 8200];
const eps = 1e-6;
const start = memory().tensors;
after(() => assert.equal(memory().tensors, start));

/** The sum of squares in the order that follows from the length of a row (and on a GPU from its dtype). */
function squaresInOrder(v: ArrayLike<number>, dtype: NativeFloatDType): number {
  let [lanes, each] = [16, 1];
  if (currentDevice() === 'cuda') {
    // A group of threads takes parts of 16 bytes in turn (native/cuda/shared/rows.cuh).
    each = dtype === 'fp32' ? 4 : 8;
    for (lanes = 1; lanes < 512 && lanes * 2 < v.length / each; ) lanes *= 2;
  }
  const sums = new Float32Array(lanes);
  for (let i = 0; i < v.length; i++) {
    const lane = Math.floor(i / each) % lanes;
    sums[lane] = f(sums[lane]! + f(v[i]! * v[i]!));
  }
  let sum = 0;
  for (let warp = 0; warp < lanes; warp += 32) sum = f(sum + addLanes(sums.subarray(warp, warp + 32)));
  return sum;
}

/** One row in the arithmetic the op promises, each step rounded to fp32 (Math.fround) or `dtype`. */
function modelRow(
  v: ArrayLike<number>,
  weight: ArrayLike<number>,
  epsilon: number,
  roundings: 1 | 2,
  dtype: NativeFloatDType,
): number[] {
  const squares = squaresInOrder(v, dtype);
  const r = f(1 / f(Math.sqrt(f(f(squares / v.length) + f(epsilon)))));
  return Array.from(v, (value, i) => {
    const normalised = f(value * r);
    return roundTo(f((roundings === 2 ? roundTo(normalised, dtype) : normalised) * weight[i]!), dtype);
  });
}

/** The norm's forward pass in fp64. */
function norm64(v: ArrayLike<number>, weight: ArrayLike<number>, h: number): Float64Array {
  const y = new Float64Array(v.length);
  for (let row = 0; row < v.length; row += h) {
    let squares = 0;
    for (let i = 0; i < h; i++) squares += v[row + i]! ** 2;
    const r = 1 / Math.sqrt(squares / h + eps);
    for (let i = 0; i < h; i++) y[row + i] = v[row + i]! * r * weight[i]!;
  }
  return y;
}

/** Its gradients in fp64; held to finite differences below. */
function gradients64(dy: ArrayLike<number>, v: ArrayLike<number>, weight: ArrayLike<number>, h: number) {
  const dv = new Float64Array(v.length);
  const dw = new Float64Array(h);
  for (let row = 0; row < v.length; row += h) {
    let squares = 0;
    let along = 0;
    for (let i = 0; i < h; i++) {
      squares += v[row + i]! ** 2;
      along += dy[row + i]! * weight[i]! * v[row + i]!;
    }
    const r = 1 / Math.sqrt(squares / h + eps);
    for (let i = 0; i < h; i++) {
      dw[i]! += dy[row + i]! * v[row + i]! * r;
      dv[row + i] = r * dy[row + i]! * weight[i]! - (v[row + i]! * along * r ** 3) / h;
    }
  }
  return { dv, dw };
}

function inputs(shape: readonly number[], dtype: NativeFloatDType, seed: number) {
  const size = shape.reduce((a, b) => a * b, 1);
  const h = shape.at(-1)!;
  const make = (count: number, of: readonly number[], k: number) =>
    tensor(normals(count, seed + k), of, dtype);
  return {
    x: make(size, shape, 0),
    delta: make(size, shape, 1),
    weight: make(h, [h], 2),
    dy: make(size, shape, 3),
    dSum: make(size, shape, 4),
  };
}

function disposeAll(...tensors: Tensor[]): void {
  for (const t of tensors) t.dispose();
}

for (const level of vectorLevels()) {
  describe(`rmsNorm at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: forward passes equal the model of their roundings to the bit`, async () => {
        setVectorLevel(level);
        for (const h of widths) {
          const t = inputs([3, h], dtype, h);
          const [x, delta, weight] = (await readTensors([t.x, t.delta, t.weight])) as [
            Float32Array,
            Float32Array,
            Float32Array,
          ];
          for (const roundings of [1, 2] as const) {
            const alone = rmsNorm(t.x, t.weight, eps, roundings);
            const fused = addRmsNorm(t.x, t.delta, t.weight, eps, roundings);
            const [y, sum, fusedY] = await readTensors([alone, fused.sum, fused.y]);
            for (let row = 0; row < 3 * h; row += h) {
              const v = x.subarray(row, row + h);
              const s = v.map((value, i) => value + delta[row + i]!);
              const where = `h ${h}, roundings ${roundings}, row ${row / h}`;
              assertSameBits(
                y!.subarray(row, row + h),
                modelRow(v, weight, eps, roundings, dtype),
                `y, ${where}`,
              );
              assertSameBits(
                sum!.subarray(row, row + h),
                Array.from(s, (value) => roundTo(value, dtype)),
                `sum, ${where}`,
              );
              assertSameBits(
                fusedY!.subarray(row, row + h),
                modelRow(s, weight, eps, roundings, dtype),
                `fused, ${where}`,
              );
            }
            assertClose(y!, norm64(x, weight, h), dtype, `fp64, h ${h}, roundings ${roundings}`);
            disposeAll(alone, fused.sum, fused.y);
          }
          disposeAll(...Object.values(t));
        }
      });

      it(`${dtype}: gradients agree with fp64, and gradWeight accumulates`, async () => {
        setVectorLevel(level);
        for (const h of widths) {
          const rows = h === 33 ? 70 : h > 1000 ? 9 : 3; // 70 and 9: more than two blocks of rows
          const t = inputs([rows, h], dtype, 100 + h);
          const values = await readTensors([t.x, t.delta, t.weight, t.dy, t.dSum]);
          const [x, delta, weight, dy, dSum] = values as Float32Array[];
          const before = normals(h, 7).map(f);
          const gradWeight = tensor(before, [h]);
          const gradFused = tensor(before, [h]);
          const dx = rmsNormBackward(t.dy, t.x, t.weight, eps, gradWeight);
          const fused = addRmsNormBackward(t.dSum, t.dy, t.x, t.delta, t.weight, eps, gradFused);
          const frozen = rmsNormBackward(t.dy, t.x, t.weight, eps, null);
          const out = await readTensors([dx, gradWeight, fused, gradFused, frozen]);

          const alone = gradients64(dy!, x!, weight!, h);
          const s = Float64Array.from(x!, (value, i) => value + delta![i]!);
          const both = gradients64(dy!, s, weight!, h);
          if (h > 1) assertClose(out[0]!, alone.dv, dtype, `dx, h ${h}`);
          // With one element y is +-weight, and dx what remains of two numbers near dy * weight / |x|.
          else
            for (const [i, d] of out[0]!.entries()) {
              const slack = (1e-6 * Math.abs(dy![i]! * weight![0]!)) / Math.abs(x![i]!);
              const error = Math.abs(d - alone.dv[i]!);
              assert.ok(
                error <= slack + tolerance[dtype] * Math.abs(alone.dv[i]!),
                `dx, h 1: off by ${error}`,
              );
            }
          const total = (g: Float64Array) => g.map((value, i) => value + before[i]!);
          assertClose(out[1]!, total(alone.dw), 'fp32', `gradWeight, h ${h}`);
          const dxFused = both.dv.map((value, i) => value + dSum![i]!);
          assertClose(out[2]!, dxFused, dtype, `fused dx, h ${h}`);
          assertClose(out[3]!, total(both.dw), 'fp32', `fused gradWeight, h ${h}`);
          assertSameBits(out[4]!, out[0]!, 'without gradWeight');
          disposeAll(...Object.values(t), gradWeight, gradFused, dx, fused, frozen);
        }
      });

      it(`${dtype}: a row is the same in any batch, at any shape and number of threads`, async () => {
        setVectorLevel(level);
        const t = inputs([3, 100, 257], dtype, 9);
        const flat = t.x.reshape(300, 257);
        const row = flat.rows(211, 212);
        const run = async (threads: number) => {
          setThreads(threads);
          const gradWeight = zeros([257]);
          const y = rmsNorm(t.x, t.weight, eps, 2);
          const fused = addRmsNorm(t.x, t.delta, t.weight, eps);
          const dx = addRmsNormBackward(t.dSum, t.dy, t.x, t.delta, t.weight, eps, gradWeight);
          assert.deepEqual([y.shape, fused.sum.shape, fused.y.shape, dx.shape], Array(4).fill([3, 100, 257]));
          const results = await readTensors([y, fused.sum, fused.y, dx, gradWeight]);
          disposeAll(gradWeight, y, fused.sum, fused.y, dx);
          return results;
        };
        const one = await run(1);
        const three = await run(3);
        setThreads(2);
        for (let i = 0; i < one.length; i++)
          assertSameBits(three[i]!, one[i]!, `output ${i} at 1 and 3 threads`);
        const alone = rmsNorm(row, t.weight, eps, 2);
        assertSameBits(await alone.data(), one[0]!.subarray(211 * 257, 212 * 257), 'a row alone');
        disposeAll(...Object.values(t), flat, row, alone);
      });
    }

    it('gathers the weight gradient of many rows in one order at any number of threads', async () => {
      setVectorLevel(level);
      const shape = [3200, 1400];
      const x = randomNormal(shape, { seed: 1, dtype: 'bf16' });
      const dy = randomNormal(shape, { seed: 2, dtype: 'bf16' });
      const weight = randomNormal([1400], { seed: 3, dtype: 'bf16' });
      const results = [];
      for (const threads of [1, 3]) {
        setThreads(threads);
        const gradWeight = zeros([1400]);
        const dx = rmsNormBackward(dy, x, weight, eps, gradWeight);
        results.push(await gradWeight.floats());
        disposeAll(gradWeight, dx);
      }
      setThreads(2);
      assertSameBits(results[0]!, results[1]!, 'gradWeight');
      disposeAll(x, dy, weight);
    });

    it('keeps a row of zeros at zero, finite through eps, and lets infinities and NaN show', async () => {
      setVectorLevel(level);
      for (const dtype of floatDtypes) {
        const x = tensor([0, 0, 0, 0, Infinity, 1, 2, NaN, 3], [3, 3], dtype);
        const weight = tensor([1, 2, 3], [3], dtype);
        const dy = tensor([1, 1, 1, 1, 1, 1, 1, 1, 1], [3, 3], dtype);
        const y = rmsNorm(x, weight, eps, 1);
        const zero = x.rows(0, 1);
        const first = dy.rows(0, 1);
        const dx = rmsNormBackward(first, zero, weight, 0.25, null);
        const [values, gradient] = await readTensors([y, dx]);
        assert.deepEqual([...values!.subarray(0, 3)], [0, 0, 0]);
        assert.deepEqual([...values!.subarray(3, 6)], [0, NaN, 0]);
        assert.deepEqual([...values!.subarray(6, 9)], [NaN, NaN, NaN]);
        assert.deepEqual([...gradient!], [2, 4, 6]); // r = 1 / sqrt(0.25)
        disposeAll(x, weight, dy, y, zero, first, dx);
      }
    });
  });
}

describe('rmsNorm', () => {
  it('has reference gradients that agree with finite differences', () => {
    const h = 7;
    const [v, weight, dy] = [normals(2 * h, 1), normals(h, 2), normals(2 * h, 3)];
    const { dv, dw } = gradients64(dy, v, weight, h);
    const loss = (a: Float64Array, w: Float64Array) => norm64(a, w, h).reduce((l, y, i) => l + y * dy[i]!, 0);
    const nudge = (a: Float64Array, i: number, by: number) => a.with(i, a[i]! + by);
    for (let i = 0; i < 2 * h; i++) {
      const slope = (loss(nudge(v, i, 1e-5), weight) - loss(nudge(v, i, -1e-5), weight)) / 2e-5;
      assert.ok(Math.abs(slope - dv[i]!) < 1e-8, `dv ${i}`);
    }
    for (let i = 0; i < h; i++) {
      const slope = (loss(v, nudge(weight, i, 1e-5)) - loss(v, nudge(weight, i, -1e-5))) / 2e-5;
      assert.ok(Math.abs(slope - dw[i]!) < 1e-8, `dw ${i}`);
    }
  });

  it('differs, fused and apart, as the knobs say: by 16-bit rounding, and not in fp32', async () => {
    for (const dtype of floatDtypes) {
      const t = inputs([40, 64], dtype, 5);
      const sum = add(t.x, t.delta);
      const apart = rmsNorm(sum, t.weight, eps, 1);
      const twice = rmsNorm(sum, t.weight, eps, 2);
      const fused = addRmsNorm(t.x, t.delta, t.weight, eps, 1);
      const [s, a, b, fs, fy] = await readTensors([sum, apart, twice, fused.sum, fused.y]);
      assertSameBits(s!, fs!, 'sums');
      const changed = (p: ArrayLike<number>, q: ArrayLike<number>) =>
        Array.from(p, (value, i) => Number(value !== q[i])).reduce((n, d) => n + d, 0) / p.length;
      const limits = dtype === 'fp32' ? [0, 0] : [0.05, 0.5];
      for (const share of [changed(a!, fy!), changed(a!, b!)])
        assert.ok(share >= limits[0]! && share <= limits[1]!, `${dtype}: ${share}`);
      disposeAll(...Object.values(t), sum, apart, twice, fused.sum, fused.y);
    }
  });

  it('takes the norm of the rounded sum, and adds to a rounded gradient, as the ops apart do', async () => {
    for (const level of vectorLevels()) {
      setVectorLevel(level);
      for (const dtype of floatDtypes) {
        const t = inputs([37, 83], dtype, 6);
        const sum = add(t.x, t.delta);
        const [gradApart, gradJoined] = [zeros([83]), zeros([83])];
        const apart = rmsNorm(sum, t.weight, eps, 2);
        const joined = addRmsNorm(t.x, t.delta, t.weight, eps, 2, true);
        const dx = rmsNormBackward(t.dy, sum, t.weight, eps, gradApart);
        const dxApart = add(t.dSum, dx);
        const dxJoined = rmsNormBackward(t.dy, sum, t.weight, eps, gradJoined, t.dSum);
        for (const [name, found, expected] of [
          ['sum', joined.sum, sum],
          ['norm', joined.y, apart],
          ['gradient', dxJoined, dxApart],
          ['gradient of the weight', gradJoined, gradApart],
        ] as const) {
          assertSameBits(await found.data(), await expected.data(), `${level} ${dtype}: ${name}`);
        }
        disposeAll(...Object.values(t), sum, gradApart, gradJoined, apart, joined.sum, joined.y);
        disposeAll(dx, dxApart, dxJoined);
      }
    }
  });

  it('takes tensors without rows', async () => {
    const x = zeros([0, 8]);
    const weight = zeros([8]);
    const gradWeight = tensor([1, 2, 3, 4, 5, 6, 7, 8]);
    const y = rmsNorm(x, weight, eps);
    const dx = rmsNormBackward(x, x, weight, eps, gradWeight);
    assert.deepEqual(
      [y.shape, dx.shape],
      [
        [0, 8],
        [0, 8],
      ],
    );
    assert.deepEqual([...(await gradWeight.floats())], [1, 2, 3, 4, 5, 6, 7, 8]);
    disposeAll(x, weight, gradWeight, y, dx);
  });

  it('names the argument that does not fit', () => {
    const x = zeros([2, 4]);
    const half = zeros([2, 4], 'fp16');
    const other = zeros([2, 5]);
    const weight = zeros([4]);
    const ids = zeros([2, 4], 'int32');
    const scalar = zeros([]);
    const live = memory().tensors;
    const cases: [() => void, RegExp][] = [
      [() => rmsNorm(ids, weight, eps), /^\[rmsNorm\] expected x of dtype .*, got int32$/],
      [() => rmsNorm(scalar, weight, eps), /^\[rmsNorm\] expected x of at least 1 dimension, got \[\]$/],
      [() => rmsNorm(other, weight, eps), /^\[rmsNorm\] expected weight of shape \[H\] = \[5\], got \[4\]$/],
      [() => rmsNorm(half, weight, eps), /^\[rmsNorm\] expected weight of dtype fp16, got fp32$/],
      [() => rmsNorm(x, weight, -1), /expected eps of at least 0/],
      [() => rmsNorm(x, weight, 1e39), /expected eps of at least 0/],
      [() => rmsNorm(x, weight, NaN), /expected eps to be a finite number, got NaN/],
      [() => rmsNorm(x, weight, eps, 3 as 1), /expected roundings to be an integer from 1 to 2, got 3/],
      [() => addRmsNorm(x, other, weight, eps), /^\[addRmsNorm\] expected delta of shape \[2, 4\]/],
      [() => addRmsNorm(x, half, weight, eps), /expected delta of dtype fp32, got fp16/],
      [() => rmsNormBackward(other, x, weight, eps, null), /^\[rmsNormBackward\] expected dy of shape/],
      [() => rmsNormBackward(half, x, weight, eps, null), /expected dy of dtype fp32/],
      [
        () => rmsNormBackward(x, x, weight, eps, x),
        /expected gradWeight of shape \[H\] = \[4\], got \[2, 4\]/,
      ],
      [
        () => addRmsNormBackward(other, x, x, x, weight, eps, null),
        /^\[addRmsNormBackward\] expected dSum of shape/,
      ],
      [() => addRmsNormBackward(x, x, x, other, weight, eps, null), /expected delta of shape/],
    ];
    for (const [call, message] of cases) assert.throws(call, { code: 'ERR_INVALID_ARGUMENT', message });
    const half4 = zeros([4], 'fp16');
    assert.throws(() => rmsNormBackward(half, half, half4, eps, half4), {
      message: /expected gradWeight of dtype fp32, got fp16/,
    });
    half4.dispose();
    assert.equal(memory().tensors, live);
    disposeAll(x, half, other, weight, ids, scalar);
  });
});
