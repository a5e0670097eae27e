import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, it } from 'node:test';
import {
  correctingPresets,
  resolveSimulateOptions,
  simulateCorrections,
  simulateStep,
} from '../../lib/instruments/simulate.js';
import { RunDirectory, readMetrics } from '../../lib/io/runDirectory.js';
import { presetConfig } from '../../lib/rl/algorithms.js';
import type { PresetName } from '../../lib/rl/presets.js';
import type { StepRecording } from '../../lib/rl/recording.js';
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

  it('has the effective sample size of what each correction leaves', () => {
    const left = (name: PresetName) => simulateStep(recording, presetConfig(name)).essLeft!;
    const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-12, `${a}, not ${b}`);
    // Weights of the responses, two tokens each: 4, 0, 1; 3, 3, 1; of tokens 2, 2, 2, 2, 1, 1.
    near(left('grpo-seq-mis'), 25 / (3 * 17));
    near(left('grpo-seq-tis'), 49 / (3 * 19));
    near(left('grpo-token-tis'), 100 / (6 * 18));
    // Rejection alone has weights of 1 and 0: the share that is kept, and of nothing there is nothing.
    near(left('verl:decoupled_geo_rs'), 1 / 3);
    const apart = { ...recording, old: recording.rollout.map((x) => x + 1) };
    assert.equal(simulateStep(apart, presetConfig('verl:decoupled_geo_rs')).essLeft, 0);
  });

  it('normalises weights over the responses of each update, as training does', () => {
    const two = { ...recording, update: Int32Array.of(0, 0, 1) };
    const { signalShare, essLeft, weightMax } = simulateStep(two, {
      loss: 'ppo-clip',
      importance: { level: 'sequence', batchNormalize: true },
    });
    // 4 and 20 over their mean, 12; 1 alone. Raw weights are told as they are.
    assert.ok(Math.abs(signalShare - (1 / 3 + 1) / 2) < 1e-12);
    assert.ok(Math.abs(essLeft! - 3 ** 2 / (3 * (1 / 9 + 25 / 9 + 1))) < 1e-12);
    assert.ok(Math.abs(weightMax - 20) < 1e-12);
  });

  it('leaves out what no update looked at', () => {
    const lost = { ...recording, current: recording.current.map((x, t) => (t < 2 ? Number.NaN : x)) };
    const { keptShare, droppedSequences } = simulateStep(lost, presetConfig('pg-seq-is'));
    assert.deepEqual([keptShare, droppedSequences], [2 / 4, 0]);
  });
});

describe('simulateCorrections', () => {
  const config = tinyConfig({
    steps: 6,
    recordEvery: 2,
    trainingPrecision: 'bf16',
    rolloutPrecision: 'bf16',
    updatesPerStep: 1,
    learningRate: 1e-3,
  });
  const run = path.join(root, 'run');
  let made = 0;
  const open = (command: string, of: object) =>
    RunDirectory.create(path.join(root, `${command}-${made++}`), { command, config: of });
  before(async () => {
    const directory = await RunDirectory.create(run, { command: 'sanity', config });
    await runSanity(config, { directory });
  });

  it('agrees with the metrics of the run that was recorded', async () => {
    const all = await resolveSimulateOptions({ run });
    const directory = await open('simulate', all);
    const summary = await simulateCorrections(all, { directory });
    assert.deepEqual(summary.recordedSteps, [0, 2, 4]);
    assert.deepEqual(
      summary.simulations.map(({ algorithm }) => algorithm),
      [...correctingPresets],
    );
    const metrics = await readMetrics(run);
    const own = summary.simulations.find(({ algorithm }) => algorithm === 'pg-seq-is')!;
    for (const { step, ess, weightMax } of own.steps) {
      assert.ok(Math.abs(ess - Number(metrics[step]!['algorithm/ess'])) < 1e-6);
      assert.ok(Math.abs(weightMax - Number(metrics[step]!['algorithm/weightMax'])) < 1e-6);
    }
    assert.equal(own.frozenAtStep, null);
    assert.ok(own.signalShare > 0.9);
    // Differences of 1e-3 a token are beyond 0.999 to 1.001 in many responses, yet not in all.
    const strict = summary.simulations.find(({ algorithm }) => algorithm === 'verl:decoupled_geo_rs')!;
    assert.ok(strict.keptShare < 1);
  });

  it('gives each algorithm the parameters that are asked for, and refuses bad ones', async () => {
    const veto = (vetoBelow: number) =>
      resolveSimulateOptions({ run, algorithms: ['dr-grpo'], algorithmParameters: { vetoBelow } });
    // A token that differs at all is below a ratio of 1 in about half of the cases: nearly every response has one.
    const strict = await veto(0.99999);
    const [vetoed] = (await simulateCorrections(strict, { directory: await open('simulate', strict) }))
      .simulations;
    const loose = await veto(1e-4);
    const [kept] = (await simulateCorrections(loose, { directory: await open('simulate', loose) }))
      .simulations;
    assert.ok(vetoed!.droppedSequences > 0.5 && kept!.droppedSequences === 0);
    await assert.rejects(veto(2), /vetoBelow below 1, got 2/);
  });

  it('goes on with what was interrupted, to the same numbers', async () => {
    const some = await resolveSimulateOptions({
      run,
      algorithms: ['pg-seq-is', 'grpo-seq-mis', 'pg-seq-is'],
    });
    assert.deepEqual(some.algorithms, ['pg-seq-is', 'grpo-seq-mis'], 'each once');
    const whole = await simulateCorrections(some, { directory: await open('simulate', some) });
    const directory = await open('simulate', some);
    const controller = new AbortController();
    const stopped = await simulateCorrections(some, {
      directory,
      signal: controller.signal,
      report: ({ done }) => done === 1 && controller.abort(),
    });
    assert.deepEqual([stopped.interrupted, stopped.recordedSteps], [true, [0, 2]]);
    assert.ok(!existsSync(path.join(directory.path, 'summary.json')));
    assert.deepEqual(await simulateCorrections(some, { directory }), whole);
    const written = readFileSync(path.join(directory.path, 'summary.json'), 'utf8');
    assert.deepEqual(JSON.parse(written), whole);
  });

  it('calls a policy frozen where too little of a signal is left, not where there was none', async () => {
    const directory = await open('simulate', {});
    const step = (at: number, signalShare: number) => ({
      key: `step ${at}`,
      value: [{ step: at, keptShare: 0, ess: 1, weightMax: 1, droppedSequences: 0, signalShare }],
    });
    const frozenAt = async (shares: readonly number[]) => {
      const lines = shares.map((share, i) => JSON.stringify(step(2 * i, share)).replace('null', '"NaN"'));
      writeFileSync(path.join(directory.path, 'points.jsonl'), `${lines.join('\n')}\n`);
      const summary = await simulateCorrections({ run, algorithms: ['pg-seq-is'] }, { directory });
      return summary.simulations[0]!.frozenAtStep;
    };
    assert.equal(await frozenAt([0.9, 0.01, 0]), 2);
    assert.equal(await frozenAt([0.01, Number.NaN, 0.05]), null);
    assert.equal(await frozenAt([0.9, Number.NaN, Number.NaN]), null);
    assert.equal(await frozenAt([Number.NaN, 0.9, 0.02]), 4);
    assert.equal(await frozenAt([Number.NaN, Number.NaN, Number.NaN]), null);
  });

  it('names what it cannot use', async () => {
    const resolve = (of: string, algorithms?: readonly string[]) =>
      resolveSimulateOptions({ run: of, ...(algorithms && { algorithms }) });
    await assert.rejects(resolve(path.join(root, 'missing')), /the folder of a run/);
    const none = await open('sanity', {});
    await assert.rejects(resolve(none.path), /recorded log-probs in .*--record-every/);
    const grid = await open('grid', {});
    await assert.rejects(resolve(grid.path), /a sanity run, got one of "grid"/);
    await assert.rejects(resolve(run, ['gsop']), /each algorithm .*did you mean gspo\?/);
  });
});
