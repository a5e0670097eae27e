/** What the trainer asks of an algorithm and tells of it. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { createAlgorithm } from '../../lib/rl/algorithms.js';
import type { Algorithm, PolicyBatch } from '../../lib/rl/batch.js';
import { taskEnvironment } from '../../lib/rl/environment.js';
import { Trainer } from '../../lib/rl/trainer.js';
import { memory } from '../../lib/runtime.js';
import { GROUP, options, prompts, reinforce, sequenceOf, setup, spy, task } from './trainerSetup.js';

describe('Trainer and algorithm', () => {
  it('an algorithm of ten lines is learned with', async () => {
    using engines = setup({ precision: 'fp16', learningRate: 1e-2 });
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
      ...options,
      groupSize: 8,
      algorithm: reinforce,
    });
    const rewards: number[] = [];
    let settled = 0;
    for (let s = 0; s < 40; s++) {
      const step = await trainer.step(s);
      rewards.push(step.reward);
      assert.ok(step.updates.every(({ loss, metrics }) => Number.isFinite(loss) && metrics.seen === 1));
      if (s === 5) settled = memory().tensors;
      if (s > 5) assert.equal(memory().tensors, settled, 'a step leaves no tensor behind');
    }
    const mean = (part: readonly number[]) => part.reduce((a, b) => a + b) / part.length;
    assert.ok(
      mean(rewards.slice(-5)) > 0.9 && mean(rewards.slice(0, 2)) < 0.6,
      `rewards ${rewards.map((r) => r.toFixed(2)).join(' ')}`,
    );
  });

  it('metrics of an update are of its whole mini-batch, however many micro-batches it took', async () => {
    for (const name of ['pg-seq-tis', 'grpo-token-tis', 'verl:decoupled_geo_rs_seq_tis'] as const) {
      const run = async (microBatchTokens: number) => {
        using engines = setup({ microBatchTokens, learningRate: 3e-2 });
        const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
          ...options,
          algorithm: createAlgorithm(name),
        });
        return (await trainer.step(0)).updates;
      };
      const [first] = await run(4096);
      const [inParts] = await run(25);
      assert.ok(first!.metrics.weightMax! > 1 && first!.metrics.ess! < 1, `${name}: the engines differ`);
      assert.deepEqual(inParts!.metrics, first!.metrics, name);
    }
  });

  it('updateEss is of raw pi(y) / mu(y) at the update, whatever the algorithm', async () => {
    using engines = setup({ learningRate: 3e-2 });
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
      ...options,
      algorithm: reinforce,
    });
    const { logprobs, updates } = await trainer.step(0);
    const { offsets, current, rollout, update } = logprobs;
    updates.forEach(({ metrics }, u) => {
      const weights = [...update].flatMap((own, s) => {
        if (own !== u) return [];
        let log = 0;
        for (let t = offsets[s]!; t < offsets[s + 1]!; t++) log += current[t]! - rollout[t]!;
        return [Math.exp(log)];
      });
      assert.equal(weights.length, (6 * GROUP) / 3);
      const sum = weights.reduce((a, w) => a + w, 0);
      const squares = weights.reduce((a, w) => a + w * w, 0);
      assert.ok(Math.abs(metrics.updateEss! - sum ** 2 / squares / weights.length) < 1e-12);
      assert.equal(metrics.seen, 1, 'beside the algorithm’s own');
    });
    // The policy has moved by the last update.
    assert.ok(updates[2]!.metrics.updateEss! < updates[0]!.metrics.updateEss!);
  });

  it('truncated responses are masked where asked: no advantage of theirs teaches', async () => {
    const masked = async (truncated: 'train' | 'mask') => {
      using engines = setup();
      const { algorithm, batches } = spy();
      const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
        ...options,
        truncated,
        algorithm,
      });
      const step = await trainer.step(0);
      for (const { offsets, mask, advantages, totals } of batches) {
        let left = 0;
        advantages.forEach((advantage, s) => {
          const cut = step.trajectories[sequenceOf(advantage)]!.truncated;
          const expected = truncated === 'mask' && cut ? 0 : 1;
          assert.ok(mask.subarray(offsets[s]!, offsets[s + 1]!).every((m) => m === expected));
          left += expected;
        });
        assert.equal(totals.sequences, left, 'the denominator does not count them');
      }
      assert.ok(step.trajectories.some((trajectory) => trajectory.truncated));
      assert.ok(step.trajectories.every(({ truncated: cut, reward }) => !cut || reward === 0));
    };
    await masked('train');
    await masked('mask');
  });

  it('names what an algorithm of one’s own returns wrongly', async () => {
    using engines = setup();
    const refuses = async (change: object, message: RegExp) => {
      const algorithm = { ...reinforce, name: 'mine', ...change } as Algorithm;
      const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
        ...options,
        algorithm,
      });
      await assert.rejects(trainer.step(0), message);
    };
    const metrics = {};
    await refuses({ advantages: () => [1] }, /\[mine\] expected advantages\(\) to return a Float64Array/);
    await refuses({ advantages: () => new Float64Array(3) }, /to return 24 numbers .*got 3/);
    await refuses(
      { advantages: (r: Float64Array) => r.map(() => Number.NaN) },
      /advantages\(\)\[0\] to be finite, got NaN/,
    );
    await refuses({ loss: () => undefined }, /loss\(\) to return a number as loss, got undefined/);
    await refuses({ loss: () => ({ loss: 0, gradient: [0], metrics }) }, /a Float64Array as gradient/);
    const lossOf = (value: number, named: object) => (batch: PolicyBatch) => ({
      loss: 0,
      gradient: new Float64Array(batch.logprobs.length).fill(value),
      metrics: named,
    });
    await refuses({ loss: lossOf(Number.NaN, {}) }, /a gradient of numbers at token 0, got NaN/);
    await refuses({ loss: lossOf(0, { 'a b': 1 }) }, /metrics without spaces and slashes, got "a b"/);
    await refuses({ loss: lossOf(0, { kind: 'x' }) }, /a number as metric kind, got "x"/);
    await refuses(
      { loss: () => ({ loss: 0, gradient: new Float64Array(1), metrics }) },
      /gradient of \d+ \(one per token\), got 1/,
    );
    await refuses(
      { loss: ({ mask }: PolicyBatch) => ({ loss: 0, gradient: new Float64Array(mask.length) }) },
      /an object as metrics, \{\} if there are none, got undefined/,
    );
  });

  it('an algorithm that throws ends the step, and the next one can be run', async () => {
    using engines = setup({ learningRate: 0 });
    let broken = true;
    const algorithm: Algorithm = {
      ...reinforce,
      loss: (batch) => {
        if (broken) throw new Error('mine');
        return reinforce.loss(batch);
      },
    };
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(6)), {
      ...options,
      algorithm,
    });
    await assert.rejects(trainer.step(0), /^Error: mine$/);
    broken = false;
    assert.equal((await trainer.step(0)).updates.length, 3);
  });
});
