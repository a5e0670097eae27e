/** The trainer on a tiny model and a task of its own, with an algorithm that writes down what it is given. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { mismatchMetrics } from '../../lib/mismatch/metrics.js';
import { createAlgorithm } from '../../lib/rl/algorithms.js';
import { taskEnvironment } from '../../lib/rl/environment.js';
import { Trainer, type TrainerOptions, type TrainerStep } from '../../lib/rl/trainer.js';
import { assertSameBits } from '../support/compare.js';
import { GROUP, options, prompts, reinforce, STOP, sequenceOf, setup, spy, task } from './trainerSetup.js';

/** What a step did, without how long it took. */
function outcomeOf({ seconds, ...rest }: TrainerStep) {
  for (const value of Object.values(seconds)) assert.ok(value > 0);
  return rest;
}

function logprobsOf(step: TrainerStep): Float64Array {
  return Float64Array.from(step.trajectories.flatMap(({ completion }) => [...completion.logprobs]));
}

describe('Trainer', () => {
  it('rewards: what the task says of whole responses, 0 for those cut off; groups share a prompt', async () => {
    using engines = setup();
    const { algorithm, rewards } = spy();
    const set = prompts(20);
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, set), {
      ...options,
      algorithm,
    });
    const step = await trainer.step(0);
    assert.equal(step.step, 0);
    assert.equal(step.trajectories.length, 6 * GROUP);
    let cutButRight = 0;
    step.trajectories.forEach(({ prompt, promptId, completion, reward }, i) => {
      assert.equal(promptId, Math.floor(i / GROUP));
      const { tokens, finishReason, logprobs } = completion;
      const stops = tokens.at(-1) === STOP;
      assert.equal(finishReason, stops ? 'stop' : 'length');
      assert.equal(tokens.length === 9 || stops, true);
      assert.equal(logprobs.length, tokens.length);
      const right = tokens[0]! % 2 === 0 ? 1 : 0;
      assert.equal(reward, stops ? right : 0);
      if (!stops && right === 1) cutButRight++;
      assert.equal(prompt, step.trajectories[i - (i % GROUP)]!.prompt, 'one prompt a group');
      assert.ok(set.includes(prompt));
    });
    assert.ok(cutButRight > 0, 'the case is there');
    assert.ok(step.reward > 0 && step.reward < 1);
    assert.equal(new Set(step.trajectories.map(({ prompt }) => prompt)).size, 6);
    const all = step.trajectories.map(({ reward }) => reward);
    assert.equal(step.reward, all.reduce((a, b) => a + b) / all.length);
    assert.deepEqual([...rewards[0]!], all, 'the algorithm sees the same, groups contiguous');
    // Samples of a group differ.
    const texts = step.trajectories.map(({ completion }) => task.format(completion.tokens));
    assert.ok(new Set(texts).size > 12);
  });

  it('without a stop token every response is judged', async () => {
    using engines = setup();
    const { stopToken: _, ...endless } = task;
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(endless, prompts(6)), {
      ...options,
      algorithm: reinforce,
    });
    const { trajectories } = await trainer.step(0);
    for (const { completion, reward } of trajectories) {
      assert.equal(completion.tokens.length, 9);
      assert.equal(completion.finishReason, 'length');
      assert.equal(reward, completion.tokens[0]! % 2 === 0 ? 1 : 0);
    }
    assert.ok(trajectories.some(({ reward }) => reward === 1));
  });

  it('an epoch has every prompt once, in an order of its own', async () => {
    using engines = setup({ learningRate: 0 });
    const set = prompts(7);
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, set), {
      ...options,
      promptsPerStep: 3,
      updatesPerStep: 1,
      algorithm: reinforce,
    });
    const drawn: number[] = [];
    for (let step = 0; step < 7; step++) {
      const { trajectories } = await trainer.step(step);
      for (let g = 0; g < 3; g++) drawn.push(set.indexOf(trajectories[g * GROUP]!.prompt));
    }
    const orders = [0, 7, 14].map((at) => drawn.slice(at, at + 7));
    for (const order of orders) assert.deepEqual(order.toSorted(), [0, 1, 2, 3, 4, 5, 6]);
    assert.equal(new Set(orders.map(String)).size, 3);
    assert.ok(orders.some((order) => String(order) !== String(order.toSorted())));
    // A step asked for out of turn has the prompts that it would have had.
    const { trajectories } = await trainer.step(2);
    assert.deepEqual(
      [0, 1, 2].map((g) => set.indexOf(trajectories[g * GROUP]!.prompt)),
      drawn.slice(6, 9),
    );
  });

  it('a step with more prompts than the set draws a prompt again, with samples of its own', async () => {
    using engines = setup({ learningRate: 0 });
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(1)), {
      ...options,
      algorithm: reinforce,
    });
    const { trajectories } = await trainer.step(0);
    const groups = Array.from({ length: 6 }, (_, g) =>
      trajectories
        .slice(g * GROUP, (g + 1) * GROUP)
        .map(({ completion }) => String(completion.tokens))
        .join('|'),
    );
    assert.equal(new Set(groups).size, 6);
  });

  it('mini-batches partition the responses, whatever the micro-batches', async () => {
    for (const [microBatchTokens, updatesPerStep] of [
      [4096, 3],
      [25, 5],
      [1, 24],
    ] as const) {
      using engines = setup({ microBatchTokens, learningRate: 0 });
      const { algorithm, batches } = spy();
      const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
        ...options,
        updatesPerStep,
        algorithm,
      });
      const { trajectories, updates } = await trainer.step(4);
      assert.equal(updates.length, updatesPerStep);
      const old = await engines.training.score(
        trajectories.map(({ prompt, completion }) => ({ prompt, response: completion.tokens })),
      );

      const dealt: number[] = [];
      let sequences = 0;
      let tokens = 0;
      const sizes: number[] = [];
      for (const batch of batches) {
        const { offsets, totals, mask } = batch;
        assert.ok(mask.every((m) => m === 1));
        for (let s = 0; s + 1 < offsets.length; s++) {
          const [from, to] = [offsets[s]!, offsets[s + 1]!];
          const i = sequenceOf(batch.advantages[s]!);
          const { completion, reward } = trajectories[i]!;
          dealt.push(i);
          assert.equal(batch.advantages[s], reward - 0.5 + i / 1024, 'its advantage');
          assertSameBits(
            batch.rolloutLogprobs.subarray(from, to),
            completion.logprobs,
            'its rollout log-probs',
          );
          const own = old.logprobs.subarray(old.offsets[i!], old.offsets[i + 1]);
          assertSameBits(batch.oldLogprobs!.subarray(from, to), own, 'its old log-probs');
          // Nothing has been learned at this rate, so the log-probs now are the old ones.
          assertSameBits(batch.logprobs.subarray(from, to), own, 'its log-probs');
          sequences++;
        }
        tokens += offsets.at(-1)!;
        assert.ok(sequences <= totals.sequences && tokens <= totals.tokens);
        if (sequences === totals.sequences) {
          assert.equal(tokens, totals.tokens, 'totals are those of the mini-batch');
          sizes.push(sequences);
          [sequences, tokens] = [0, 0];
        }
      }
      assert.equal(sizes.length, updatesPerStep);
      assert.ok(
        sizes.every((size) => Math.abs(size - 24 / updatesPerStep) < 1),
        `sizes ${sizes}`,
      );
      const everyOne = Array.from(trajectories, (_, i) => i);
      assert.deepEqual(
        dealt.toSorted((a, b) => a - b),
        everyOne,
      );
      assert.notDeepEqual(dealt, everyOne, 'shuffled');
      for (const { metrics } of updates) assert.ok(Math.abs(metrics.seen! - 1) < 1e-12);
    }
  });

  it('each step deals its responses in an order of its own', async () => {
    using engines = setup({ learningRate: 0 });
    const { algorithm, batches } = spy();
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
      ...options,
      algorithm,
    });
    const orders: string[] = [];
    for (const number of [0, 1, 2, 0]) {
      batches.length = 0;
      await trainer.step(number);
      const dealt = batches.flatMap(({ advantages }) => Array.from(advantages, sequenceOf));
      assert.equal(new Set(dealt).size, 24);
      orders.push(String(dealt));
    }
    assert.equal(new Set(orders).size, 3);
    assert.equal(orders[3], orders[0]);
  });

  it('mismatch and entropy are of the two engines before the updates', async () => {
    using engines = setup({ learningRate: 0 });
    const { rollout, training } = engines;
    const trainer = new Trainer(rollout, training, taskEnvironment(task, prompts(8)), {
      ...options,
      algorithm: reinforce,
    });
    const step = await trainer.step(0);
    const sequences = step.trajectories.map(({ prompt, completion }) => ({
      prompt,
      response: completion.tokens,
    }));
    const pi = await training.score(sequences);
    const mu = logprobsOf(step);
    assert.deepEqual(
      step.mismatch,
      mismatchMetrics({
        offsets: pi.offsets,
        rolloutLogprobs: mu,
        logprobs: pi.logprobs,
        mask: new Uint8Array(mu.length).fill(1),
      }),
    );
    const n = mu.length;
    const mean = (f: (d: number) => number) => mu.reduce((sum, x, t) => sum + f(x - pi.logprobs[t]!), 0) / n;
    const near = (name: 'klMuPiK1' | 'klMuPiK2' | 'klMuPiK3' | 'meanAbsLogRatio', expected: number) =>
      assert.ok(
        Math.abs(step.mismatch[name] - expected) < 1e-12,
        `${name}: ${step.mismatch[name]}, ${expected}`,
      );
    near(
      'klMuPiK1',
      mean((d) => d),
    );
    near(
      'klMuPiK2',
      mean((d) => d ** 2 / 2),
    );
    near(
      'klMuPiK3',
      mean((d) => Math.exp(-d) - 1 + d),
    );
    near('meanAbsLogRatio', mean(Math.abs));
    assert.ok(step.mismatch.meanAbsLogRatio > 1e-5, 'the engines differ');
    assert.equal(step.mismatch.tokens, n);
    assert.equal(step.mismatch.sequences, 24);
    assert.ok(Math.abs(step.entropy - pi.entropy.reduce((a, b) => a + b) / n) < 1e-12);

    // With learning they are still of the weights that sampled.
    using learning = setup({ learningRate: 1e-2 });
    const other = new Trainer(learning.rollout, learning.training, taskEnvironment(task, prompts(8)), {
      ...options,
      algorithm: reinforce,
    });
    const again = await other.step(0);
    assert.deepEqual(again.mismatch, step.mismatch);
    assert.equal(again.entropy, step.entropy);
  });

  for (const precision of ['fp16', 'bf16', 'fp32'] as const) {
    it(`matched in ${precision}: no mismatch, and the first update's weights are exactly 1`, async () => {
      using engines = setup({ precision, preset: 'matched', learningRate: 1e-2 });
      const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(8)), {
        ...options,
        algorithm: createAlgorithm('pg-seq-is', { constantLength: 9 }),
      });
      for (let s = 0; s < 3; s++) {
        const { mismatch, updates } = await trainer.step(s);
        for (const name of [
          'klMuPiK1',
          'klMuPiK2',
          'klMuPiK3',
          'maxProbDiff',
          'maxAbsLogRatio',
          'differingShare',
        ] as const) {
          assert.ok(Object.is(mismatch[name], 0), `step ${s}: ${name} is ${mismatch[name]}`);
        }
        assert.equal(mismatch.ess, 1);
        const [first, second] = updates;
        assert.equal(first!.metrics.weightMean, 1);
        assert.equal(first!.metrics.weightMax, 1);
        assert.equal(first!.metrics.ess, 1);
        assert.equal(first!.metrics.seqLogRatioMean, 0);
        assert.equal(first!.skipped, false);
        assert.notEqual(second!.metrics.weightMean, 1, 'weights have moved by the second update');
      }
    });
  }

  it('a step is a pure function of the state and its number', async () => {
    using a = setup({ precision: 'fp16' });
    using b = setup({ precision: 'fp16' });
    const set = prompts(10);
    const make = (engines: typeof a, seed = options.seed) =>
      new Trainer(engines.rollout, engines.training, taskEnvironment(task, set), {
        ...options,
        seed,
        algorithm: createAlgorithm('dr-grpo', { constantLength: 9 }),
      });
    const trainer = make(a);
    for (let s = 0; s < 4; s++) {
      // A new trainer for every step, as after a restart, gives the same.
      const [one, other] = [outcomeOf(await trainer.step(s)), outcomeOf(await make(b).step(s))];
      assert.deepEqual(one, other);
    }
    for (let i = 0; i < a.model.parameters.length; i++) {
      const { name, master } = a.model.parameters[i]!;
      assertSameBits(await master.floats(), await b.model.parameters[i]!.master.floats(), name);
    }

    using c = setup({ precision: 'fp16' });
    using d = setup({ precision: 'fp16' });
    const [first, second] = [await make(c).step(0), await make(d, 10).step(0)];
    assert.notDeepEqual(logprobsOf(first), logprobsOf(second), 'another seed draws otherwise');
    const order = ({ trajectories }: TrainerStep) => trajectories.map(({ prompt }) => set.indexOf(prompt));
    assert.notDeepEqual(order(first), order(second), 'and takes other prompts');
  });

  it('steps of one state but another number draw anew', async () => {
    using engines = setup({ learningRate: 0 });
    const trainer = new Trainer(engines.rollout, engines.training, taskEnvironment(task, prompts(6)), {
      ...options,
      algorithm: reinforce,
    });
    const [zero, one, again] = [await trainer.step(0), await trainer.step(1), await trainer.step(0)];
    assert.notDeepEqual(logprobsOf(zero), logprobsOf(one));
    assertSameBits(logprobsOf(zero), logprobsOf(again), 'step 0 again');
  });

  it('names what is wrong', async () => {
    using engines = setup();
    const make =
      (change: object, set: readonly Int32Array[] = prompts(3)) =>
      () =>
        new Trainer(engines.rollout, engines.training, taskEnvironment(task, set), {
          ...options,
          algorithm: reinforce,
          ...change,
        } as TrainerOptions);
    assert.throws(make({}, []), /\[Trainer\] expected at least one prompt, got "none"/);
    for (const name of ['promptsPerStep', 'groupSize', 'updatesPerStep']) {
      for (const value of [0, -1, 1.5, undefined]) {
        const message = new RegExp(`\\[Trainer\\] expected ${name} to be an integer of at least 1`);
        assert.throws(make({ [name]: value }), message);
      }
    }
    assert.throws(make({ updatesPerStep: 25 }), /\[Trainer\] expected updatesPerStep .* at most 24, got 25/);
    assert.throws(make({ seed: -1 }), /\[Trainer\] expected seed/);
    assert.throws(make({ seed: 0.5 }), /\[Trainer\] expected seed/);
    const long = make({}, [new Int32Array(4)])();
    await assert.rejects(
      long.step(0),
      /\[generate\] expected requests\[0\]\.prompt and maxNewTokens = 9 within/,
    );
    const foreign = make({}, [Int32Array.of(0, 11, 0)])();
    await assert.rejects(foreign.step(0), /\[generate\] expected requests\[0\]\.prompt\[1\] .* got 11/);
  });
});
