import assert from 'node:assert/strict';
import { afterEach, test } from 'node:test';
import { measurePeaks, peak, peakWork } from '../../lib/ops/peak.js';
import { currentDevice, info, memory, setThreads, setVectorLevel } from '../../lib/runtime.js';
import { empty, type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { vectorLevels } from '../support/levels.js';

const { threads, vectorLevel } = info();
const onGpu = currentDevice() === 'cuda';
afterEach(() => {
  setThreads(threads);
  setVectorLevel(vectorLevel);
});

async function itemOf(out: Tensor): Promise<number> {
  const value = await out.item();
  out.dispose();
  return value;
}

test('the arithmetic ends at the value that only all of it can give', async () => {
  const start = memory().tensors;
  for (const level of vectorLevels())
    for (const count of [1, 3]) {
      setThreads(count);
      setVectorLevel(level);
      // x -> x / 2 + 1 has the fixed point 2, which fp32 reaches from any start below 100 in 40 steps.
      for (const passes of [1, 67]) assert.equal(await itemOf(peak('fma', passes)), 2, `${level}, ${passes}`);
      if (!onGpu && level !== 'avx512bf16' && level !== 'amx') continue;
      // 4096 steps of 0.5 * (1 - 0.5)
      for (const passes of [1, 67]) assert.equal(await itemOf(peak('bf16', passes)), 1024, `${passes}`);
      if (onGpu || level !== 'amx') continue;
      // 1024 steps of 16 * 0.5 * (1 - 0.5)
      for (const passes of [1, 67]) assert.equal(await itemOf(peak('amx', passes)), 4096, `${passes}`);
    }
  assert.equal(memory().tensors, start);
});

test('every element is read, every element is copied', async () => {
  const count = 2 * 262144 + 96; // blocks of the kernel and a rest
  const values = Float32Array.from({ length: count }, (_, i) => -((i * 37) % 1000) - 1);
  for (const level of vectorLevels())
    for (const workers of [1, 3]) {
      setThreads(workers);
      setVectorLevel(level);
      for (const at of [0, 262143, 262144, count - 33, count - 1]) {
        const memory = tensor(values.with(at, 5), [count]);
        assert.equal(await itemOf(peak('read', 2, memory)), 5, `${level}, element ${at}`);
        memory.dispose();
      }
      const memory = tensor(values, [count]);
      await itemOf(peak('copy', 1, memory));
      const after = await memory.floats();
      const half = values.subarray(0, count / 2);
      assert.deepEqual(after.subarray(0, count / 2), half);
      assert.deepEqual(after.subarray(count / 2), half);
      memory.dispose();
    }
});

test('work: two operations a multiply-add, the bytes of each pass', () => {
  assert.equal(peakWork('fma', 3), 3 * 4096 * 12 * 16 * 2);
  assert.equal(peakWork('bf16', 3), 2 * peakWork('fma', 3));
  assert.equal(peakWork('amx', 3), 3 * 1024 * 4 * 16 * 16 * 32 * 2);
  assert.equal(peakWork('read', 3, 1000), 3000);
  assert.equal(peakWork('copy', 3, 1000), 3000);
});

test('wrong arguments', () => {
  const half = empty([64], 'bf16');
  const odd = empty([33]);
  const start = memory().tensors;
  assert.throws(() => peak('fmma' as 'fma', 1), /\[peak\] expected kind .* \(did you mean fma\?\)/);
  assert.throws(() => peak('fma', 0), /\[peak\] expected passes .* got 0/);
  assert.throws(() => peak('read', 1), /\[peak\] expected memory .* got none/);
  assert.throws(() => peak('read', 1, half), /\[peak\] expected memory .* fp32/);
  assert.throws(() => peak('copy', 1, odd), /\[peak\] expected memory .* multiple of 32 .* got 33/);
  if (onGpu) {
    assert.throws(() => peak('amx', 1), /\[peak\] expected the CPU for kind amx, got cuda/);
  } else {
    setVectorLevel('portable');
    assert.throws(() => peak('bf16', 1), /\[peak\] expected vector level avx512bf16 .* got portable/);
    assert.throws(() => peak('amx', 1), /\[peak\] expected vector level amx .* got portable/);
  }
  assert.equal(memory().tensors, start);
  half.dispose();
  odd.dispose();
});

test('measured peaks are positive, and the settings are as before', async () => {
  const start = memory().tensors;
  const peaks = await measurePeaks({ threads: 1, milliseconds: 1, memoryBytes: 2 ** 20 });
  assert.equal(peaks.threads, 1);
  assert.equal(peaks.vectorLevel, vectorLevel);
  assert.equal(peaks.bf16 !== null, onGpu || vectorLevel === 'avx512bf16' || vectorLevel === 'amx');
  assert.equal(peaks.amx !== null, !onGpu && vectorLevel === 'amx');
  for (const each of [peaks.fma, peaks.read, peaks.copy])
    assert.ok(each.best >= each.median && each.median > 0);
  assert.equal(info().threads, threads);
  assert.equal(memory().tensors, start);
  await assert.rejects(measurePeaks({ memoryBytes: 5 }), /memoryBytes .* got 5/);
  await assert.rejects(measurePeaks({ threads: 0 }), /threads .* got 0/);
});
