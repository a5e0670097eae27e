import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { correctingPresets, simulateCorrections, simulateStep } from '../../lib/instruments/simulate.js';
import { RunDirectory, readMetrics } from '../../lib/io/runDirectory.js';
import { presetConfig } from '../../lib/rl/algorithms.js';
import type { StepRecording } from '../../lib/sanity/recording.js';
import { runSanity } from '../../lib/sanity/run.js';
import { tinyConfig } from '../sanity/tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-simulate-'));
after(() => rmSync(root, { recursive: true }));

/** Three responses with ratios pi_old / mu of 4, 20 and 1 (two tokens each), advantages 1, -1 and 0. */
const ln = Math.log;
const recording: StepRecording = {
  step: 7,
  offsets: Int32Array.of(0, 2, 4, 6),
  rollout: new Float64Array(6).fill(-5),
  old: Float64Array.from([2, 2, 4, 5, 1, 1], (r) => -5 + ln(r)),
  current: Float64Array.from([1, 1, 1, 1, 1, 1], (r) => -5 + ln(r)),
  mask: new Uint8Array(6).fill(1),
  update: new Int32Array(3),
  advantages: Float64Array.of(1, -1, 0),
  rewards: Float64Array.of(1, 0, 0),
};

describe('simulateStep', () => {
  it('says what is left, worked out by hand', () => {
    const mis = simulateStep(recording, presetConfig('grpo-seq-mis'));
    assert.equal(mis.step, 7);
    // 20 > 10 is dropped; the third has no advantage, so it does not teach.
    assert.equal(mis.keptShare, 2 / 6);
    assert.equal(mis.droppedSequences, 1 / 3);
    assert.equal(mis.signalShare, 0.5);
    assert.ok(Math.abs(mis.weightMax - 20) < 1e-12);
    assert.ok(Math.abs(mis.ess - 25 ** 2 / (3 * (16 + 400 + 1))) < 1e-12);
    const tis = simulateStep(recording, presetConfig('grpo-seq-tis'));
    assert.deepEqual([tis.keptShare, tis.droppedSequences, tis.signalShare], [4 / 6, 0, 1]);
    // The policy gradient is corrected by pi, which is mu here.
    const pg = simulateStep(recording, presetConfig('pg-seq-mis'));
    assert.deepEqual([pg.keptShare, pg.droppedSequences, pg.ess], [4 / 6, 0, 1]);
    const strict = simulateStep(recording, presetConfig('verl:decoupled_geo_rs'));
    assert.deepEqual([strict.droppedSequences, strict.signalShare], [2 / 3, 0]);
  });

  it('leaves out what no update looked at', () => {
    const lost = { ...recording, current: recording.current.map((x, t) => (t < 2 ? Number.NaN : x)) };
    const { keptShare, droppedSequences } = simulateStep(lost, presetConfig('pg-seq-is'));
    assert.deepEqual([keptShare, droppedSequences], [2 / 4, 0]);
  });
});

describe('simulateCorrections', () => {
  it('agrees with the metrics of the run that was recorded', async () => {
    const config = tinyConfig({
      steps: 6,
      recordEvery: 2,
      trainingPrecision: 'bf16',
      rolloutPrecision: 'bf16',
      updatesPerStep: 1,
      learningRate: 1e-3,
    });
    const directory = await RunDirectory.create(path.join(root, 'run'), { command: 'sanity', config });
    await runSanity(config, { directory });
    const summary = await simulateCorrections(directory.path);
    assert.deepEqual(summary.recordedSteps, [0, 2, 4]);
    assert.deepEqual(
      summary.simulations.map(({ algorithm }) => algorithm),
      [...correctingPresets],
    );
    const metrics = await readMetrics(directory.path);
    const own = summary.simulations.find(({ algorithm }) => algorithm === 'pg-seq-is')!;
    for (const { step, ess, weightMax } of own.steps) {
      assert.ok(Math.abs(ess - Number(metrics[step]!['algorithm/ess'])) < 1e-6);
      assert.ok(Math.abs(weightMax - Number(metrics[step]!['algorithm/weightMax'])) < 1e-6);
    }
    assert.equal(own.frozenAtStep, null);
    assert.ok(own.signalShare > 0.9);
  });

  it('warns where nothing would have been left', async () => {
    const run = path.join(root, 'run');
    const [geometric] = (await simulateCorrections(run, ['verl:decoupled_geo_rs'])).simulations;
    // Differences of 1e-3 a token are beyond 0.999 to 1.001 in many responses, yet not in all.
    assert.ok(geometric!.keptShare < 1);
    await assert.rejects(simulateCorrections(path.join(root, 'missing')), /the folder of a run/);
    const none = await RunDirectory.create(path.join(root, 'none'), { command: 'sanity', config: {} });
    await assert.rejects(simulateCorrections(none.path), /recorded log-probs in .*--record-every/);
    const grid = await RunDirectory.create(path.join(root, 'grid'), { command: 'grid', config: {} });
    await assert.rejects(simulateCorrections(grid.path), /a sanity run, got one of "grid"/);
  });
});
