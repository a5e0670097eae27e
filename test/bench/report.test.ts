import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BenchCase } from '../../bench/case.js';
import { inputSetsOf, quantile } from '../../bench/measure.js';
import {
  figuresLine,
  higherPeaks,
  type Measured,
  roofOf,
  rowOf,
  short,
  tableHead,
  tableRow,
} from '../../bench/report.js';
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

test('on a GPU both 16-bit types are held against the tensor cores', () => {
  for (const dtype of ['fp16', 'bf16'] as const)
    assert.deepEqual(roofOf({ dtype, flops: 1e9, bytes: 1 }, peaks, 'cuda'), { leastMs: 2.5, roof: 'bf16' });
  const wide = roofOf({ dtype: 'fp32', flops: 1e9, bytes: 1 }, peaks, 'cuda');
  assert.deepEqual(wide, { leastMs: 5, roof: 'fma' });
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

test('with peers: the best of them, our rate over its, our rate over one thread', () => {
  const peers = [
    { name: 'ggml', medianMs: 4, p90Ms: 4, minMs: 4, samples: 3 },
    { name: 'onednn', medianMs: 1, p90Ms: 9, minMs: 1, samples: 3 },
    { name: 'blis', reason: 'no such op' },
  ] as const;
  const single = measured(gemm, { threads: 1, timing: { ...timing, medianMs: 3.8 } });
  const double = measured(gemm, { peers });
  const row = rowOf(double, peaks, [single, double]);
  assert.deepEqual(row.bestPeer, { name: 'onednn', rate: 400, ratio: 0.5 });
  assert.equal(row.scaling, 1.9);
  assert.equal(row.peerDtype, null);
  assert.match(tableRow(row, { withPeers: true }), / bf16 onednn {8}400.0 {2}0.50 1.90$/);
  assert.equal(rowOf(single, peaks, [single, double]).scaling, null);
  assert.equal(rowOf(double, peaks).scaling, null);
  const other = { ...gemm, dtype: 'fp16', peer: { op: 'gemm', dims: [1], dtype: 'bf16' } } as const;
  const starred = rowOf(measured(other, { peers }), peaks);
  assert.equal(starred.peerDtype, 'bf16');
  assert.match(tableRow(starred, { withPeers: true }), / onednn\* /);
  const refused = rowOf(measured(gemm, { peers: [peers[2]] }), peaks);
  assert.equal(refused.bestPeer, null);
  for (const line of tableHead('gemm', 'GFLOP/s', { withPeers: true }).split('\n'))
    assert.ok(line.length <= 112);
});

test('tokens a second, and what else came about', () => {
  const step = { ...gemm, unit: 'tokens/s', flops: 0, bytes: 0, tokens: 100 } as const;
  const row = rowOf(measured(step, { timing: { ...timing, figures: { timerP99Ms: 1.5 } } }), peaks);
  assert.deepEqual([row.rate, row.share, row.figures], [50_000, null, { timerP99Ms: 1.5 }]);
  assert.equal(figuresLine(row), '  timerP99Ms 1.500');
  assert.equal(figuresLine({ figures: {} }), null);
});

test('bf16 is held against tiles where there are any, fp16 is not', () => {
  const tiles = { ...peaks, amx: { best: 4000, median: 3900 } };
  assert.deepEqual(roofOf({ dtype: 'bf16', flops: 1e9, bytes: 1 }, tiles), { leastMs: 0.25, roof: 'amx' });
  assert.deepEqual(roofOf({ dtype: 'fp16', flops: 1e9, bytes: 1 }, tiles), { leastMs: 5, roof: 'fma' });
  const higher = higherPeaks(tiles, { ...tiles, amx: { best: 3000, median: 3000 } });
  assert.equal(higher.amx?.best, 4000);
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
  assert.equal(inputSetsOf({ inputBytes: 64, flops: 0 }, 'cpu'), 16);
  assert.equal(inputSetsOf({ inputBytes: 2 ** 25, flops: 0 }, 'cpu'), 4);
  assert.equal(inputSetsOf({ inputBytes: 2 ** 25 + 1, flops: 0 }, 'cpu'), 4);
  assert.equal(inputSetsOf({ inputBytes: 2 ** 30, flops: 0 }, 'cpu'), 1);
  assert.equal(inputSetsOf({ inputBytes: 64, flops: 1e10 }, 'cpu'), 4);
  // A GPU does that many operations in no time.
  assert.equal(inputSetsOf({ inputBytes: 64, flops: 1e10 }, 'cuda'), 64);
  assert.equal(inputSetsOf({ inputBytes: 2 ** 25, flops: 1e10 }, 'cuda'), 4);
});
