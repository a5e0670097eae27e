import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { KernelFamily } from '../../lib/numerics.js';
import { gemm } from '../../lib/ops/gemm.js';
import { linear, linearInputGradient, linearWeightGradient } from '../../lib/ops/linear.js';
import { info, memory, record, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tidy } from '../../lib/tensor/scope.js';
import { cast, copy, empty, readTensors, type Tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { matrix, normalTensor, product64, resultDtypes } from '../support/gemmReference.js';
import { vectorLevels } from '../support/levels.js';

const families: readonly KernelFamily[] = ['rollout', 'training'];
const threads = info().threads;
const best = info().vectorLevel;
// Query, key and value widths with tails, over K = 70.
const widths = [33, 16, 50];
const sum = widths.reduce((a, b) => a + b, 0);
const depth = 70;

let before = 0;
beforeEach(() => {
  before = memory().tensors;
});
afterEach(() => {
  setThreads(threads);
  setVectorLevel(best);
  assert.equal(memory().tensors, before, 'tensors left behind');
});

async function values(body: () => Tensor[]): Promise<Float32Array[]> {
  const tensors = tidy(body);
  const read = await readTensors(tensors);
  for (const t of tensors) t.dispose();
  return read as Float32Array[];
}

/** A merged weight [sum, depth] and the windows on it that are the separate ones. */
function weightsOf(dtype: NativeFloatDType): { merged: Tensor; separate: Tensor[] } {
  const merged = normalTensor([sum, depth], dtype, 21);
  let row = 0;
  const separate = widths.map((n) => {
    row += n;
    return merged.rows(row - n, row);
  });
  return { merged, separate };
}

for (const level of vectorLevels()) {
  for (const dtype of floatDtypes) {
    describe(`linear ${dtype} at ${level}`, () => {
      beforeEach(() => setVectorLevel(level));

      for (const rows of [1, 7, 130]) {
        for (const family of families) {
          it(`${family}, ${rows} rows: merged and separate weights give the same bits, with and without bias`, async () => {
            for (const outDtype of resultDtypes(dtype)) {
              for (const splitK of [0, 24]) {
                const options = { family, splitK, outDtype } as const;
                const [x, w, bias, ...results] = await values(() => {
                  const input = normalTensor([rows, depth], dtype, 20);
                  const { merged, separate } = weightsOf(dtype);
                  const shift = normalTensor([sum], dtype, 22);
                  const [q, k, v] = [shift.rows(0, 33), shift.rows(33, 49), shift.rows(49, 99)];
                  const apart = separate.map((weight) => copy(weight)); // no longer side by side
                  return [
                    input,
                    merged,
                    shift,
                    linear(input, [merged], options),
                    linear(input, separate, options),
                    gemm(input, merged, { ...options, transposeB: true }),
                    linear(input, separate, { ...options, biases: [q, null, v] }),
                    linear(input, [merged], { ...options, biases: [shift] }),
                    linear(input, separate, { ...options, biases: [q, k, v] }),
                    linear(input, apart, options),
                    linear(input, apart, { ...options, biases: [q, k, v] }),
                  ];
                });
                const [one, three, product, partly, biased, biasedThree, far, biasedFar] = results;
                assertSameBits(three!, one!, 'separate');
                assertSameBits(product!, one!, 'gemm');
                assertSameBits(far!, one!, 'weights apart');
                for (const other of [biasedThree!, biasedFar!]) assertSameBits(other, biased!, 'all biases');
                const left = matrix(x!, rows, depth);
                const expected = product64(left, matrix(w!, depth, sum, true));
                assertClose(one!, expected, outDtype, 'product');
                assertClose(
                  biased!,
                  expected.map((y, i) => y + bias![i % sum]!),
                  outDtype,
                  'biased',
                );
                const hasNone = (i: number) => i % sum >= 33 && i % sum < 49;
                assertSameBits(
                  partly!,
                  biased!.map((y, i) => (hasNone(i) ? one![i]! : y)),
                  'one bias left out',
                );
              }
            }
          });
        }

        it(`input gradient, ${rows} rows: products added in fp32 in order, rounded once`, async () => {
          for (const outDtype of resultDtypes(dtype)) {
            const [dy, w, dx, dx1, ordered] = await values(() => {
              const gradient = normalTensor([rows, sum], dtype, 23);
              const { merged, separate } = weightsOf(dtype);
              const parts = empty([rows, depth]);
              let column = 0;
              for (const [i, weight] of separate.entries()) {
                const block = columnsOf(gradient, column, widths[i]!);
                gemm(block, weight, { out: parts, accumulate: i > 0 });
                column += widths[i]!;
              }
              return [
                gradient,
                merged,
                linearInputGradient(gradient, separate, outDtype),
                linearInputGradient(gradient, [merged], outDtype),
                cast(parts, outDtype),
              ];
            });
            const expected = product64(matrix(dy!, rows, sum), matrix(w!, sum, depth));
            assertClose(dx!, expected, outDtype, 'separate');
            assertClose(dx1!, expected, outDtype, 'merged');
            assertSameBits(dx!, ordered!, 'order of the products');
          }
        });

        it(`weight gradient, ${rows} rows: adds to what is there, block by block`, async () => {
          const [dy, x, start, ...grads] = await values(() => {
            const gradient = normalTensor([rows, sum], dtype, 24);
            const input = normalTensor([rows, depth], dtype, 25);
            const first = normalTensor([sum, depth], 'fp32', 26);
            const all = cast(first, 'fp32');
            linearWeightGradient(gradient, input, 0, all);
            const parts = cast(first, 'fp32');
            let row = 0;
            for (const n of widths) {
              linearWeightGradient(gradient, input, row, parts.rows(row, row + n));
              row += n;
            }
            const fresh = normalTensor([sum, depth], 'fp32', 27);
            linearWeightGradient(gradient, input, 0, fresh, false);
            const zero = zeros([sum, depth]);
            linearWeightGradient(gradient, input, 0, zero);
            return [gradient, input, first, all, parts, fresh, zero];
          });
          const expected = product64(matrix(dy!, sum, rows, true), matrix(x!, rows, depth));
          assertClose(
            grads[0]!,
            expected.map((g, i) => g + start![i]!),
            'fp32',
            'grad',
          );
          assertSameBits(grads[1]!, grads[0]!, 'by blocks');
          assertSameBits(grads[2]!, grads[3]!, 'instead of what is there');
        });
      }

      it('gives the same bits at 1 and 3 threads', async () => {
        const run = () =>
          values(() => {
            const x = normalTensor([700, 130], dtype, 27);
            const weights = [normalTensor([60, 130], dtype, 28), normalTensor([70, 130], dtype, 29)];
            const grad = zeros([70, 130]);
            const y = linear(x, weights);
            linearWeightGradient(y, x, 60, grad);
            return [y, linearInputGradient(y, weights), grad];
          });
        setThreads(1);
        const one = await run();
        setThreads(3);
        const three = await run();
        for (const [i, t] of three.entries()) assertSameBits(t, one[i]!, `output ${i}`);
      });
    });
  }
}

/** Columns begin to begin + count of a matrix, by a product with a selection matrix: exact. */
function columnsOf(t: Tensor, begin: number, count: number): Tensor {
  const columns = t.shape[1]!;
  const pick = zeros([columns, count]);
  pick.upload(
    Float32Array.from({ length: columns * count }, (_, i) =>
      Math.floor(i / count) === begin + (i % count) ? 1 : 0,
    ),
  );
  return gemm(t, cast(pick, t.dtype as NativeFloatDType));
}

describe('linear', () => {
  it('has the gradients that finite differences of an fp64 forward pass show', async () => {
    const [rows, k, n] = [5, 7, 6];
    const x64 = Float64Array.from(normals(rows * k, 30), Math.fround);
    const w64 = Float64Array.from(normals(n * k, 31), Math.fround);
    const weight64 = Float64Array.from(normals(rows * n, 32), Math.fround);
    // The loss is sum of weight * (x W^T)^2 / 2, so that dy = weight * y depends on both inputs.
    const forward = (x: ArrayLike<number>, w: ArrayLike<number>) =>
      product64(matrix(x, rows, k), matrix(w, k, n, true));
    const loss = (x: ArrayLike<number>, w: ArrayLike<number>) =>
      forward(x, w).reduce((total, y, i) => total + (weight64[i]! * y * y) / 2, 0);
    const slope = (values: Float64Array, i: number, f: (v: Float64Array) => number) => {
      const step = 1e-5;
      const moved = (by: number) => Float64Array.from(values, (v, j) => (j === i ? v + by : v));
      return (f(moved(step)) - f(moved(-step))) / (2 * step);
    };
    const dy64 = forward(x64, w64).map((y, i) => y * weight64[i]!);
    const [dx, dw] = await values(() => {
      const x = empty([rows, k]);
      x.upload(x64);
      const w = empty([n, k]);
      w.upload(w64);
      const dy = empty([rows, n]);
      dy.upload(dy64);
      const grad = zeros([n, k]);
      linearWeightGradient(dy, x, 0, grad);
      return [linearInputGradient(dy, [w]), grad];
    });
    assertClose(
      dx!,
      x64.map((_, i) => slope(x64, i, (v) => loss(v, w64))),
      'fp32',
      'dx',
      1e-6,
    );
    assertClose(
      dw!,
      w64.map((_, i) => slope(w64, i, (v) => loss(x64, v))),
      'fp32',
      'dW',
      1e-6,
    );
  });

  it('can be recorded and replayed on new contents', async () => {
    const x = normalTensor([3, 8], 'fp32', 33);
    const w = [normalTensor([5, 8], 'fp32', 34), normalTensor([4, 8], 'fp32', 35)];
    const { recording, result } = record(() => {
      const y = linear(x, w);
      return [y, linearInputGradient(y, w)];
    });
    x.upload(normals(24, 36));
    recording.replay();
    const replayed = await readTensors(result);
    const now = await values(() => {
      const y = linear(x, w);
      return [y, linearInputGradient(y, w)];
    });
    assertSameBits(replayed[0]!, now[0]!, 'y');
    assertSameBits(replayed[1]!, now[1]!, 'dx');
    recording.dispose();
    for (const t of [x, ...w, ...result]) t.dispose();
  });

  it('accepts no rows, and adds nothing to a gradient of no rows', async () => {
    const [y, dx, grad, fresh] = await values(() => {
      const x = zeros([0, 4]);
      const w = normalTensor([3, 4], 'fp32', 37);
      const started = cast(w, 'fp32');
      const out = linear(x, [w, w]);
      linearWeightGradient(out, x, 3, started);
      const fresh = cast(w, 'fp32');
      linearWeightGradient(out, x, 3, fresh, false);
      return [out, linearInputGradient(out, [w, w]), started, fresh, w];
    });
    assert.equal(y!.length + dx!.length, 0);
    assertSameBits(fresh!, new Float32Array(12), 'fresh');
    const w = normals(12, 37).map(Math.fround);
    assertSameBits(grad!, w, 'grad');
  });

  it('names what is wrong with its arguments', () => {
    tidy(() => {
      const fails = (body: () => unknown, message: RegExp) =>
        assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
      const x = zeros([4, 6]);
      const w = zeros([5, 6]);
      fails(
        () => linear(zeros([2, 2, 6]), [w]),
        /^\[linear\] expected x of 2 dimensions \[rows, K\], got \[2, 2, 6\]$/,
      );
      fails(() => linear(x, []), /the number of weights to be an integer from 1 to 16, got 0/);
      fails(() => linear(x, [w, zeros([5, 7])]), /weights\[1\] of shape \[N, K\] with K = 6, got \[5, 7\]/);
      fails(() => linear(x, [zeros([6])]), /weights\[0\] of 2 dimensions/);
      fails(() => linear(x, [w, zeros([5, 6], 'fp16')]), /weights\[1\] of dtype fp32, got fp16/);
      fails(() => linear(x, [w], { biases: [zeros([6])] }), /biases\[0\] of shape \[N\] = \[5\], got \[6\]/);
      fails(() => linear(x, [w], { biases: [zeros([5], 'bf16')] }), /biases\[0\] of dtype fp32, got bf16/);
      fails(() => linear(x, [w], { biases: [] }), /\[linear\] expected biases to be 1, one a weight/);
      fails(() => linear(x, [w], { outDtype: 'bf16' }), /outDtype to be fp32, got bf16/);
      fails(() => linear(x, [w], { splitK: 0.5 }), /splitK to be an integer/);
      fails(
        () => linear(x, [w], { family: 'both' as KernelFamily }),
        /family to be one of rollout, training/,
      );
      fails(() => linear(zeros([4, 6], 'int32'), [w]), /x of dtype fp32, fp16 or bf16, got int32/);

      const dy = zeros([4, 10]);
      fails(
        () => linearInputGradient(dy, [w]),
        /\[linearInputGradient\] expected dy of shape .* with sum of N = 5, got \[4, 10\]/,
      );
      fails(() => linearInputGradient(dy, [w, zeros([5, 7])]), /weights\[1\] of shape \[N, K\] with K = 6/);
      fails(() => linearInputGradient(dy, [w, zeros([5, 6], 'bf16')]), /weights\[1\] of dtype fp32/);
      fails(() => linearInputGradient(dy, [w, w], 'fp16'), /dtype to be fp32, got fp16/);
      fails(() => linearInputGradient(zeros([10]), [w, w]), /dy of 2 dimensions/);
      fails(() => linearInputGradient(dy, []), /the number of weights/);

      const grad = zeros([5, 6]);
      fails(
        () => linearWeightGradient(dy, zeros([3, 6]), 0, grad),
        /x of shape \[rows, K\] with rows = 4, got \[3, 6\]/,
      );
      fails(() => linearWeightGradient(dy, zeros([4, 6], 'fp16'), 0, grad), /x of dtype fp32, got fp16/);
      fails(
        () => linearWeightGradient(dy, x, 6, grad),
        /columnOffset \+ N of at most the 10 columns of dy, got 6 \+ 5/,
      );
      fails(() => linearWeightGradient(dy, x, -1, grad), /columnOffset to be an integer of at least 0/);
      fails(
        () => linearWeightGradient(dy, x, 0, zeros([5, 7])),
        /grad of shape \[N, K\] with K = 6, got \[5, 7\]/,
      );
      fails(() => linearWeightGradient(dy, x, 0, zeros([5, 6], 'bf16')), /grad of dtype fp32, got bf16/);
      fails(() => linearWeightGradient(zeros([6, 6]), zeros([6, 6]), 0, zeros([6])), /grad of 2 dimensions/);
      const square = zeros([6, 6]);
      fails(() => linearWeightGradient(square, zeros([6, 6]), 0, square), /grad to have memory of its own/);
    });
  });
});
