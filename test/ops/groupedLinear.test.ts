import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { KernelFamily } from '../../lib/numerics.js';
import {
  groupedLinear,
  groupedLinearInputGradient,
  groupedLinearWeightGradient,
} from '../../lib/ops/groupedLinear.js';
import { linear, linearInputGradient, linearWeightGradient } from '../../lib/ops/linear.js';
import { PackedWeight } from '../../lib/ops/packWeight.js';
import { currentDevice, info, record, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { type FloatDType, floatDtypes } from '../../lib/tensor/dtype.js';
import { tidy } from '../../lib/tensor/scope.js';
import {
  cast,
  copy,
  empty,
  randomNormal,
  readTensors,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { onDevice } from '../support/dtypes.js';
import { matrix, product64 } from '../support/gemmReference.js';
import { vectorLevels } from '../support/levels.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();
const { vectorLevel } = info();
const families: readonly KernelFamily[] = ['rollout', 'training'];

interface Case {
  /** Rows of each expert. */
  readonly loads: readonly number[];
  readonly n: number;
  readonly k: number;
  readonly splitK: number;
}

const cases: Readonly<Record<string, Case>> = {
  'one expert, one row, one column': { loads: [1], n: 1, k: 1, splitK: 0 },
  'no rows at all': { loads: [0, 0, 0], n: 5, k: 7, splitK: 0 },
  'experts without rows, with one, with several tiles': {
    loads: [0, 3, 0, 1, 40, 17, 0],
    n: 33,
    k: 70,
    splitK: 0,
  },
  'all rows to one expert': { loads: [0, 0, 50, 0], n: 47, k: 130, splitK: 64 },
  'a decode step: a row or two to each of many experts': {
    loads: Array.from({ length: 24 }, (_, e) => (e % 5 === 0 ? 0 : 1 + (e % 2))),
    n: 40,
    k: 97,
    splitK: 64,
  },
  'work for several threads, cut within experts': {
    loads: [5, 70, 0, 9, 1, 100],
    n: 70,
    k: 300,
    splitK: 256,
  },
  'experts of many rows beside small ones': { loads: [300, 2, 0, 140, 7], n: 150, k: 96, splitK: 0 },
};

const offsetsOf = (loads: readonly number[]) => {
  const offsets = [0];
  for (const load of loads) offsets.push(offsets.at(-1)! + load);
  return offsets;
};

function normal(shape: readonly number[], dtype: FloatDType, seed: number): Tensor {
  const size = shape.reduce((product, d) => product * d, 1);
  return tensor(normals(size, seed), shape, dtype);
}

/** What `body` makes for each expert with rows from begin to end, one after another as one array. */
async function eachExpert(
  { loads }: Case,
  body: (e: number, begin: number, end: number) => Tensor,
): Promise<Float32Array> {
  const offsets = offsetsOf(loads);
  const parts = tidy(() => loads.map((_, e) => body(e, offsets[e]!, offsets[e + 1]!)));
  const read = await readTensors(parts);
  for (const t of parts) t.dispose();
  const all = new Float32Array(read.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of read) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

function inputs({ loads, n, k }: Case, dtype: FloatDType) {
  const offsets = offsetsOf(loads);
  const rows = offsets.at(-1)!;
  const weight = own(normal([loads.length, n, k], dtype, 2));
  return {
    x: own(normal([rows, k], dtype, 1)),
    weight,
    weightOf: (e: number) => weight.rows(e, e + 1).reshape(n, k),
    offsets: own(tensor(offsets, [offsets.length], 'int32')),
    dy: own(normal([rows, n], dtype, 3)),
  };
}

for (const level of vectorLevels()) {
  for (const dtype of onDevice(...floatDtypes, 'e8m4')) {
    describe(`groupedLinear ${dtype} at ${level}`, () => {
      for (const [name, shape] of Object.entries(cases)) {
        it(`${name}: the bits of linear, expert by expert`, async () => {
          setVectorLevel(level);
          const { x, weight, weightOf, offsets } = inputs(shape, dtype);
          const packed = new PackedWeight(weight);
          own(packed.tensor);
          for (const family of families) {
            for (const splitK of new Set([0, shape.splitK])) {
              setThreads(1);
              const expected = await eachExpert(shape, (e, begin, end) =>
                linear(x.rows(begin, end), [weightOf(e)], { family, splitK }),
              );
              for (const threads of [1, 3]) {
                setThreads(threads);
                const label = `${family}, splitK ${splitK}, ${threads} threads`;
                const y = own(groupedLinear(x, weight, offsets, { family, splitK }));
                assert.deepEqual([y.shape, y.dtype], [[x.shape[0], shape.n], dtype]);
                assertSameBits(await y.floats(), expected, label);
                const direct = own(groupedLinear(x, packed, offsets, { family, splitK }));
                assertSameBits(await direct.floats(), expected, `${label}, packed`);
              }
            }
          }
        });

        it(`${name}: the bits of linear's gradients`, async () => {
          setVectorLevel(level);
          const { x, weight, weightOf, offsets, dy } = inputs(shape, dtype);
          const start = own(normal(weight.shape, 'fp32', 4));
          setThreads(1);
          const dx = await eachExpert(shape, (e, begin, end) =>
            linearInputGradient(dy.rows(begin, end), [weightOf(e)]),
          );
          const gradient = (accumulate: boolean) =>
            eachExpert(shape, (e, begin, end) => {
              const grad = copy(start.rows(e, e + 1).reshape(shape.n, shape.k));
              linearWeightGradient(dy.rows(begin, end), x.rows(begin, end), 0, grad, accumulate);
              return grad;
            });
          const [added, replaced] = [await gradient(true), await gradient(false)];
          for (const threads of [1, 3]) {
            setThreads(threads);
            const found = own(groupedLinearInputGradient(dy, weight, offsets));
            assert.deepEqual([found.shape, found.dtype], [x.shape, dtype]);
            assertSameBits(await found.floats(), dx, `dx, ${threads} threads`);
            const grad = own(copy(start));
            groupedLinearWeightGradient(dy, x, offsets, grad);
            assertSameBits(await grad.floats(), added, `grad, ${threads} threads`);
            const fresh = own(empty(weight.shape));
            groupedLinearWeightGradient(dy, x, offsets, fresh, false);
            assertSameBits(await fresh.floats(), replaced, `fresh grad, ${threads} threads`);
          }
        });
      }
    });
  }
}

describe('groupedLinear', () => {
  it('agrees with fp64, forward and backward', async () => {
    const shape = cases['experts without rows, with one, with several tiles']!;
    const { loads, n, k } = shape;
    for (const dtype of floatDtypes) {
      const { x, weight, offsets, dy } = inputs(shape, dtype);
      const grad = own(zeros(weight.shape));
      groupedLinearWeightGradient(dy, x, offsets, grad);
      const results = [
        x,
        weight,
        dy,
        own(groupedLinear(x, weight, offsets)),
        own(groupedLinear(x, weight, offsets, { family: 'rollout', splitK: 32 })),
        own(groupedLinearInputGradient(dy, weight, offsets)),
        grad,
      ];
      const [xs, ws, ds, training, rollout, dx, dw] = await readTensors(results);
      const [y64, dx64, dw64]: number[][] = [[], [], []];
      offsetsOf(loads).forEach((begin, e, all) => {
        if (e === loads.length) return;
        const rows = all[e + 1]! - begin;
        const w = (transposed: boolean) =>
          matrix(ws!, transposed ? k : n, transposed ? n : k, transposed, e * n * k);
        y64!.push(...product64(matrix(xs!, rows, k, false, begin * k), w(true)));
        dx64!.push(...product64(matrix(ds!, rows, n, false, begin * n), w(false)));
        dw64!.push(
          ...product64(matrix(ds!, n, rows, true, begin * n), matrix(xs!, rows, k, false, begin * k)),
        );
      });
      assertClose(training!, y64!, dtype, `${dtype}, training`);
      assertClose(rollout!, y64!, dtype, `${dtype}, rollout`);
      assertClose(dx!, dx64!, dtype, `${dtype}, dx`);
      assertClose(dw!, dw64!, 'fp32', `${dtype}, dW`);
    }
  });

  it('a row has the same bits whatever rows are beside it', async () => {
    const shape = cases['work for several threads, cut within experts']!;
    for (const family of families) {
      const { x, weight, offsets } = inputs(shape, 'bf16');
      const all = await own(groupedLinear(x, weight, offsets, { family })).floats();
      // Row 40 is expert 1's: alone among experts without rows.
      const alone = own(tensor([0, 0, 1, 1, 1, 1, 1], [7], 'int32'));
      const y = own(groupedLinear(own(x.rows(40, 41)), weight, alone, { family }));
      assertSameBits(await y.floats(), all.subarray(40 * shape.n, 41 * shape.n), family);
    }
  });

  it('gives products beyond the caches, whose outputs go past them, the bits of linear', async () => {
    // A GPU has no such path: sizes for which it takes its largest tiles.
    const onGpu = currentDevice() === 'cuda';
    for (const [dtype, k] of [
      ['bf16', onGpu ? 72 : 2100],
      ['fp32', onGpu ? 72 : 530],
    ] as const) {
      const shape: Case = { loads: [20, 0, 300], n: onGpu ? 1032 : 2080, k, splitK: 0 };
      const x = own(randomNormal([320, k], { seed: 1, dtype }));
      const weight = own(randomNormal([3, shape.n, k], { seed: 2, dtype }));
      const offsets = own(tensor(offsetsOf(shape.loads), [4], 'int32'));
      const packed = new PackedWeight(weight);
      own(packed.tensor);
      for (const family of families) {
        const expected = await eachExpert(shape, (e, begin, end) =>
          linear(x.rows(begin, end), [weight.rows(e, e + 1).reshape(shape.n, k)], { family }),
        );
        for (const w of [weight, packed]) {
          const y = own(groupedLinear(x, w, offsets, { family }));
          assertSameBits(await y.floats(), expected, `${dtype}, ${family}`);
        }
      }
    }
  });

  it('can be recorded and replayed on other rows of other experts', async () => {
    const weight = own(normal([3, 20, 12], 'bf16', 5));
    const x = own(normal([6, 12], 'bf16', 6));
    const offsets = own(tensor([0, 2, 2, 6], [4], 'int32'));
    const { recording, result } = record(() => groupedLinear(x, weight, offsets, { family: 'rollout' }));
    own(result);
    x.upload(normals(72, 7));
    offsets.upload([0, 0, 5, 6]);
    recording.replay();
    const replayed = await result.floats();
    recording.dispose();
    const now = own(groupedLinear(x, weight, offsets, { family: 'rollout' }));
    assertSameBits(replayed, await now.floats(), 'replayed');
  });

  it('does not touch the weight of an expert without rows', async () => {
    const weight = own(tensor([NaN, NaN, 1, 2, NaN, NaN], [3, 1, 2]));
    const offsets = own(tensor([0, 0, 2, 2], [4], 'int32'));
    const x = own(tensor([1, 1, 3, 4], [2, 2]));
    assert.deepEqual([...(await own(groupedLinear(x, weight, offsets)).floats())], [3, 11]);
    const dy = own(tensor([1, 2], [2, 1]));
    assert.deepEqual(
      [...(await own(groupedLinearInputGradient(dy, weight, offsets)).floats())],
      [1, 2, 2, 4],
    );
    const grad = own(cast(weight, 'fp32'));
    groupedLinearWeightGradient(dy, x, offsets, grad);
    assert.deepEqual([...(await grad.floats())], [NaN, NaN, 1 + 7, 2 + 9, NaN, NaN]);
  });

  it('names what is wrong with its arguments', () => {
    const x = own(zeros([4, 6], 'bf16'));
    const weight = own(zeros([2, 5, 6], 'bf16'));
    const offsets = own(tensor([0, 3, 4], [3], 'int32'));
    const fails = (body: () => unknown, message: RegExp) =>
      assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
    fails(
      () => groupedLinear(x, own(zeros([3, 5, 6], 'bf16')), offsets),
      /^\[groupedLinear\] expected weight of shape \[E, N, K\] with E = 2, K = 6, got \[3, 5, 6\]$/,
    );
    fails(
      () => groupedLinear(x, own(zeros([2, 6, 5], 'bf16')), offsets),
      /with E = 2, K = 6, got \[2, 6, 5\]/,
    );
    fails(() => groupedLinear(x, own(zeros([5, 6], 'bf16')), offsets), /weight of shape .*, got \[5, 6\]/);
    fails(() => groupedLinear(x, own(zeros([2, 5, 6])), offsets), /weight of dtype bf16, got fp32/);
    fails(() => groupedLinear(own(zeros([6], 'bf16')), weight, offsets), /x of 2 dimensions \[rows, K\]/);
    fails(() => groupedLinear(own(zeros([4, 6], 'int32')), weight, offsets), /x of dtype fp32, fp16 or bf16/);
    fails(() => groupedLinear(x, weight, own(zeros([3]))), /offsets of dtype int32, got fp32/);
    fails(() => groupedLinear(x, weight, own(offsets.reshape(3, 1))), /offsets of 1 dimensions \[E \+ 1\]/);
    fails(
      () => groupedLinear(x, weight, own(offsets.rows(0, 1))),
      /\[E \+ 1\] with E of at least 1, got \[1\]/,
    );
    fails(() => groupedLinear(x, weight, offsets, { splitK: -1 }), /splitK to be an integer/);
    fails(
      () => groupedLinear(x, weight, offsets, { family: 'both' as KernelFamily }),
      /family to be one of rollout, training/,
    );
    const dy = own(zeros([4, 5], 'bf16'));
    const grad = own(zeros([2, 5, 6]));
    fails(
      () => groupedLinearInputGradient(x, weight, offsets),
      /\[groupedLinearInputGradient\] expected weight of shape \[E, N, K\] with E = 2, N = 6, got \[2, 5, 6\]/,
    );
    fails(
      () => groupedLinearInputGradient(own(zeros([4, 5])), weight, offsets),
      /weight of dtype fp32, got bf16/,
    );
    fails(
      () => groupedLinearWeightGradient(dy, own(zeros([3, 6], 'bf16')), offsets, grad),
      /\[groupedLinearWeightGradient\] expected x of shape \[rows, K\] with rows = 4, got \[3, 6\]/,
    );
    fails(
      () => groupedLinearWeightGradient(dy, own(zeros([4, 6])), offsets, grad),
      /x of dtype bf16, got fp32/,
    );
    fails(() => groupedLinearWeightGradient(dy, x, offsets, weight), /grad of dtype fp32, got bf16/);
    fails(
      () => groupedLinearWeightGradient(dy, x, offsets, own(zeros([2, 6, 5]))),
      /grad of shape \[E, N, K\] with E = 2, N = 5, K = 6, got \[2, 6, 5\]/,
    );
    const square = own(zeros([4, 2]));
    fails(
      () => groupedLinearWeightGradient(square, square, offsets, own(square.reshape(2, 2, 2))),
      /grad to have memory of its own/,
    );
  });

  it('names what is wrong with a packed weight', () => {
    const x = own(zeros([4, 6], 'bf16'));
    const offsets = own(tensor([0, 3, 4], [3], 'int32'));
    const pack = (shape: readonly number[]) => {
      const packed = new PackedWeight(own(zeros(shape, 'bf16')));
      own(packed.tensor);
      return packed;
    };
    const fails = (body: () => unknown, message: RegExp) =>
      assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
    const packed = pack([2, 5, 6]);
    fails(
      () => groupedLinear(x, pack([3, 5, 6]), offsets),
      /weight of shape \[E, N, K\] with E = 2, K = 6, got a packed \[5, 6\]/,
    );
    fails(() => groupedLinear(x, pack([2, 5, 7]), offsets), /with E = 2, K = 6, got a packed \[5, 7\]/);
    fails(() => linear(x, [packed]), /\[linear\] expected weights\[0\] of shape \[N, K\]/);
    fails(
      () => packed.update(own(zeros([2, 6, 5], 'bf16'))),
      /expected weight of shape \[2, 5, 6\], got \[2, 6, 5\]/,
    );
    if (vectorLevel === 'amx' && currentDevice() === 'cpu')
      fails(() => groupedLinear(x, packed, offsets, { splitK: 24 }), /splitK to be a multiple of 32/);
    setVectorLevel('portable');
    if (vectorLevel !== 'portable')
      fails(
        () => groupedLinear(x, packed, offsets),
        /weight to be packed at the vector level in use, portable/,
      );
  });

  it('reports offsets that do not rise from 0 to the number of rows', async () => {
    const x = own(zeros([4, 6]));
    const weight = own(zeros([3, 5, 6]));
    const dy = own(zeros([4, 5]));
    const grad = own(zeros([3, 5, 6]));
    for (const [offsets, at] of [
      [[0, 2, 1, 4], 2],
      [[1, 2, 3, 4], 0],
      [[0, 5, 5, 4], 1],
      [[0, 1, 2, 3], 3],
      [[0, -1, 2, 4], 1],
    ] as const) {
      const message = new RegExp(
        `expected offsets that rise from 0 to the 4 rows, got ${offsets[at]} at position ${at}$`,
      );
      const bad = own(tensor(Int32Array.from(offsets), [4], 'int32'));
      for (const family of families)
        await assert.rejects(own(groupedLinear(x, weight, bad, { family })).data(), {
          code: 'ERR_DEVICE',
          message,
        });
      await assert.rejects(own(groupedLinearInputGradient(dy, weight, bad)).data(), message);
      groupedLinearWeightGradient(dy, x, bad, grad);
      await assert.rejects(grad.data(), message);
    }
  });
});
