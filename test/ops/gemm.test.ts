import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import type { KernelFamily } from '../../lib/numerics.js';
import { gemm } from '../../lib/ops/gemm.js';
import { currentDevice, info, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
import { tidy } from '../../lib/tensor/scope.js';
import { cast, empty, readTensors, type Tensor, tensor, view, zeros } from '../../lib/tensor/tensor.js';
import { assertClose, assertSameBits, normals } from '../support/compare.js';
import { onEmulator } from '../support/cuda.js';
import { noEmulated } from '../support/dtypes.js';
import {
  matrix,
  normalTensor,
  type Order,
  product64,
  productInOrder,
  resultDtypes,
} from '../support/gemmReference.js';
import { vectorLevels } from '../support/levels.js';

const families: readonly KernelFamily[] = ['rollout', 'training'];
const flags = [false, true] as const;
const threads = info().threads;
const best = info().vectorLevel;

// M, N, K, splitK: single elements, tile and vector tails, several blocks of k, an odd split, a split that is no
// multiple of a block, many rows (B packed ahead).
const shapes: readonly [number, number, number, number][] = [
  [1, 1, 1, 0],
  [1, 257, 33, 0],
  [2, 40, 97, 0],
  [3, 17, 70, 20],
  [16, 18, 75, 30],
  [7, 33, 65, 0],
  [20, 96, 300, 0],
  [33, 7, 130, 16],
  [65, 130, 7, 3],
  [5, 66, 1100, 0],
  [9, 20, 1100, 301],
  [257, 300, 33, 0],
  [200, 70, 530, 0],
  [13, 1, 64, 64],
];

function orderOf(family: KernelFamily, dtype: NativeFloatDType, level: string): Order {
  const chains = family === 'rollout' ? 2 : 1;
  // What the processor can do says nothing of a GPU.
  if (currentDevice() === 'cuda') return { step: 'single', chains };
  if (level === 'amx' && dtype === 'fp16') return { step: 'splitTiles', chains };
  if (level === 'amx' && dtype === 'bf16') return { step: 'tiles', chains };
  return { step: level === 'avx512bf16' && dtype === 'bf16' ? 'pairs' : 'single', chains };
}

/** Runs `body`, reads the tensors it returns and disposes of everything it made. */
async function values(body: () => Tensor[]): Promise<Float32Array[]> {
  const tensors = tidy(body);
  const read = await readTensors(tensors);
  for (const t of tensors) t.dispose();
  return read as Float32Array[];
}

/** A matrix of `rows` rows in a tensor, transposed on the way if asked. */
function stored(
  values: Float32Array,
  rows: number,
  columns: number,
  transposed: boolean,
  dtype: NativeFloatDType,
): Tensor {
  if (!transposed) return tensor(values, [rows, columns], dtype);
  const turned = new Float32Array(values.length);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) turned[j * rows + i] = values[i * columns + j]!;
  }
  return tensor(turned, [columns, rows], dtype);
}

const wides = new Map<string, readonly [Float32Array, Float32Array]>();

/** Inputs [m, k] and [k, n], made once for all levels and dtypes. */
function wide(m: number, n: number, k: number): readonly [Float32Array, Float32Array] {
  const key = `${m} ${n} ${k}`;
  const made =
    wides.get(key) ?? ([Float32Array.from(normals(m * k, 7)), Float32Array.from(normals(k * n, 8))] as const);
  wides.set(key, made);
  return made;
}

interface Reference {
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly expected: Float64Array | Float32Array;
}
const references = new Map<string, Promise<Reference>>();

/** Inputs, as rounded to the dtype, and their product; computed once for all levels and transposes. */
function reference(
  dtype: NativeFloatDType,
  order: Order | 'fp64',
  m: number,
  n: number,
  k: number,
  splitK: number,
): Promise<Reference> {
  const key = JSON.stringify([dtype, order, m, n, k, splitK]);
  const made =
    references.get(key) ??
    values(() => [normalTensor([m, k], dtype, 1), normalTensor([k, n], dtype, 2)]).then(([a, b]) => {
      const left = matrix(a!, m, k);
      const right = matrix(b!, k, n);
      const expected = order === 'fp64' ? product64(left, right) : productInOrder(left, right, order, splitK);
      return { a: a!, b: b!, expected };
    });
  references.set(key, made);
  return made;
}

let before = 0;
beforeEach(() => {
  before = memory().tensors;
});
afterEach(() => {
  setThreads(threads);
  setVectorLevel(best);
  assert.equal(memory().tensors, before, 'tensors left behind');
});

for (const level of vectorLevels()) {
  for (const family of families) {
    for (const dtype of floatDtypes) {
      describe(`gemm ${family} ${dtype} at ${level}`, () => {
        beforeEach(() => setVectorLevel(level));

        for (const [m, n, k, splitK] of shapes) {
          it(`[${m}, ${k}] x [${k}, ${n}], splitK ${splitK}, all transposes: the sum's order, rounded once`, async () => {
            // Tensor cores add as their generation does: within rounding of fp64 is what holds there.
            const inOrder = dtype !== 'fp32' && currentDevice() === 'cpu';
            const order = inOrder ? orderOf(family, dtype, level) : 'fp64';
            const { a, b, expected } = await reference(dtype, order, m, n, k, splitK);
            for (const transposeA of flags) {
              for (const transposeB of flags) {
                const options = { transposeA, transposeB, family, splitK };
                const [c, rounded, castWide] = await values(() => {
                  const x = stored(a, m, k, transposeA, dtype);
                  const y = stored(b, k, n, transposeB, dtype);
                  const wide = gemm(x, y, { ...options, outDtype: 'fp32' });
                  return [wide, gemm(x, y, options), cast(wide, dtype)];
                });
                const label = `transposes ${transposeA} ${transposeB}`;
                if (inOrder) assertSameBits(c!, expected, label);
                else assertClose(c!, expected, 'fp32', label, dtype === 'fp32' ? 2e-6 : 1e-5);
                assertSameBits(rounded!, castWide!, `${label}, rounded`);
              }
            }
          });
        }

        it('adds the bias before the rounding, and the product to C', async () => {
          for (const [m, n, k] of [
            [5, 33, 40],
            [70, 66, 300],
            [3, 20, 0],
          ] as const) {
            for (const outDtype of resultDtypes(dtype)) {
              const [sum, bias, biased, rounded, start, accumulated] = await values(() => {
                const a = normalTensor([m, k], dtype, 3);
                const b = normalTensor([n, k], dtype, 4);
                const shift = normalTensor([n], dtype, 5);
                const into = normalTensor([m, n], 'fp32', 6);
                const options = { transposeB: true, family } as const;
                const plain = gemm(a, b, { ...options, outDtype: 'fp32' });
                const wide = gemm(a, b, { ...options, bias: shift, outDtype: 'fp32' });
                return [
                  plain,
                  shift,
                  gemm(a, b, { ...options, bias: shift, outDtype }),
                  cast(wide, outDtype),
                  cast(into, 'fp32'),
                  gemm(a, b, { ...options, bias: shift, out: into, accumulate: true }),
                ];
              });
              const expected = sum!.map((x, i) => x + bias![i % n]!);
              if (outDtype === 'fp32') assertSameBits(biased!, expected, 'bias');
              assertSameBits(biased!, rounded!, 'one rounding');
              assertSameBits(
                accumulated!,
                expected.map((x, i) => start![i]! + x),
                'C + (sum + bias)',
              );
              if (k === 0) assert.ok(sum!.every((x) => x === 0));
            }
          }
        });

        it('gives a row the same bits whatever the other rows and columns, the batch or the threads', async () => {
          const [m, n, k] = [130, 150, 333];
          for (const splitK of [0, 50]) {
            const options = { transposeB: true, family, splitK, outDtype: 'fp32' } as const;
            setThreads(1);
            const [all, first, middle, last, few, batched, narrow] = await values(() => {
              const a = normalTensor([m, k], dtype, 7);
              const b = normalTensor([n, k], dtype, 8);
              const row = (i: number) => gemm(a.rows(i, i + 1), b, options);
              return [
                gemm(a, b, options),
                row(0),
                row(64),
                row(129),
                gemm(a.rows(60, 68), b, options),
                gemm(a.reshape(2, 65, k), b, options),
                gemm(a, b.rows(100, 117), options),
              ];
            });
            const rows = (begin: number, end: number) => all!.subarray(begin * n, end * n);
            assertSameBits(first!, rows(0, 1), 'row 0');
            assertSameBits(middle!, rows(64, 65), 'row 64');
            assertSameBits(last!, rows(129, 130), 'row 129');
            assertSameBits(few!, rows(60, 68), 'rows 60 to 67');
            assertSameBits(batched!, all!, 'a batch with one b');
            assertSameBits(
              narrow!,
              all!.filter((_, i) => i % n >= 100 && i % n < 117),
              'columns 100 to 116',
            );
          }
        });

        it('gives a row and a column the same bits where blocks are cut and stored in another way', async () => {
          // Caches and threads are the CPU's.
          const large = [
            [520, 1040, 70], // rows whose A stays in L2; C goes past the caches
            [530, 270, 2800], // squares of C, block by block of k; both operands slice by slice where they lie across
          ] as const;
          for (const [m, n, k] of [
            ...(onEmulator() ? [] : large),
            [48, 40, 64], // A as it is stored, and the last half of a tile
          ] as const) {
            for (const threads of onEmulator() ? [1] : [1, 2]) {
              for (const [transposeA, transposeB] of [
                [false, true],
                [true, false],
              ] as const) {
                setThreads(threads);
                const options = { family, outDtype: 'fp32' } as const;
                const [all, rows, columns] = await values(() => {
                  const [a, b] = wide(m, n, k);
                  const plainA = stored(a, m, k, false, dtype);
                  const plainB = stored(b, k, n, true, dtype);
                  const x = transposeA ? stored(a, m, k, true, dtype) : plainA;
                  const y = transposeB ? plainB : stored(b, k, n, false, dtype);
                  return [
                    gemm(x, y, { ...options, transposeA, transposeB }),
                    gemm(plainA.rows(m - 3, m), plainB, { ...options, transposeB: true }),
                    gemm(plainA, plainB.rows(n - 5, n), { ...options, transposeB: true }),
                  ];
                });
                const shape = `[${m}, ${k}] x [${k}, ${n}], ${threads} threads`;
                assertSameBits(rows!, all!.subarray((m - 3) * n), `the last rows of ${shape}`);
                assertSameBits(
                  columns!,
                  all!.filter((_, i) => i % n >= n - 5),
                  `the last columns of ${shape}`,
                );
              }
            }
          }
        });

        it('gives the same bits at 1 and 3 threads', async () => {
          for (const [m, n, k] of [
            [400, 130, 130],
            [64, 40, 1500],
            [2, 700, 900],
          ] as const) {
            for (const [transposeA, transposeB] of [
              [false, true],
              [true, false],
            ] as const) {
              const run = () =>
                values(() => {
                  const a = normalTensor(transposeA ? [k, m] : [m, k], dtype, 9);
                  const b = normalTensor(transposeB ? [n, k] : [k, n], dtype, 10);
                  return [gemm(a, b, { transposeA, transposeB, family })];
                });
              setThreads(1);
              const [one] = await run();
              setThreads(3);
              const [three] = await run();
              assertSameBits(three!, one!, `${m} ${n} ${k}`);
            }
          }
        });

        it('takes each matrix of a batch on its own', async () => {
          const [count, m, n, k] = [3, 17, 35, 70];
          for (const transposeA of flags) {
            for (const transposeB of flags) {
              const options = { transposeA, transposeB, family, outDtype: 'fp32' } as const;
              const [own, ownOne, shared, sharedOne, sums, sumsOne] = await values(() => {
                const a = normalTensor(transposeA ? [count, k, m] : [count, m, k], dtype, 11);
                const b = normalTensor(transposeB ? [count, n, k] : [count, k, n], dtype, 12);
                const at = (t: Tensor, i: number) => view(t, (i * t.size) / count, t.shape.slice(1));
                const started = normalTensor([count, m, n], 'fp32', 13);
                const startedOne = cast(started, 'fp32');
                return [
                  gemm(a, b, options),
                  gemm(at(a, 2), at(b, 2), options),
                  gemm(a, at(b, 1), options),
                  gemm(at(a, 2), at(b, 1), options),
                  gemm(a, b, { ...options, out: started, accumulate: true }),
                  gemm(at(a, 2), at(b, 2), { ...options, out: at(startedOne, 2), accumulate: true }),
                ];
              });
              assertSameBits(own!.subarray(2 * m * n), ownOne!, 'own b');
              assertSameBits(shared!.subarray(2 * m * n), sharedOne!, 'one b for all');
              assertSameBits(sums!.subarray(2 * m * n), sumsOne!, 'accumulated');
            }
          }
        });

        it('keeps infinities and NaN, and overflows to infinity', async () => {
          const split = orderOf(family, dtype, level).step === 'splitTiles';
          const n = 20;
          const [c] = await values(() => {
            const a = tensor([1, 0, Number.NaN, 1, 60000, 60000], [3, 2], dtype);
            const b = tensor(
              Array.from({ length: 2 * n }, (_, i) => (i < n ? 60000 : Number.POSITIVE_INFINITY)),
              [2, n],
              dtype,
            );
            return [gemm(a, b, { family })];
          });
          for (let j = 0; j < n; j++) {
            assert.ok(Number.isNaN(c![j]), '0 * infinity');
            assert.ok(Number.isNaN(c![n + j]));
            // An infinity has no second part: at level amx it makes a NaN of an fp16 product.
            if (split) assert.ok(Number.isNaN(c![2 * n + j]));
            else assert.equal(c![2 * n + j], Number.POSITIVE_INFINITY);
          }
          if (dtype === 'fp16') {
            const [big] = await values(() => [
              gemm(tensor([300], [1, 1], dtype), tensor([300], [1, 1], dtype), { family }),
            ]);
            assert.equal(big![0], Number.POSITIVE_INFINITY);
          }
        });

        it('lets no chunk of k see another, whole rows of memory though they are', async () => {
          if (orderOf(family, dtype, level).step === 'splitTiles') return; // an infinity has no second part
          const [m, n, k, splitK] = [16, 8, 64, 20];
          const [c] = await values(() => {
            const infinite = Array.from({ length: m * k }, (_, i) =>
              i % k === 25 ? Number.POSITIVE_INFINITY : 1,
            );
            const ones = Array.from({ length: n * k }, () => 1);
            const a = tensor(infinite, [m, k], dtype);
            return [gemm(a, tensor(ones, [n, k], dtype), { transposeB: true, family, splitK })];
          });
          assert.ok(c!.every((x) => x === Number.POSITIVE_INFINITY));
        });

        it('rounds whole tiles, which store themselves, as it does the rest', async () => {
          const k = 4;
          const least = dtype === 'fp16' ? 2 ** -14 : 2 ** -126;
          const half = { fp32: 2 ** -24, fp16: 2 ** -11, bf16: 2 ** -8 }[dtype];
          const most = dtype === 'fp16' ? 65504 : 3.3895313892515355e38;
          // Sums of two steps or two chains: subnormal, ties to even, the largest and beyond, infinite, none.
          const columns = [
            [1.5 * least, 0, -least, 0],
            [-least / 2, 0, least / 4, 0],
            [1, 0, half, 0],
            [1 + 2 * half, 0, half, 0],
            [most, 0, most * half, 0],
            [most, 0, -most, 0],
            [Number.NEGATIVE_INFINITY, 0, 1, 0],
            [Number.NaN, 0, 1, 0],
            [-0, 0, -0, 0],
          ];
          const one = await values(() => {
            const row = tensor([1, 0, 1, 0], [1, k], dtype);
            return columns.map((column) => gemm(row, tensor(column, [k, 1], dtype), { family }));
          });
          // Tails of rows and columns; and a C that goes past the caches.
          for (const [m, n] of [
            [29, 70],
            [1100, 1024],
          ] as const) {
            const weight = Array.from({ length: n }, (_, j) => columns[j % columns.length]!).flat();
            const [c] = await values(() => [
              gemm(
                tensor(new Array(m).fill([1, 0, 1, 0]).flat(), [m, k], dtype),
                tensor(weight, [n, k], dtype),
                {
                  transposeB: true,
                  family,
                },
              ),
            ]);
            const row = Float32Array.from({ length: n }, (_, j) => one[j % columns.length]![0]!);
            const expected = new Float32Array(m * n);
            for (let i = 0; i < m; i++) expected.set(row, i * n);
            assertSameBits(c!, expected, `[${m}, ${n}]`);
          }
        });

        it('keeps subnormal numbers, but for bf16 pairs and tiles', async () => {
          const { step } = orderOf(family, dtype, level);
          const tiny = dtype === 'fp16' ? 2 ** -24 : 2 ** -130;
          const [c] = await values(() => [
            gemm(tensor([tiny], [1, 1], dtype), tensor([1], [1, 1], dtype), { family }),
          ]);
          assert.equal(c![0], step === 'pairs' || step === 'tiles' ? 0 : tiny);
        });
      });
    }
  }
}

describe('gemm', () => {
  it('rounds sums of an emulated format to it, whole tiles and the rest', { skip: noEmulated }, async () => {
    for (const level of vectorLevels())
      for (const family of families)
        for (const [m, n] of [
          [29, 70],
          [600, 1024], // past the caches
        ] as const) {
          setVectorLevel(level);
          const [c, expected] = await values(() => {
            const a = cast(normalTensor([m, 40], 'fp32', 16), 'e8m4');
            const b = cast(normalTensor([n, 40], 'fp32', 17), 'e8m4');
            const options = { transposeB: true, family } as const;
            return [gemm(a, b, options), cast(gemm(a, b, { ...options, outDtype: 'fp32' }), 'e8m4')];
          });
          assertSameBits(c!, expected!, `${level} ${family} [${m}, ${n}]`);
        }
  });

  it('rounds fp32 alike at AVX2 and AVX-512', async () => {
    const levels = vectorLevels().filter((level) => level !== 'portable');
    for (const family of families) {
      const results: Float32Array[] = [];
      for (const level of levels) {
        setVectorLevel(level);
        const [c] = await values(() => [
          gemm(normalTensor([50, 700], 'fp32', 14), normalTensor([700, 90], 'fp32', 15), { family }),
        ]);
        results.push(c!);
      }
      for (const c of results) assertSameBits(c, results[0]!, family);
    }
  });

  it('packs a wide B in several parts', { skip: onEmulator() && 'so does the CPU alone' }, async () => {
    // Ahead for several blocks of rows.
    setThreads(1);
    for (const dtype of ['fp32', 'bf16'] as const) {
      const [rows, all] = await values(() => {
        const a = normalTensor([1300, 1300], dtype, 16);
        const b = normalTensor([3500, 1300], dtype, 17);
        const options = { transposeB: true } as const;
        return [gemm(a.rows(777, 779), b, options), gemm(a, b, options)];
      });
      assertSameBits(all!.subarray(777 * 3500, 779 * 3500), rows!, dtype);
    }
  });

  it('accepts empty matrices', async () => {
    for (const family of families) {
      const shapesOf = tidy(() =>
        [
          gemm(zeros([0, 5]), zeros([5, 3]), { family }),
          gemm(zeros([4, 5]), zeros([5, 0]), { family }),
          gemm(zeros([0, 4, 5]), zeros([5, 3]), { family }),
        ].map((t) => t.shape),
      );
      assert.deepEqual(shapesOf, [
        [0, 3],
        [4, 0],
        [0, 4, 3],
      ]);
    }
  });

  it('writes into out and returns it', async () => {
    const [c] = await values(() => {
      const out = empty([2, 2]);
      const result = gemm(tensor([1, 2, 3, 4], [2, 2]), tensor([5, 6, 7, 8], [2, 2]), { out });
      assert.equal(result, out);
      return [out];
    });
    assert.deepEqual([...c!], [19, 22, 43, 50]);
  });

  it('names what is wrong with its arguments', () => {
    tidy(() => {
      const a = zeros([4, 6]);
      const b = zeros([6, 8]);
      const fails = (body: () => unknown, message: RegExp) =>
        assert.throws(body, { code: 'ERR_INVALID_ARGUMENT', message });
      fails(() => gemm(a, zeros([5, 8])), /^\[gemm\] expected b of shape \[K, N\] with K = 6, got \[5, 8\]$/);
      fails(() => gemm(a, b, { transposeB: true }), /b of shape \[N, K\] with K = 6, got \[6, 8\]/);
      fails(() => gemm(a, b, { transposeA: true }), /b of shape \[K, N\] with K = 4, got \[6, 8\]/);
      fails(() => gemm(zeros([6]), b), /a of 2 or 3 dimensions, got \[6\]/);
      fails(() => gemm(a, zeros([2, 6, 8])), /b of 2 dimensions, as a, got \[2, 6, 8\]/);
      fails(() => gemm(zeros([3, 4, 6]), zeros([2, 6, 8])), /b of shape \[B, K, N\] with B = 3/);
      fails(() => gemm(a, zeros([6, 8], 'bf16')), /b of dtype fp32, got bf16/);
      fails(() => gemm(zeros([4, 6], 'int32'), b), /a of dtype fp32, fp16 or bf16, got int32/);
      fails(() => gemm(a, b, { outDtype: 'fp16' }), /outDtype to be fp32, got fp16/);
      fails(
        () => gemm(cast(a, 'bf16'), cast(b, 'bf16'), { outDtype: 'fp16' }),
        /to be bf16 or fp32, got fp16/,
      );
      fails(
        () => gemm(a, b, { outDtype: 'int8' as NativeFloatDType }),
        /\[gemm\] expected outDtype to be fp16, bf16/,
      );
      fails(() => gemm(a, b, { bias: zeros([7]) }), /bias of shape \[N\] = \[8\], got \[7\]/);
      fails(() => gemm(a, b, { bias: zeros([8], 'fp16') }), /bias of dtype fp32, got fp16/);
      fails(() => gemm(a, b, { out: zeros([4, 9]) }), /out of shape \[M, N\] = \[4, 8\], got \[4, 9\]/);
      fails(
        () => gemm(a, b, { out: zeros([4, 8], 'bf16'), outDtype: 'fp32' }),
        /out of dtype fp32, got bf16/,
      );
      fails(() => gemm(a, b, { accumulate: true }), /out where accumulate is set, got none/);
      fails(
        () => gemm(cast(a, 'fp16'), cast(b, 'fp16'), { out: zeros([4, 8], 'fp16'), accumulate: true }),
        /outDtype to be fp32 where accumulate is set, got fp16/,
      );
      fails(
        () => gemm(zeros([8, 8]), b.reshape(8, 6), { out: b.reshape(8, 6) }),
        /out to have memory of its own/,
      );
      fails(() => gemm(a, b, { splitK: -1 }), /\[gemm\] expected splitK to be an integer of at least 0/);
      fails(() => gemm(a, b, { family: 'fast' as KernelFamily }), /family to be one of rollout, training/);
      const gone = zeros([6, 8]);
      gone.dispose();
      fails(() => gemm(a, gone), /b to be a live tensor/);
    });
  });
});
