import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BenchCase } from '../../bench/case.js';
import { inputSetsOf, quantile } from '../../bench/measure.js';
import { higherPeaks, type Measured, roofOf, rowOf, short, tableHead, tableRow } from '../../bench/report.js';
import type { MachinePeaks } from '../../lib/ops/peak.js';

const peaks: MachinePeaks = {
  threads: 2,
  vectorLevel: 'avx512bf16',
  fma: { best: 200, median: 190 },
  bf16: { best: 400, median: 390 },
  amx: null,
  read: { best: 20, median: 15 },
  copy: { best: 30, median: 25 },
};
const timing = { medianMs: 2, p90Ms: 3, minMs: 1.5, samples: 9, runsPerSample: 4, inputSets: 2, figures: {} };

test('the roof is the slower of arithmetic and memory', () => {
  // 1e9 operations: 5 ms at 200 GFLOP/s, 2.5 ms at 400. 1e8 bytes: 5 ms at 20 GB/s.
  const arithmetic = roofOf({ dtype: 'fp16', flops: 1e9, bytes: 1e6 }, peaks);
  assert.deepEqual(arithmetic, { leastMs: 5, roof: 'fma' });
  assert.deepEqual(roofOf({ dtype: 'bf16', flops: 1e9, bytes: 1e6 }, peaks), { leastMs: 2.5, roof: 'bf16' });
  assert.deepEqual(roofOf({ dtype: 'bf16', flops: 1e9, bytes: 1e8 }, peaks), { leastMs: 5, roof: 'read' });
  assert.deepEqual(roofOf({ dtype: 'fp32', flops: 0, bytes: 2e7 }, peaks), { leastMs: 1, roof: 'read' });
});

test('an op that writes is held against copying, where that is faster than reading', () => {
  const op = { dtype: 'fp32', flops: 0, bytes: 3e7, writes: true } as const;
  assert.deepEqual(roofOf(op, peaks), { leastMs: 1, roof: 'copy' });
  const slowCopy = { ...peaks, copy: { best: 10, median: 10 } };
  assert.deepEqual(roofOf(op, slowCopy), { leastMs: 1.5, roof: 'read' });
});

test('bf16 without vdpbf16ps is held against the fp32 multiply-add', () => {
  const roof = roofOf({ dtype: 'bf16', flops: 1e9, bytes: 1 }, { ...peaks, vectorLevel: 'avx2', bf16: null });
  assert.deepEqual(roof, { leastMs: 5, roof: 'fma' });
});

test('the higher peak of two passes stays', () => {
  const later: MachinePeaks = { ...peaks, fma: { best: 150, median: 149 }, read: { best: 22, median: 10 } };
  const best = higherPeaks(higherPeaks(undefined, peaks), later);
  assert.equal(best.fma.best, 200);
  assert.equal(best.read.best, 22);
  assert.equal(best.bf16?.best, 400);
});

const gemm = {
  group: 'gemm',
  op: 'gemm',
  family: 'training',
  dtype: 'bf16',
  shape: '16x151936x1536',
  unit: 'GFLOP/s',
  flops: 4e8,
  bytes: 1e7,
  inputBytes: 1,
  prepare: () => assert.fail('not to be run'),
} as const;

const measured = (benchCase: BenchCase, parts: Partial<Measured> = {}): Measured => ({
  benchCase,
  threads: 2,
  timing,
  peers: [],
  ...parts,
});

test('rates, share and roof of a row', () => {
  const row = rowOf(measured(gemm), peaks);
  assert.equal(row.gflops, 200); // 4e8 operations in 2 ms
  assert.equal(row.gbps, 5);
  assert.equal(row.rate, 200);
  assert.equal(row.share, 0.5);
  assert.equal(row.roof, 'bf16');
  assert.equal(row.threads, 2);
  assert.equal(rowOf(measured({ ...gemm, unit: 'GB/s' }), peaks).rate, 5);
  const call = rowOf(measured({ ...gemm, unit: 'ns/op', flops: 0, bytes: 0, ops: 20 }), peaks);
  assert.deepEqual([call.rate, call.share, call.roof], [1e5, null, null]); // 2 ms for 20 ops
});

test('the table is 80 columns wide at most, whatever the row', () => {
  const slow = { ...timing, medianMs: 123456.7, p90Ms: 234567.8 };
  for (const op of ['gemm', 'linearInputGradient', 'linearWeightGradient', 'linearLogprobBackward']) {
    const row = { ...rowOf(measured({ ...gemm, op }, { timing: slow }), peaks), threads: 64 };
    const line = tableRow(row);
    assert.ok(line.length <= 80, `${line.length}: ${line}`);
    assert.match(line, / 64 /);
  }
  for (const line of tableHead('gemm', 'GFLOP/s').split('\n')) assert.ok(line.length <= 80);
  assert.equal(
    tableRow(rowOf(measured(gemm), peaks)),
    'gemm            training bf16 16x151936x1536  2   2.000   3.000  200.0  50% bf16',
  );
});

test('numbers of four digits', () => {
  assert.deepEqual([0.00012, 0.5, 1, 12.3456, 999.94, 1234.5, 123456.7].map(short), [
    '0.0001',
    '0.5000',
    '1.000',
    '12.35',
    '999.9',
    '1235',
    '123457',
  ]);
});

test('quantiles of sorted samples', () => {
  assert.equal(quantile([1, 2, 3, 4, 5], 0.5), 3);
  assert.equal(quantile([0, 10], 0.9), 9);
  assert.equal(quantile([7], 0.9), 7);
  assert.ok(Number.isNaN(quantile([], 0.9)));
});

test('input sets outgrow the caches without outgrowing the memory', () => {
  assert.equal(inputSetsOf(64), 16);
  assert.equal(inputSetsOf(2 ** 25), 4);
  assert.equal(inputSetsOf(2 ** 25 + 1), 4);
  assert.equal(inputSetsOf(2 ** 30), 1);
});
