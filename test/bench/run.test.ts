import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseBenchArguments } from '../../bench/arguments.js';
import { nameOf } from '../../bench/case.js';
import { groups } from '../../bench/cases/index.js';
import { openSampler } from '../../bench/measure.js';
import type { BenchDocument } from '../../bench/report.js';
import { devices } from '../../lib/device.js';
import { currentDevice, memory } from '../../lib/runtime.js';
import { full } from '../../lib/tensor/tensor.js';

// A GPU has no threads to be chosen.
const onGpu = currentDevice() === 'cuda';
const threads = onGpu ? [] : ['--threads', '1'];
const script = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../bench/main.js');

describe('a tiny run', () => {
  let folder = '';
  let document: BenchDocument;
  let stdout = '';
  before(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'isopolicy-bench-'));
    const out = path.join(folder, 'bench.json');
    const sizes = ['--shapes', 'tiny', '--time', '5', '--sets', '1'];
    const argv = ['--only', 'elementwise', '--dtype', 'bf16', ...sizes, ...threads, '--out', out];
    const run = spawnSync(process.execPath, [script, ...argv], { encoding: 'utf8' });
    assert.equal(run.status, 0, run.stderr + run.stdout);
    stdout = run.stdout;
    document = JSON.parse(await readFile(out, 'utf8')) as BenchDocument;
  });
  after(() => rm(folder, { recursive: true, force: true }));

  test('the document says what ran, where and on what', () => {
    assert.equal(document.schemaVersion, 2);
    assert.ok(Math.abs(Date.parse(document.date) - Date.now()) < 3_600_000);
    assert.ok(document.commit === null || /^[0-9a-f]{40}\+?$/.test(document.commit));
    assert.match(document.command, /^npm run bench -- --only elementwise /);
    assert.deepEqual(document.settings, {
      only: ['elementwise'],
      dtypes: ['bf16'],
      families: ['rollout', 'training', 'shared'],
      shapes: 'tiny',
      device: currentDevice(),
      threads: onGpu ? [] : [1],
      time: 5,
      sets: 1,
      rows: [],
      peers: [],
      peersDir: null,
      pinPeers: false,
    });
    const { cpu, cores, node, vectorLevel, memoryBytes, gpu } = document.machine;
    assert.equal(gpu !== null, onGpu);
    assert.ok(cpu.length > 0 && cores >= 1 && memoryBytes > 0 && vectorLevel.length > 0);
    assert.equal(node, process.version);
    assert.deepEqual(document.failures, []);
  });

  test('peaks are measured on one thread and on all', () => {
    assert.equal(document.peaks[0]?.threads, 1);
    const half = document.peaks.length / 2;
    document.peaks.forEach((pass, i) => {
      assert.equal(pass.before, i < half ? 'elementwise' : 'the end');
    });
    for (const pass of document.peaks) {
      for (const peak of [pass.fma, pass.read, pass.copy, ...(pass.bf16 ? [pass.bf16] : [])])
        assert.ok(peak.best > 0 && peak.median > 0 && peak.best >= peak.median, JSON.stringify(pass));
    }
  });

  test('each row has its numbers, and a line in the table', () => {
    const expected = groups.elementwise(parseBenchArguments(['--dtype', 'bf16', '--shapes', 'tiny']));
    assert.ok(expected.length > 5);
    assert.deepEqual(
      document.rows.map((row) => row.op),
      expected.map((c) => c.op),
    );
    for (const row of document.rows) {
      assert.deepEqual(
        [row.group, row.family, row.dtype, row.threads, row.unit],
        ['elementwise', 'shared', 'bf16', 1, 'GB/s'],
      );
      assert.ok(row.samples >= 5 && row.runsPerSample >= 1 && row.inputSets === 1, JSON.stringify(row));
      assert.ok(row.minMs > 0 && row.minMs <= row.medianMs && row.medianMs <= row.p90Ms, JSON.stringify(row));
      assert.ok(row.gbps > 0 && row.rate === row.gbps && row.gflops === 0 && row.share !== null);
      assert.ok(row.roof === 'read' || row.roof === 'copy');
    }
    const lines = stdout.trimEnd().split('\n');
    assert.equal(lines.filter((line) => line.includes(' shared   bf16 ')).length, document.rows.length);
    for (const line of lines) assert.ok(line.length <= 80, `${line.length} columns: ${line}`);
  });
});

test('cases of every group, set and device: positive work, names that fit', () => {
  for (const device of devices)
    for (const shapes of ['tiny', 'quick', 'full'])
      for (const [group, casesOf] of Object.entries(groups)) {
        const cases = casesOf(parseBenchArguments(['--device', device, '--shapes', shapes]));
        assert.ok(cases.length > 0, group);
        const seen = new Set<string>();
        for (const c of cases) {
          const name = `${device} ${nameOf(c)}`;
          assert.equal(c.group, group);
          assert.ok(!seen.has(name), `${name} twice`);
          seen.add(name);
          if (shapes !== 'full') assert.ok(c.shape.length <= (device === 'cuda' ? 17 : 14), name);
          const work = { 'GFLOP/s': c.flops, 'GB/s': c.bytes, 'tokens/s': c.tokens, 'ns/op': c.ops }[c.unit];
          assert.ok(work! > 0, name);
          assert.ok(c.inputBytes > 0, name);
        }
      }
});

test('an input set of each op runs and leaves nothing', async () => {
  const start = memory().tensors;
  const fence = full([1], 0);
  for (const casesOf of Object.values(groups)) {
    const cases = casesOf(parseBenchArguments(['--dtype', 'fp32', '--shapes', 'tiny']));
    // One of each op: all of them are timed by the benchmark itself.
    const ops = new Map(cases.map((c) => [`${c.op} ${c.family}`, c]));
    for (const c of ops.values()) {
      const input = c.prepare(1);
      await input.run();
      await fence.data();
      input.dispose();
      assert.equal(memory().tensors, start + 1, `${c.op} leaves tensors behind`);
    }
  }
  fence.dispose();
});

test('a sampler measures, and leaves nothing', async () => {
  const start = memory().tensors;
  const [add] = groups.elementwise(parseBenchArguments(['--dtype', 'bf16', '--shapes', 'tiny']));
  const sampler = await openSampler(add!, 3);
  const samples = await sampler.measure(1);
  assert.ok(samples.length >= 2 && samples.every((ms) => ms > 0), `${samples}`);
  // On a GPU all sets are one recording.
  assert.ok(sampler.runs >= 1 && (!onGpu || sampler.runs % 3 === 0), `${sampler.runs}`);
  sampler.close();
  assert.equal(memory().tensors, start);
});

test('the filters reach every group', () => {
  for (const casesOf of Object.values(groups)) {
    for (const c of casesOf(parseBenchArguments(['--family', 'rollout', '--dtype', 'fp16']))) {
      assert.equal(c.family, 'rollout');
      assert.equal(c.dtype, 'fp16');
    }
  }
});
