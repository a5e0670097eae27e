import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { KernelFamily } from '../../lib/numerics.js';
import { gemm } from '../../lib/ops/gemm.js';
import { linear, linearInputGradient, linearWeightGradient } from '../../lib/ops/linear.js';
import { currentDevice, setDevice } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tidy } from '../../lib/tensor/scope.js';
import { cast, full, readTensors, type Tensor, tensor, view, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { needsCuda } from '../support/cuda.js';
import { matrix, normalTensor, product64 } from '../support/gemmReference.js';
import { ownTensors } from '../support/owned.js';

ownTensors();
const initial = currentDevice();
const families: readonly KernelFamily[] = ['rollout', 'training'];
const flags = [false, true] as const;

/** Runs `body`, reads the tensors it returns and disposes of everything it made. */
async function values(body: () => Tensor[]): Promise<Float32Array[]> {
  const tensors = tidy(body);
  const read = await readTensors(tensors);
  for (const t of tensors) t.dispose();
  return read as Float32Array[];
}

/** The values with NaN before and behind them, `offset` elements from where memory is aligned. */
function amidNaN(
  values: ArrayLike<number>,
  shape: readonly number[],
  dtype: NativeFloatDType,
  offset: number,
): Tensor {
  const padded = new Float32Array(values.length + offset + 64).fill(Number.NaN);
  padded.set(values as ArrayLike<number>, offset);
  return view(tensor(padded, [padded.length], dtype), offset, shape);
}

/** [rows, columns] as it is, or stored as [columns, rows]. */
function stored(
  values: ArrayLike<number>,
  rows: number,
  columns: number,
  transposed: boolean,
  dtype: NativeFloatDType,
  offset: number,
): Tensor {
  if (!transposed) return amidNaN(values, [rows, columns], dtype, offset);
  const turned = Float32Array.from(values, (_, i) => values[(i % rows) * columns + Math.floor(i / rows)]!);
  return amidNaN(turned, [columns, rows], dtype, offset);
}

describe('products on a GPU', needsCuda(), () => {
  before(() => setDevice('cuda'));
  after(() => setDevice(initial));

  for (const dtype of floatDtypes) {
    for (const family of families) {
      // On a device of few multiprocessors such an n makes a product of every kind of tile, by the number of rows.
      for (const [k, splitK] of [
        [72, 0],
        [200, 64],
        [168, 40],
      ] as const) {
        it(`${family} ${dtype}, k = ${k}, splitK ${splitK}: an element has the same bits in every tile`, async () => {
          const [m, n] = [504, 504];
          const left = normals(m * k, 1);
          const right = normals(k * n, 2);
          const options = { family, splitK, outDtype: 'fp32' } as const;
          const [all, a, b] = await values(() => {
            const x = stored(left, m, k, false, dtype, 16);
            const y = stored(right, k, n, true, dtype, 16);
            return [gemm(x, y, { ...options, transposeB: true }), cast(x, 'fp32'), cast(y, 'fp32')];
          });
          const few = 20;
          const expected = product64(matrix(a!, few, k), matrix(b!, k, n, true));
          assertClose(all!.subarray(0, few * n), expected, 'fp32', 'the first rows');
          for (const transposeA of flags) {
            for (const transposeB of flags) {
              // Memory that is aligned to 16 bytes, and memory that is not: a few rows take the other path as well.
              for (const [rows, offsetA, offsetB] of [
                [m, 8, 8],
                [70, 1, 16],
                [70, 8, 3],
              ] as const) {
                const label = `transposes ${transposeA} ${transposeB}, offsets ${offsetA} ${offsetB}`;
                // How C is stored does not depend on how both operands lie: the larger one is rounded for half of that.
                const outDtype = rows === m && transposeA !== transposeB ? 'fp32' : dtype;
                const [c, rounded, castWide] = await values(() => {
                  const x = stored(left.subarray(0, rows * k), rows, k, transposeA, dtype, offsetA);
                  const y = stored(right, k, n, transposeB, dtype, offsetB);
                  const flags = { ...options, transposeA, transposeB };
                  const wide = gemm(x, y, flags);
                  if (outDtype === 'fp32') return [wide];
                  return [wide, gemm(x, y, { ...flags, outDtype }), cast(wide, outDtype)];
                });
                assertSameBits(c!, all!.subarray(0, rows * n), label);
                if (outDtype !== 'fp32') assertSameBits(rounded!, castWide!, `${label}, rounded`);
              }
            }
          }
          for (const rows of [1, 16, 17, 32, 33, 64, 65, 130, 300]) {
            const [part, narrow] = await values(() => {
              const x = stored(left, m, k, false, dtype, 0);
              const y = stored(right, k, n, true, dtype, 0);
              const some = x.rows(100, 100 + rows);
              return [
                gemm(some, y, { ...options, transposeB: true }),
                gemm(some, y.rows(40, 51), { ...options, transposeB: true }),
              ];
            });
            const same = all!.subarray(100 * n, (100 + rows) * n);
            assertSameBits(part!, same, `${rows} rows`);
            assertSameBits(
              narrow!,
              same.filter((_, i) => i % n >= 40 && i % n < 51),
              `${rows} rows, 11 columns`,
            );
          }
        });
      }

      it(`${family} ${dtype}: a row has the same bits among 1 to 130 rows`, async () => {
        const [n, k] = [24, 56];
        for (const splitK of [0, 24]) {
          const results = await values(() => {
            const a = normalTensor([130, k], dtype, 3);
            const b = normalTensor([n, k], dtype, 4);
            const options = { family, splitK, transposeB: true, outDtype: 'fp32' } as const;
            return Array.from({ length: 130 }, (_, i) => gemm(a.rows(0, i + 1), b, options));
          });
          const all = results[129]!;
          for (const c of results)
            assertSameBits(c, all.subarray(0, c.length), `${c.length / n} rows, splitK ${splitK}`);
        }
      });
    }

    it(`${dtype}: sums are chains of steps of k, joined as the family and splitK say`, async () => {
      // What is small is lost beside what is large, and the large parts cancel: the order shows in what is left.
      const step = dtype === 'fp32' ? 1 : 16;
      const large = 2 ** 15;
      const sumOf = async (parts: readonly number[], family: KernelFamily, pieceSteps: number, m: number) => {
        const k = parts.length * step;
        const [c] = await values(() => {
          const a = new Float32Array(m * k).map((_, i) => (i % step === 0 ? parts[(i % k) / step]! : 0));
          const b = full([40, k], large, dtype);
          const options = { transposeB: true, family, splitK: pieceSteps * step, outDtype: 'fp32' } as const;
          return [gemm(tensor(a, [m, k], dtype), b, options)];
        });
        for (const x of c!) assert.equal(x, c![0]);
        return c![0]! / large;
      };
      const small = 2 ** -15;
      const parts = [large, small, -large, small, small];
      for (const m of [3, 20, 40, 70, 200]) {
        assert.equal(await sumOf(parts, 'training', 0, m), 2 * small, 'one chain');
        assert.equal(await sumOf(parts, 'rollout', 0, m), 3 * small, 'even and odd steps');
        for (const family of families)
          assert.equal(await sumOf(parts, family, 1, m), 2 * small, 'pieces of a step, in order');
        assert.equal(
          await sumOf(parts, 'training', 2, m),
          small,
          'the second of two pieces takes all but one',
        );
        assert.equal(await sumOf(parts, 'training', 3, m), 2 * small, 'the first of two pieces has lost one');
        assert.equal(await sumOf(parts, 'rollout', 3, m), 3 * small, 'the first of two pieces has lost none');
      }
    });

    it(`${dtype}: gradients of windows on wider rows, wherever they lie`, async () => {
      const widths = [32, 16, 48];
      const [rows, depth] = [70, 64];
      const sum = widths.reduce((a, b) => a + b, 0);
      const gradient = normals(rows * sum, 5);
      const inputs = normals(rows * depth, 6);
      const weightOf = (i: number) => normals(widths[i]! * depth, 7 + i);
      const run = (offset: number) =>
        values(() => {
          const dy = amidNaN(gradient, [rows, sum], dtype, offset);
          const x = amidNaN(inputs, [rows, depth], dtype, offset);
          const weights = widths.map((n, i) => amidNaN(weightOf(i), [n, depth], dtype, offset));
          const grads = widths.map((n) => zeros([n, depth]));
          let column = 0;
          for (const [i, grad] of grads.entries()) {
            linearWeightGradient(dy, x, column, grad);
            column += widths[i]!;
          }
          return [
            linear(x, weights),
            linearInputGradient(dy, weights),
            ...grads,
            cast(dy, 'fp32'),
            cast(x, 'fp32'),
          ];
        });
      const aligned = await run(8);
      const shifted = await run(1);
      for (const [i, t] of shifted.entries()) assertSameBits(t, aligned[i]!, `result ${i}`);
      const [dy, x] = aligned.slice(-2);
      const grad64 = product64(matrix(dy!, sum, rows, true), matrix(x!, rows, depth));
      let row = 0;
      for (const [i, n] of widths.entries()) {
        assertClose(aligned[2 + i]!, grad64.subarray(row * depth, (row + n) * depth), 'fp32', `grad ${i}`);
        row += n;
      }
    });
  }
});
