import assert from 'node:assert/strict';
import { test } from 'node:test';
import { forwardFlops, type ModelSize, matmulWeights, trainingFlops } from '../../bench/model.js';
import {
  decodeRate,
  higherOf,
  kvBytesPerToken,
  peaksFor,
  prefillRate,
  trainingBytesPerToken,
  trainingRate,
} from '../../bench/scaling/theory.js';
import type { MachinePeaks } from '../../lib/ops/peak.js';

const size: ModelSize = { layers: 2, hidden: 10, heads: 2, ffn: 20, vocabulary: 100 };
const peak = (best: number) => ({ best, median: best });
const peaks: MachinePeaks = {
  threads: 1,
  vectorLevel: 'avx512bf16',
  fma: peak(1),
  bf16: peak(2),
  amx: null,
  read: peak(4),
  copy: peak(5),
};
const ground = { peaks, reading: [], dtype: 'bf16' } as const;

test('weights and operations of a model', () => {
  // A layer has 4 * 100 of attention and 3 * 200 of feed-forward, the head 1000.
  assert.equal(matmulWeights(size), 3000);
  // Behind the last attention are 100 of its output, the feed-forward block and the head.
  assert.equal(forwardFlops(size, 5, 3, 2), 2 * 1300 * 5 + 4 * 2 * 10 * 5 * 3 + 2 * 1700 * 2);
  assert.equal(trainingFlops(size, 3, 4), 3 * (6 * 3000 * 4 + 12 * 2 * 10 * 16));
});

test('a decode step takes the longer of arithmetic and reading, for weights and for the cache', () => {
  // One sequence: reading 6000 bytes of weights takes 1.5 us, 6000 operations 3 us. The cache: 50 keys of 80 bytes take
  // 1 us, 4 * 2 * 10 * 50 operations 2 us.
  assert.ok(Math.abs(decodeRate(size, 1, 50, ground) - 1e6 / (3 + 2)) < 1e-6);
  // With arithmetic that costs nothing the reading is left.
  const fast = { ...ground, peaks: { ...peaks, bf16: peak(1e9) } };
  assert.ok(Math.abs(decodeRate(size, 1, 50, fast) - 1e6 / (1.5 + 1)) < 1e-3);
});

test('prefill is arithmetic; training is three passes and the optimizer', () => {
  const prefillUs = forwardFlops(size, 8, 4, 1) / 2000;
  assert.ok(Math.abs(prefillRate(size, 8, ground) - 8e6 / prefillUs) < 1e-6);
  const flops = trainingFlops(size, 2, 4) - 6 * 2 * 10 * 16 * 2;
  const optimizerUs = (4000 * 30) / 5000;
  assert.ok(Math.abs(trainingRate(size, 2, 4, ground) - 8e6 / (flops / 2000 + optimizerUs)) < 1e-6);
});

test('what fits in a cache is read from there', () => {
  const reading = [
    { bytes: 100, gbps: 50 },
    { bytes: 1000, gbps: 20 },
    { bytes: 10_000, gbps: 4 },
  ];
  const read = (bytes: number) => peaksFor(bytes, { ...ground, reading }).read.best;
  assert.deepEqual([10, 100, 999, 1000, 99_999].map(read), [50, 50, 50, 20, 4]);
  assert.equal(peaksFor(10, ground).read.best, 4);
});

test('of two measurements each roof is the higher one', () => {
  const reading = (...gbps: number[]) => gbps.map((value, i) => ({ bytes: 10 ** i, gbps: value }));
  const a = { ...ground, reading: reading(5, 1) };
  const b = {
    ...ground,
    peaks: { ...peaks, fma: peak(3), bf16: null, amx: peak(7), read: peak(1) },
    reading: reading(4, 2),
  };
  for (const found of [higherOf(a, b), higherOf(b, a)]) {
    assert.deepEqual(found.reading, reading(5, 2));
    const { fma, bf16, amx, read, copy } = found.peaks;
    assert.deepEqual([fma, bf16, amx, read, copy], [peak(3), peak(2), peak(7), peak(4), peak(5)]);
  }
});

test('memory of a token', () => {
  assert.equal(kvBytesPerToken(size, 'bf16'), 2 * 2 * 10 * 2);
  assert.equal(kvBytesPerToken(size, 'fp32'), 2 * 2 * 10 * 4);
  // 2 (100 + 60) + 30 kept, 20 of gradients, or 100 + 10 - 30 of wide blocks; 11 numbers of four bytes.
  assert.equal(trainingBytesPerToken(size, 'bf16'), 2 * (350 + 20) + 4 * 11);
  assert.equal(trainingBytesPerToken({ ...size, ffn: 100 }, 'bf16'), 2 * (350 + 480 + 80) + 4 * 11);
});
