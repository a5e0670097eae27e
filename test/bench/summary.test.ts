import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BenchDocument, Row } from '../../bench/report.js';
import { dimensions, outcomeLines, outcomes } from '../../bench/summary.js';

const row = (parts: Partial<Row>): Row => ({
  group: 'gemm',
  op: 'gemm',
  family: 'training',
  dtype: 'bf16',
  shape: '512x1536x1536',
  threads: 1,
  medianMs: 1,
  p90Ms: 1,
  minMs: 1,
  samples: 5,
  runsPerSample: 1,
  inputSets: 1,
  figures: {},
  rate: 100,
  unit: 'GFLOP/s',
  gflops: 100,
  gbps: 1,
  share: 0.5,
  roof: 'bf16',
  scaling: null,
  peers: [],
  peerDtype: null,
  bestPeer: null,
  ...parts,
});

/** Only what the summary reads. */
const run = (...rows: Row[]) => onDevice(null, rows);
/** On a GPU whose kernels are those of another capability, or of its own. */
const onGpu = (heldTo: string | null, ...rows: Row[]) => onDevice({ heldTo }, rows);

const onDevice = (gpu: { heldTo: string | null } | null, rows: Row[]) => {
  const peak = (best: number) => ({ best, median: best });
  const pass = { before: 'gemm', threads: 1, fma: peak(50), bf16: peak(100), amx: null, copy: peak(10) };
  const peaks = [pass, { ...pass, bf16: peak(110) }];
  return { rows, peaks, machine: { gpu } } as unknown as BenchDocument;
};

const peer = (ratio: number) => ({ bestPeer: { name: 'ggml', rate: 1, ratio } }) as const;

test('numbers of a shape', () => {
  assert.deepEqual(dimensions('1x151936x1536'), [1, 151936, 1536]);
  assert.deepEqual(dimensions('64x16+48'), [64, 16, 48]);
});

test('a target has the worst and the median of its rows, by family and threads', () => {
  const packed = { op: 'gemmPacked' } as const;
  const all = outcomes(
    run(
      row({ ...packed, ...peer(1.2) }),
      row({ ...packed, ...peer(0.9), shape: '128x512x128' }),
      row({ ...packed, ...peer(1.5), shape: '256x256x256' }),
      row({ ...packed, ...peer(3), family: 'rollout' }),
      row({ ...packed, ...peer(0.1), shape: '8x1536x1536' }), // decode: another target
    ),
  ).filter(({ what }) => what.startsWith('GEMM bf16, M >= 128, packed: of the best peer'));
  assert.equal(all.length, 2);
  const { family, rows, median, worst, where, bound, met } = all[0]!;
  assert.deepEqual(
    [family, rows, median, worst, where, bound, met],
    ['training', 3, 1.2, 0.9, 'bf16 128x512x128', '>= 1', false],
  );
  assert.deepEqual([all[1]!.family, all[1]!.worst, all[1]!.met], ['rollout', 3, true]);
});

test('the share of vdpbf16ps is of the best pass', () => {
  const [plain] = outcomes(run(row({ gflops: 99 }))).filter(({ what }) => /plain/.test(what));
  assert.equal(plain?.worst, 0.9);
  assert.equal(plain?.met, true);
});

test('rows are held against their counterpart on the same shape', () => {
  const backward = { op: 'attentionBackward', shape: '1x12x512x128', medianMs: 30 } as const;
  const forward = { op: 'attention', shape: '1x12x512x128', medianMs: 10 } as const;
  const other = { ...forward, shape: '64x4x64x64', medianMs: 1 } as const;
  const found = outcomes(run(row(other), row(forward), row(backward)));
  const [ratio] = found.filter(({ what }) => what === 'Attention backward: times the forward');
  assert.deepEqual([ratio?.worst, ratio?.bound, ratio?.met], [3, '<= 2.5', false]);

  const transposes = outcomes(
    run(
      row({ gflops: 100 }),
      row({ gflops: 100, family: 'rollout' }),
      row({ op: 'linearWeightGradient', gflops: 95 }),
    ),
  ).filter(({ what }) => what.startsWith('Transposes'));
  assert.deepEqual(
    transposes.map(({ worst, met }) => [worst, met]),
    [[0.95, true]],
  );
});

test('what was not measured is left out', () => {
  assert.deepEqual(outcomes(run()), []);
  const alone = outcomes(run(row({ op: 'attentionBackward', share: null })));
  assert.deepEqual(alone, []);
});

test('memory and delays are at most', () => {
  const found = outcomes(
    run(
      row({ op: 'generate+timer', unit: 'tokens/s', figures: { timerP99Ms: 3 } }),
      row({ op: 'generate+timer', unit: 'tokens/s', figures: { timerP99Ms: 25 }, dtype: 'fp16' }),
    ),
  );
  assert.deepEqual(
    found.map(({ worst, where, met }) => [worst, where, met]),
    [[25, 'fp16 512x1536x1536', false]],
  );
});

test('a GPU has targets of its own', () => {
  const tall = row({ shape: '4096x4096x4096', bestPeer: { name: 'torch-cuda', rate: 1, ratio: 0.96 } });
  const skinny = row({ shape: '1x17920x1536', gbps: 9 });
  const slow = row({ shape: '64x17920x1536', gbps: 7, dtype: 'fp16' });
  const found = outcomes(onGpu(null, tall, skinny, slow)).map(({ what, rows, worst, met }) => [
    what.slice(0, 26),
    rows,
    worst,
    met,
  ]);
  assert.deepEqual(found, [
    ['GEMM of 16 bits, M >= 1024', 1, 0.96, true],
    ['GEMM of 16 bits, M <= 64: ', 2, 0.7, false],
  ]);
  const [held] = outcomes(onGpu('80', { ...tall, bestPeer: { name: 'torch-cuda', rate: 1, ratio: 0.6 } }));
  assert.deepEqual([held?.what, held?.met], ['The same by the kernels of older GPUs', true]);
  for (const outcome of outcomes(onGpu(null, tall, slow)))
    for (const line of outcomeLines(outcome)) assert.ok(line.length <= 80, line);
});
