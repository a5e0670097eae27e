import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { combineExperts, combineExpertsBackward } from '../../lib/ops/combineExperts.js';
import { setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { readTensors, type Tensor, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { noEmulated } from '../support/dtypes.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';
import { roundTo } from '../support/rounding.js';

const own = ownTensors();
const f = Math.fround;

// tokens, k, width: one of each, tails of vectors, several threads' worth, no tokens, rows of no width.
const cases = [
  [1, 1, 1],
  [7, 2, 33],
  [5, 8, 16],
  [90, 4, 301],
  [0, 2, 5],
  [3, 2, 0],
] as const;

function ints(values: readonly number[], shape: readonly number[]): Tensor {
  return own(tensor(Int32Array.from(values), shape, 'int32'));
}

/** A permutation of 0 to n - 1 that is not its own inverse. */
function permutation(n: number): number[] {
  const keys = normals(n, 40 + n);
  return Array.from(keys.keys()).sort((a, b) => keys[a]! - keys[b]!);
}

function inputs([tokens, k, width]: readonly [number, number, number], dtype: NativeFloatDType) {
  return {
    y: own(tensor(normals(tokens * k * width, 1), [tokens * k, width], dtype)),
    weights: own(tensor(normals(tokens * k, 2), [tokens, k])),
    rows: ints(permutation(tokens * k), [tokens, k]),
    dOut: own(tensor(normals(tokens * width, 3), [tokens, width], dtype)),
  };
}

for (const level of vectorLevels()) {
  describe(`combineExperts at ${level}`, () => {
    for (const dtype of floatDtypes) {
      it(`${dtype}: adds in the order of the slots and rounds where its argument says, to the bit`, async () => {
        for (const shape of cases) {
          const [tokens, k, width] = shape;
          const { y, weights, rows } = inputs(shape, dtype);
          const [v, w, r] = await readTensors([y, weights, rows]);
          for (const roundings of [1, 3] as const) {
            const rounded = (x: number) => (roundings === 3 ? roundTo(x, dtype) : x);
            const exact = new Float64Array(tokens * width);
            const expected = exact.map((_, i) => {
              const [t, c] = [Math.floor(i / width), i % width];
              let sum = 0;
              for (let s = 0; s < k; s++) {
                const at = t * k + s;
                const value = v![r![at]! * width + c]!;
                const product = rounded(f(rounded(w![at]!) * value));
                sum = s === 0 ? product : rounded(f(sum + product));
                exact[i]! += w![at]! * value;
              }
              return roundTo(sum, dtype);
            });
            for (const threads of [1, 3]) {
              setVectorLevel(level);
              setThreads(threads);
              const out = own(combineExperts(y, weights, rows, roundings));
              assert.deepEqual([out.shape, out.dtype], [[tokens, width], dtype]);
              const found = await out.floats();
              assertSameBits(found, expected, `${shape}, ${roundings} roundings, ${threads} threads`);
              // Three roundings of 2^-9 each in bf16, and sums that cancel.
              assertClose(
                found,
                exact,
                dtype,
                `${shape}, fp64`,
                roundings === 3 && dtype === 'bf16' ? 2e-2 : undefined,
              );
            }
          }
        }
      });

      it(`${dtype}: gradients agree with fp64, at 1 and 3 threads`, async () => {
        setVectorLevel(level);
        for (const shape of cases) {
          const [tokens, k, width] = shape;
          const { y, weights, rows, dOut } = inputs(shape, dtype);
          const results = [];
          for (const threads of [1, 3]) {
            setThreads(threads);
            const { dY, dWeights } = combineExpertsBackward(dOut, y, weights, rows);
            assert.deepEqual(
              [dY.shape, dY.dtype, dWeights.shape, dWeights.dtype],
              [y.shape, dtype, [tokens, k], 'fp32'],
            );
            results.push(await readTensors([own(dY), own(dWeights)]));
          }
          for (const i of [0, 1]) assertSameBits(results[1]![i]!, results[0]![i]!, `threads, output ${i}`);
          const [v, w, r, d] = await readTensors([y, weights, rows, dOut]);
          const dY = new Float64Array(tokens * k * width);
          const dWeights = new Float64Array(tokens * k);
          for (let at = 0; at < tokens * k; at++) {
            for (let c = 0; c < width; c++) {
              const upstream = d![Math.floor(at / k) * width + c]!;
              dY[r![at]! * width + c] = w![at]! * upstream;
              dWeights[at]! += upstream * v![r![at]! * width + c]!;
            }
          }
          assertSameBits(
            results[0]![0]!,
            dY.map((x) => roundTo(f(x), dtype)),
            `dY, ${shape}`,
          );
          assertClose(results[0]![1]!, dWeights, 'fp32', `dWeights, ${shape}`);
        }
      });
    }
  });
}

describe('combineExperts', () => {
  it('has the gradients that finite differences show', async () => {
    const [tokens, k, width] = [4, 3, 5];
    const rows = permutation(tokens * k);
    const y = Float64Array.from(normals(tokens * k * width, 5), f);
    const weights = Float64Array.from(normals(tokens * k, 6), f);
    const dOut = Float64Array.from(normals(tokens * width, 7), f);
    const loss = () =>
      dOut.reduce((total, d, i) => {
        const [t, c] = [Math.floor(i / width), i % width];
        for (let s = 0; s < k; s++) total += d * weights[t * k + s]! * y[rows[t * k + s]! * width + c]!;
        return total;
      }, 0);
    const slopes = (values: Float64Array) =>
      values.map((x, i) => {
        values[i] = x + 1e-4;
        const up = loss();
        values[i] = x - 1e-4;
        const down = loss();
        values[i] = x;
        return (up - down) / 2e-4;
      });
    const { dY, dWeights } = combineExpertsBackward(
      own(tensor(dOut, [tokens, width])),
      own(tensor(y, [tokens * k, width])),
      own(tensor(weights, [tokens, k])),
      ints(rows, [tokens, k]),
    );
    assertClose(await own(dY).floats(), slopes(y), 'fp32', 'dY');
    assertClose(await own(dWeights).floats(), slopes(weights), 'fp32', 'dWeights');
  });

  it('rounds the sum once, or each of its parts', async () => {
    // In bf16 256 + 1 rounds back to 256; in fp32 the ones survive, and so does the weight's ninth bit.
    const y = own(tensor([256, 1, 1, 1, 1], [5, 1], 'bf16'));
    const weights = own(tensor([1, 1, 1, 1, 1], [1, 5]));
    const rows = ints([0, 1, 2, 3, 4], [1, 5]);
    assert.equal(await own(combineExperts(y, weights, rows)).item(), 260);
    assert.equal(await own(combineExperts(y, weights, rows, 3)).item(), 256);
    // 768 (1 + 2^-8) = 771, which bf16 rounds to 772; the weight alone it rounds to 1.
    const weight = own(tensor([1 + 2 ** -8], [1, 1]));
    const value = own(tensor([768], [1, 1], 'bf16'));
    const row = ints([0], [1, 1]);
    assert.equal(await own(combineExperts(value, weight, row)).item(), 772);
    assert.equal(await own(combineExperts(value, weight, row, 3)).item(), 768);
  });

  it('takes an emulated format, and rounds to it', { skip: noEmulated }, async () => {
    for (const [emulated, native] of [
      ['e8m7', 'bf16'],
      ['e5m10', 'fp16'],
    ] as const) {
      const results = [];
      for (const dtype of [emulated, native]) {
        const y = own(tensor(normals(12 * 20, 8), [12, 20], dtype));
        const weights = own(tensor(normals(12, 9), [4, 3]));
        const rows = ints(permutation(12), [4, 3]);
        const once = own(combineExperts(y, weights, rows));
        const each = own(combineExperts(y, weights, rows, 3));
        const { dY, dWeights } = combineExpertsBackward(once, y, weights, rows);
        results.push(await readTensors([once, each, own(dY), own(dWeights)]));
      }
      for (const [i, of] of results[0]!.entries())
        assertSameBits(of, results[1]![i]!, `${emulated}, output ${i}`);
    }
  });

  it('names what is wrong with its arguments', async () => {
    const y = own(zeros([4, 6], 'bf16'));
    const weights = own(zeros([2, 2]));
    const rows = ints([0, 1, 2, 3], [2, 2]);
    const dOut = own(zeros([2, 6], 'bf16'));
    const fails = (body: () => unknown, message: RegExp) =>
      assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
    fails(
      () => combineExperts(own(zeros([3, 6])), weights, rows),
      /^\[combineExperts\] expected y of shape \[tokens k, H\] with tokens k = 4, got \[3, 6\]$/,
    );
    fails(() => combineExperts(own(zeros([4])), weights, rows), /y of 2 dimensions/);
    fails(() => combineExperts(rows, weights, rows), /y of dtype fp32, fp16 or bf16, got int32/);
    fails(() => combineExperts(y, own(zeros([2, 2], 'bf16')), rows), /weights of dtype fp32, got bf16/);
    fails(() => combineExperts(y, own(zeros([4])), rows), /weights of 2 dimensions \[tokens, k\]/);
    fails(
      () => combineExperts(y, weights, own(rows.reshape(4))),
      /rows of shape \[tokens, k\] = \[2, 2\], got \[4\]/,
    );
    fails(() => combineExperts(y, weights, weights), /rows of dtype int32, got fp32/);
    fails(() => combineExperts(y, weights, rows, 2 as 1), /roundings to be 1 or 3, got 2/);
    fails(
      () => combineExpertsBackward(y, y, weights, rows),
      /dOut of shape \[tokens, H\] = \[2, 6\], got \[4, 6\]/,
    );
    fails(() => combineExpertsBackward(own(zeros([2, 6])), y, weights, rows), /dOut of dtype bf16, got fp32/);
    for (const [bad, at] of [
      [[0, 1, 1, 3], 2],
      [[0, 4, 1, 2], 1],
      [[-1, 0, 1, 2], 0],
    ] as const) {
      const message = `expected each row from 0 to tokens k - 1 = 3 once, got ${bad[at]} at position ${at}`;
      const wrong = ints(bad, [2, 2]);
      await assert.rejects(own(combineExperts(y, weights, wrong)).data(), {
        code: 'ERR_DEVICE',
        message: `[combineExperts] ${message}`,
      });
      const { dY, dWeights } = combineExpertsBackward(dOut, y, weights, wrong);
      own(dY);
      await assert.rejects(own(dWeights).data(), { message: `[combineExpertsBackward] ${message}` });
    }
  });
});
