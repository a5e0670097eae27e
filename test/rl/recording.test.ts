import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, it } from 'node:test';
import { RunDirectory, readMetrics } from '../../lib/io/runDirectory.js';
import { mismatchMetrics } from '../../lib/mismatch/metrics.js';
import { readRecording, recordedSteps } from '../../lib/rl/recording.js';
import { runSanity } from '../../lib/sanity/run.js';
import { tinyConfig } from '../sanity/tiny.js';

const root = mkdtempSync(path.join(tmpdir(), 'isopolicy-recording-'));
after(() => rmSync(root, { recursive: true }));

describe('the recording of a run', () => {
  it('has the log-probs that its metrics were made of', async () => {
    const config = tinyConfig({
      steps: 5,
      recordEvery: 2,
      trainingPrecision: 'bf16',
      algorithm: 'dr-grpo',
      learningRate: 1e-3,
    });
    const directory = await RunDirectory.create(path.join(root, 'run'), { command: 'sanity', config });
    await runSanity(config, { directory });
    assert.deepEqual(await recordedSteps(directory.path), [0, 2, 4]);
    const metrics = await readMetrics(directory.path);
    for (const step of [0, 2, 4]) {
      const recorded = await readRecording(directory.path, step);
      const { offsets, rollout, old, current, mask, update, rewards, advantages } = recorded;
      const measured = mismatchMetrics({ offsets, mask, rolloutLogprobs: rollout, logprobs: old });
      assert.equal(measured.klMuPiK3, metrics[step]!['mismatch/klMuPiK3']);
      assert.equal(measured.ess, metrics[step]!['mismatch/ess']);
      assert.equal(rewards.reduce((a, b) => a + b, 0) / rewards.length, metrics[step]!['train/reward']);
      assert.equal(rewards.length, config.promptsPerStep * config.groupSize);
      assert.ok(Math.abs(advantages.reduce((a, b) => a + b, 0)) < 1e-9, 'centred in each group');
      assert.deepEqual([...new Set(update)].sort(), [0, 1]);
      // The first update sees pi_old, the second what the first has made of it.
      for (let s = 0; s < update.length; s++) {
        const same = [...current.subarray(offsets[s]!, offsets[s + 1]!)].every(
          (value, i) => value === old[offsets[s]! + i],
        );
        assert.equal(same, update[s] === 0, `response ${s}`);
      }
    }
  });

  it('may be left out, and a damaged one is named', async () => {
    const config = tinyConfig({ steps: 1, recordEvery: 0 });
    const directory = await RunDirectory.create(path.join(root, 'none'), { command: 'sanity', config });
    await runSanity(config, { directory });
    assert.deepEqual(await recordedSteps(directory.path), []);
    const broken = path.join(root, 'run', 'logprobs', 'step-000002.safetensors');
    writeFileSync(broken, 'torn');
    await assert.rejects(readRecording(path.join(root, 'run'), 2), /step-000002/);
  });
});
