import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Decoder } from '../../lib/models/decoder.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { info, memory, setThreads } from '../../lib/runtime.js';
import { EVALUATION_PROBLEMS, SET_PROBLEMS, type TeachProgress, teach } from '../../lib/sanity/supervised.js';
import { assertSameBits } from '../support/compare.js';
import { tinyModel, tinyTask } from './tiny.js';

async function assertSameWeights(a: Decoder, b: Decoder): Promise<void> {
  for (let i = 0; i < a.parameters.length; i++) {
    const { name, master } = a.parameters[i]!;
    assertSameBits(await master.floats(), await b.parameters[i]!.master.floats(), name);
  }
}

describe('teach', () => {
  it('stops at the first evaluation that reaches the target, and tells each', async () => {
    using model = tinyModel();
    const told: TeachProgress[] = [];
    const last = await teach(model, tinyTask, { seed: 5, accuracy: 0.15, report: (p) => told.push(p) });
    assert.deepEqual(last, told.at(-1));
    assert.ok(last.accuracy >= 0.15);
    assert.ok(told.length > 2);
    told.forEach(({ step, loss, accuracy }, i) => {
      assert.equal(step, 10 * (i + 1));
      assert.ok(Number.isFinite(loss) && loss > 0);
      assert.equal(accuracy * 256, Math.round(accuracy * 256), 'of 256 problems');
      if (i + 1 < told.length) assert.ok(accuracy < 0.15, `${accuracy} at step ${step}`);
    });
    assert.ok(told[0]!.loss > last.loss, 'the loss falls');

    // The same problems sampled with an engine of the test's own.
    using rollout = new RolloutEngine(model, { precision: 'fp32' });
    const requests = Array.from({ length: 256 }, (_, i) => ({
      prompt: tinyTask.problem(5, EVALUATION_PROBLEMS + i),
      promptId: i,
      sampleId: 0,
    }));
    const completions = await rollout.generate(requests, {
      seed: 5,
      maxNewTokens: tinyTask.responseLength,
      stopTokens: [tinyTask.stopToken!],
    });
    const right = completions.filter(({ tokens }, i) => tinyTask.verify(requests[i]!.prompt, tokens) === 1);
    assert.equal(last.accuracy, right.length / 256);
  });

  it('is a pure function of the seed, on any number of threads', async () => {
    const { threads } = info();
    const run = async (seed: number, count: number) => {
      setThreads(count);
      const model = tinyModel();
      return { model, last: await teach(model, tinyTask, { seed, accuracy: 1, maxSteps: 20 }) };
    };
    try {
      const [a, b, c] = [await run(5, 1), await run(5, 2), await run(6, 2)];
      assert.deepEqual(a.last, b.last);
      await assertSameWeights(a.model, b.model);
      await assert.rejects(assertSameWeights(a.model, c.model), 'another seed teaches other problems');
      for (const { model } of [a, b, c]) model[Symbol.dispose]();
    } finally {
      setThreads(threads);
    }
  });

  it('takes at most the steps it is given', async () => {
    using model = tinyModel();
    const last = await teach(model, tinyTask, { seed: 5, accuracy: 1, maxSteps: 25 });
    assert.equal(last.step, 20, 'the last evaluation');
    using other = tinyModel();
    assert.equal((await teach(other, tinyTask, { seed: 5, accuracy: 0 })).step, 10);
  });

  it('ends soon after an abort, and at once where it came before', async () => {
    using model = tinyModel();
    using untouched = tinyModel();
    const controller = new AbortController();
    const last = await teach(model, tinyTask, {
      seed: 5,
      accuracy: 1,
      signal: controller.signal,
      report: ({ step }) => {
        if (step === 20) controller.abort();
      },
    });
    assert.equal(last.step, 20);
    using same = tinyModel();
    await teach(same, tinyTask, { seed: 5, accuracy: 1, maxSteps: 20 });
    await assertSameWeights(model, same);

    using still = tinyModel();
    const { step, accuracy } = await teach(still, tinyTask, {
      seed: 5,
      accuracy: 1,
      signal: AbortSignal.abort(),
    });
    assert.deepEqual({ step, accuracy }, { step: 0, accuracy: 0 });
    await assertSameWeights(still, untouched);
  });

  it('leaves only the parameters’ gradients behind', async () => {
    using model = tinyModel();
    const { tensors } = memory();
    await teach(model, tinyTask, { seed: 5, accuracy: 1, maxSteps: 10 });
    assert.equal(memory().tensors, tensors + model.parameters.length);
  });

  it('the problems of teaching, evaluation and the set are apart', () => {
    // 4000 steps of 64 problems, far below; and integers that a double holds.
    assert.ok(4000 * 64 < EVALUATION_PROBLEMS && EVALUATION_PROBLEMS + 256 < SET_PROBLEMS);
    assert.ok(Number.isSafeInteger(SET_PROBLEMS + 1e6));
  });
});
