import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { columnSum, type Reduction, reduce } from '../../lib/ops/reduce.js';
import { setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();

const reference: Record<Reduction, (x: Float32Array) => number> = {
  sum: (x) => x.reduce((s, v) => s + v, 0),
  mean: (x) => x.reduce((s, v) => s + v, 0) / x.length,
  max: (x) => x.reduce((m, v) => Math.max(m, v), -Infinity),
};

describe('reduce', () => {
  for (const dtype of floatDtypes) {
    for (const shape of [[1], [15], [3, 17], [2, 3, 129], [5, 4097], [130_001]]) {
      it(`sum, mean and max of ${dtype} [${shape}], the same bits everywhere`, async () => {
        const size = shape.reduce((a, b) => a * b, 1);
        // A mean of 0.5 keeps the relative error of the sum meaningful.
        const x = own(
          tensor(
            normals(size, 1).map((v) => v + 0.5),
            shape,
            dtype,
          ),
        );
        const values = await x.floats();
        const width = shape.at(-1)!;
        const rows = Array.from({ length: size / width }, (_, r) =>
          values.subarray(r * width, (r + 1) * width),
        );
        for (const kind of ['sum', 'mean', 'max'] as const) {
          let all: Float32Array | undefined;
          let last: Float32Array | undefined;
          for (const level of vectorLevels()) {
            for (const threads of [1, 3]) {
              setVectorLevel(level);
              setThreads(threads);
              const a = await own(reduce(x, kind)).floats();
              const l = await own(reduce(x, kind, 'last')).floats();
              all ??= a;
              last ??= l;
              assertSameBits(a, all, `${kind} at ${level}, ${threads} threads`);
              assertSameBits(l, last, `${kind} of rows at ${level}, ${threads} threads`);
            }
          }
          const limit = kind === 'max' ? 0 : 1e-6;
          assertClose(all!, [reference[kind](values)], 'fp32', `${kind}`, limit);
          assertClose(last!, rows.map(reference[kind]), 'fp32', `${kind} of rows`, limit);
        }
      });
    }

    it(`gives a row of ${dtype} the bits it has alone`, async () => {
      const x = own(tensor(normals(7 * 5003, 2), [7, 5003], dtype));
      const together = await own(reduce(x, 'sum', 'last')).floats();
      for (let r = 0; r < 7; r++) {
        const alone = await own(reduce(own(x.rows(r, r + 1)), 'sum')).floats();
        assertSameBits(alone, together.subarray(r, r + 1), `row ${r}`);
      }
    });

    it(`max of ${dtype} is NaN wherever the NaN is, and infinities are values`, async () => {
      for (const level of vectorLevels()) {
        setVectorLevel(level);
        for (const size of [5, 16, 40, 4100, 9000]) {
          for (const at of new Set([0, 1, size >> 1, size - 2, size - 1])) {
            const values = normals(size, 3);
            values[at] = Number.NaN;
            if (at > 0) values[0] = Infinity;
            assert.ok(
              Number.isNaN(await own(reduce(own(tensor(values, [size], dtype)), 'max')).item()),
              `${size}, ${at}`,
            );
            values[at] = 7;
            const max = await own(reduce(own(tensor(values, [size], dtype)), 'max')).item();
            assert.equal(max, at > 0 ? Infinity : 7);
          }
          const low = own(tensor(new Array(size).fill(-Infinity), [size], dtype));
          assert.equal(await own(reduce(low, 'max')).item(), -Infinity);
          const zero = own(zeros([size], dtype));
          assert.equal(await own(reduce(zero, 'max')).item(), 0);
        }
      }
    });
  }

  it('sums half a million bf16 ones exactly, where a running bf16 or fp32-per-lane slip would show', async () => {
    const x = own(tensor(new Float32Array(524_287).fill(1), [524_287], 'bf16'));
    assert.equal(await own(reduce(x, 'sum')).item(), 524_287);
    assert.equal(await own(reduce(x, 'mean')).item(), 1);
  });

  it('handles nothing, and refuses what has no answer', async () => {
    const none = own(zeros([0, 4]));
    const narrow = own(zeros([3, 0]));
    assert.equal(await own(reduce(none, 'sum')).item(), 0);
    assert.deepEqual(own(reduce(none, 'max', 'last')).shape, [0]);
    assert.deepEqual([...(await own(reduce(narrow, 'sum', 'last')).floats())], [0, 0, 0]);
    assert.throws(() => reduce(none, 'mean'), /\[reduce\] expected x with elements to reduce, got \[0, 4\]/);
    assert.throws(() => reduce(narrow, 'max', 'last'), /expected x with elements to reduce, got \[3, 0\]/);
    assert.throws(
      () => reduce(none, 'Mean' as 'mean'),
      /expected kind to be one of sum, mean, max, got "Mean" \(did you mean mean\?\)/,
    );
    assert.throws(() => reduce(none, 'sum', 'first' as 'last'), /expected axis to be one of all, last/);
    assert.throws(
      () => reduce(own(zeros([2], 'int32')), 'sum'),
      /expected x of dtype fp32, fp16 or bf16, got int32/,
    );
  });
});

describe('columnSum', () => {
  for (const dtype of floatDtypes) {
    for (const [rows, width, offset, count] of [
      [1, 1, 0, 1],
      [37, 19, 3, 13],
      [256, 64, 0, 64],
      [1031, 301, 100, 201],
      [0, 5, 1, 3],
      [4, 5, 5, 0],
    ] as const) {
      it(`adds columns ${offset}..${offset + count} of ${dtype} [${rows}, ${width}]`, async () => {
        const x = own(tensor(normals(rows * width, 4), [rows, width], dtype));
        const values = await x.floats();
        const start = Float32Array.from(normals(count, 5));
        const expected = Float64Array.from(start);
        for (let r = 0; r < rows; r++)
          for (let c = 0; c < count; c++) expected[c]! += values[r * width + offset + c]!;
        const out = own(tensor(start, [count]));
        let first: Float32Array | undefined;
        for (const level of vectorLevels()) {
          for (const threads of [1, 3]) {
            setVectorLevel(level);
            setThreads(threads);
            out.upload(start);
            columnSum(x, offset, count, out);
            const result = await out.floats();
            first ??= result;
            assertSameBits(result, first, `${level}, ${threads} threads`);
          }
        }
        assertClose(first!, expected, 'fp32', 'column sums', 2e-6);
      });
    }
  }

  it('names the argument at fault', () => {
    const x = own(zeros([2, 5]));
    const out = own(zeros([3]));
    assert.throws(
      () => columnSum(x, 3, 3, out),
      /\[columnSum\] expected columnOffset \+ count to be at most C = 5, got 3 \+ 3/,
    );
    assert.throws(() => columnSum(x, -1, 3, out), /expected columnOffset to be an integer from 0/);
    assert.throws(() => columnSum(x, 0, 2, out), /expected out of shape \[count\] = \[2\], got \[3\]/);
    assert.throws(() => columnSum(x, 0, 3, own(zeros([3], 'fp16'))), /expected out of dtype fp32, got fp16/);
    assert.throws(() => columnSum(out, 0, 3, out), /expected x of 2 dimensions \[N, C\], got \[3\]/);
    assert.throws(() => columnSum(own(zeros([2, 5], 'int32')), 0, 3, out), /expected x of dtype/);
  });
});
