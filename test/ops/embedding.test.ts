import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { embedding, embeddingBackward, gatherRows, scatterRows } from '../../lib/ops/embedding.js';
import { setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { empty, tensor, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const int32 = (values: readonly number[]) => own(tensor(values, [values.length], 'int32'));

// Few rows of odd width, one column, enough of both for several threads, and long lists of the same row.
const cases = [
  { rows: 11, width: 7, count: 23 },
  { rows: 3, width: 1, count: 5 },
  { rows: 40, width: 16, count: 0 },
  { rows: 57, width: 301, count: 900 },
  { rows: 5, width: 12, count: 2500 },
];

/** Ids that leave some rows out and repeat others often. */
const someIds = (count: number, rows: number) =>
  Array.from({ length: count }, (_, i) => (i % 3 === 0 ? rows - 1 : (i * i + 5 * i) % rows));

describe('embedding', () => {
  for (const dtype of floatDtypes) {
    for (const { rows, width, count } of cases) {
      it(`copies ${count} rows of [${rows}, ${width}] ${dtype} bit by bit`, async () => {
        const weight = own(tensor(normals(rows * width, 1), [rows, width], dtype));
        const ids = someIds(count, rows);
        const bits = await weight.bits();
        for (const op of [embedding, gatherRows]) {
          const out = own(op(weight, int32(ids)));
          assert.deepEqual([out.shape, out.dtype], [[count, width], dtype]);
          const expected = ids.flatMap((id) => [...bits.subarray(id * width, (id + 1) * width)]);
          assert.deepEqual([...(await out.bits())], expected);
        }
      });
    }
  }

  it('reports the first id outside the vocabulary, with a stack that points to the call', async () => {
    const weight = own(zeros([11, 4]));
    const run = (ids: number[]) => own(embedding(weight, int32(ids))).data();
    const failed = (message: string) => (error: Error & { code?: string }) => {
      assert.equal(error.message, message);
      assert.equal(error.code, 'ERR_DEVICE');
      assert.match(error.stack ?? '', /embedding\.test\.[jt]s/);
      return true;
    };
    await assert.rejects(
      run([0, 10, 3, 57, -1]),
      failed('[embedding] id 57 at position 3 is outside the vocabulary of 11'),
    );
    await assert.rejects(
      run([-1]),
      failed('[embedding] id -1 at position 0 is outside the vocabulary of 11'),
    );
    await assert.rejects(
      run([11]),
      failed('[embedding] id 11 at position 0 is outside the vocabulary of 11'),
    );
    await assert.rejects(
      own(gatherRows(weight, int32([0, 12]))).data(),
      failed('[gatherRows] index 12 at position 1 is outside the 11 rows'),
    );
    await run([10]);
  });

  it('names the argument at fault', () => {
    const weight = own(zeros([11, 4]));
    const ids = int32([1, 2]);
    assert.throws(
      () => embedding(ids, ids),
      /^InvalidArgumentError: \[embedding\] expected weight of dtype fp32, fp16 or bf16, got int32$/,
    );
    assert.throws(
      () => embedding(own(zeros([4])), ids),
      /expected weight of 2 dimensions \[V, H\], got \[4\]/,
    );
    assert.throws(() => embedding(weight, weight), /expected ids of dtype int32, got fp32/);
    assert.throws(
      () => embedding(weight, own(ids.reshape(1, 2))),
      /expected ids of 1 dimensions \[N\], got \[1, 2\]/,
    );
    assert.throws(() => gatherRows(weight, weight), /\[gatherRows\] expected index of dtype int32, got fp32/);
    const gone = zeros([2, 2]);
    gone.dispose();
    assert.throws(
      () => embedding(gone, ids),
      /expected weight to be a live tensor, got a tensor that was disposed of/,
    );
  });
});

describe('embeddingBackward', () => {
  for (const dtype of floatDtypes) {
    for (const { rows, width, count } of cases) {
      it(`adds ${count} rows of ${dtype} into [${rows}, ${width}]`, async () => {
        const ids = someIds(count, rows);
        const dOut = own(tensor(normals(count * width, 2), [count, width], dtype));
        const start = normals(rows * width, 3);
        const values = await dOut.floats();
        const grad = own(tensor(start, [rows, width]));
        const startBits = await grad.floats();
        // The contract's order in fp32 gives the bits, the same sum in fp64 the tolerance.
        const exact = Float64Array.from(startBits);
        const inOrder = Float32Array.from(startBits);
        ids.forEach((id, i) => {
          for (let c = 0; c < width; c++) {
            exact[id * width + c]! += values[i * width + c]!;
            inOrder[id * width + c] = Math.fround(inOrder[id * width + c]! + values[i * width + c]!);
          }
        });
        for (const level of vectorLevels()) {
          for (const threads of [1, 3]) {
            setVectorLevel(level);
            setThreads(threads);
            grad.upload(startBits);
            embeddingBackward(dOut, int32(ids), grad);
            const result = await grad.floats();
            assertSameBits(result, inOrder, `${level}, ${threads} threads`);
            assertClose(result, exact, 'fp32', 'fp64 sum');
          }
        }
      });
    }
  }

  it('is the gradient of embedding by finite differences', async () => {
    const ids = [2, 0, 2, 2];
    const weight = normals(9, 4);
    const upstream = normals(12, 5);
    const loss = (w: Float64Array) =>
      ids.reduce(
        (sum, id, i) => sum + [0, 1, 2].reduce((s, c) => s + upstream[i * 3 + c]! * w[id * 3 + c]! ** 2, 0),
        0,
      );
    const numeric = weight.map((_, j) => {
      const up = weight.slice();
      const down = weight.slice();
      up[j]! += 1e-5;
      down[j]! -= 1e-5;
      return (loss(up) - loss(down)) / 2e-5;
    });
    const dOut = ids.flatMap((id, i) => [0, 1, 2].map((c) => 2 * upstream[i * 3 + c]! * weight[id * 3 + c]!));
    const grad = own(zeros([3, 3]));
    embeddingBackward(own(tensor(dOut, [4, 3])), int32(ids), grad);
    assertClose(await grad.floats(), numeric, 'fp32', 'gradient');
  });

  it('checks ids before it touches the gradient, and names the argument at fault', async () => {
    const grad = own(zeros([3, 2]));
    const dOut = own(tensor([1, 2, 3, 4], [2, 2]));
    embeddingBackward(dOut, int32([0, 3]), grad);
    await assert.rejects(
      grad.data(),
      /\[embeddingBackward\] id 3 at position 1 is outside the vocabulary of 3/,
    );
    assert.deepEqual([...(await grad.floats())], [0, 0, 0, 0, 0, 0]);
    const ids = int32([0, 1]);
    assert.throws(() => embeddingBackward(dOut, dOut, grad), /expected ids of dtype int32/);
    assert.throws(
      () => embeddingBackward(dOut, ids, own(zeros([3, 2], 'bf16'))),
      /expected grad of dtype fp32, got bf16/,
    );
    assert.throws(
      () => embeddingBackward(own(zeros([2, 3])), ids, grad),
      /expected dOut of shape \[N, H\] = \[2, 2\], got \[2, 3\]/,
    );
    assert.throws(
      () => embeddingBackward(own(zeros([2, 2], 'int32')), ids, grad),
      /expected dOut of dtype fp32, fp16 or bf16/,
    );
    assert.throws(
      () => embeddingBackward(dOut, ids, own(zeros([6]))),
      /expected grad of 2 dimensions \[V, H\]/,
    );
  });
});

describe('scatterRows', () => {
  for (const dtype of floatDtypes) {
    for (const { rows, width, count } of cases) {
      it(`sums ${count} rows of ${dtype} into [${rows}, ${width}], rounding once`, async () => {
        const index = someIds(count, rows);
        const dOut = own(tensor(normals(count * width, 6), [count, width], dtype));
        const values = await dOut.floats();
        const sums = new Float32Array(rows * width);
        index.forEach((r, i) => {
          for (let c = 0; c < width; c++) sums[r * width + c]! += values[i * width + c]!;
        });
        const rounded = await own(tensor(sums, [rows, width], dtype)).bits();
        for (const level of vectorLevels()) {
          for (const threads of [1, 3]) {
            setVectorLevel(level);
            setThreads(threads);
            const out = own(scatterRows(dOut, int32(index), rows));
            assert.deepEqual([out.shape, out.dtype], [[rows, width], dtype]);
            assertSameBits(await out.bits(), rounded, `${level}, ${threads} threads`);
          }
        }
      });
    }
  }

  it('rounds the sum and not each addition', async () => {
    // In bf16 256 + 1 rounds back to 256; in fp32 the four ones survive.
    const dOut = own(tensor([256, 1, 1, 1, 1], [5, 1], 'bf16'));
    assert.deepEqual([...(await own(scatterRows(dOut, int32([1, 1, 1, 1, 1]), 3)).floats())], [0, 260, 0]);
  });

  it('undoes gatherRows for a permutation', async () => {
    const x = own(tensor(normals(5 * 9, 7), [5, 9], 'fp16'));
    const index = int32([3, 0, 4, 2, 1]);
    const back = own(scatterRows(own(gatherRows(x, index)), index, 5));
    assertSameBits(await back.bits(), await x.bits(), 'permutation');
  });

  it('refuses what does not fit', async () => {
    const dOut = own(zeros([2, 2]));
    const index = int32([0, 1]);
    assert.throws(() => scatterRows(dOut, int32([0]), 2), /expected index of shape \[M\] = \[2\], got \[1\]/);
    assert.throws(() => scatterRows(dOut, index, -1), /expected rows to be an integer from 0/);
    assert.throws(() => scatterRows(dOut, index, 1.5), /expected rows to be an integer/);
    assert.throws(() => scatterRows(own(zeros([4])), index, 1), /expected dOut of 2 dimensions \[M, H\]/);
    assert.throws(() => scatterRows(dOut, own(empty([2])), 1), /expected index of dtype int32/);
    await assert.rejects(
      own(scatterRows(dOut, index, 1)).data(),
      /\[scatterRows\] index 1 at position 1 is outside the 1 rows/,
    );
  });
});
