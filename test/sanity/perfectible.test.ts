import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import { buildPerfectibleSet } from '../../lib/sanity/perfectible.js';
import { SET_PROBLEMS, teach } from '../../lib/sanity/supervised.js';
import type { Task } from '../../lib/tasks/task.js';
import { tinyModel, tinyTask } from './tiny.js';

/** Problem i is solved by its first i samples and no others. */
function countingTask(): Task {
  const calls = new Map<number, number>();
  // Without an end every response is whole, and judged.
  const { stopToken: _, ...endless } = tinyTask;
  return {
    ...endless,
    name: 'counting',
    vocabSize: tinyTask.vocabSize,
    symbols: tinyTask.symbols,
    promptLength: 4,
    responseLength: 1,
    // The number in base 4.
    problem: (_seed, index) => {
      const i = index - SET_PROBLEMS;
      return Int32Array.of(i & 3, (i >> 2) & 3, (i >> 4) & 3, 0);
    },
    solution: (prompt) => prompt,
    verify: (prompt) => {
      const i = prompt[0]! + 4 * prompt[1]! + 16 * prompt[2]!;
      const call = calls.get(i) ?? 0;
      calls.set(i, call + 1);
      return call < i ? 1 : 0;
    },
    format: () => '',
  };
}

describe('buildPerfectibleSet', () => {
  for (const [samples, least, most] of [
    [5, 1, 4],
    [10, 2, 8],
    [7, 2, 5],
    [40, 8, 32],
  ] as const) {
    it(`keeps problems solved ${least} to ${most} times of ${samples}`, async () => {
      using model = tinyModel();
      const candidates = samples + 1;
      const set = await buildPerfectibleSet(model, countingTask(), { seed: 1, candidates, samples });
      const kept = Array.from({ length: most - least + 1 }, (_, i) => SET_PROBLEMS + least + i);
      assert.deepEqual(set.indices, kept);
      assert.equal(set.tried, candidates);
      // 0 + 1 + ... + samples of (samples + 1) samples.
      assert.equal(set.accuracy, 0.5);
    });
  }

  it('keeps what lies between other bounds', async () => {
    using model = tinyModel();
    await teach(model, tinyTask, { seed: 5, accuracy: 0.4 });
    const build = (bounds: object) =>
      buildPerfectibleSet(model, tinyTask, { seed: 5, candidates: 30, samples: 4, ...bounds });
    const all = await build({ solvedAtLeast: 0, solvedAtMost: 1 });
    assert.equal(all.indices.length, 30);
    const never = await build({ solvedAtLeast: 0, solvedAtMost: 0 });
    const ever = await build({ solvedAtLeast: 0.05, solvedAtMost: 1 });
    assert.ok(never.indices.length > 0 && ever.indices.length > 0);
    assert.deepEqual(
      [...never.indices, ...ever.indices].sort((a, b) => a - b),
      all.indices,
    );
  });

  it('keeps exactly the problems that a recount finds between 20 % and 80 %', async () => {
    using model = tinyModel();
    await teach(model, tinyTask, { seed: 5, accuracy: 0.4 });
    const [candidates, samples] = [63, 10];
    const told: unknown[] = [];
    const set = await buildPerfectibleSet(model, tinyTask, {
      seed: 5,
      candidates,
      samples,
      report: (progress) => told.push(progress),
    });

    using rollout = new RolloutEngine(model, { precision: 'fp32', maxBatch: 17 });
    const requests = Array.from({ length: candidates * samples }, (_, i) => ({
      prompt: tinyTask.problem(5, SET_PROBLEMS + Math.floor(i / samples)),
      promptId: Math.floor(i / samples),
      sampleId: i % samples,
    }));
    const completions = await rollout.generate(requests, {
      seed: 5,
      maxNewTokens: tinyTask.responseLength,
      stopTokens: [tinyTask.stopToken!],
    });
    const right = new Array<number>(candidates).fill(0);
    completions.forEach(({ tokens }, i) => {
      const expected = tinyTask.solution(requests[i]!.prompt, undefined as never);
      if (String(tokens) === String(expected)) right[Math.floor(i / samples)]!++;
    });
    assert.deepEqual(
      set.indices,
      right.flatMap((n, i) => (n >= 2 && n <= 8 ? [SET_PROBLEMS + i] : [])),
    );
    assert.ok(right.some((n) => n < 2) && right.some((n) => n > 8), 'both kinds are left out');
    assert.equal(set.accuracy, right.reduce((a, b) => a + b) / (candidates * samples));
    assert.equal(set.tried, candidates);
    const keptOfFirst = set.indices.filter((index) => index < SET_PROBLEMS + 50).length;
    assert.deepEqual(told, [
      { tried: 50, kept: keptOfFirst },
      { tried: 63, kept: set.indices.length },
    ]);
  });

  it('ends after the problems in hand when aborted, and tries none where that came before', async () => {
    using model = tinyModel();
    const { tensors } = memory();
    const controller = new AbortController();
    const options = { seed: 5, candidates: 500, samples: 4 };
    const set = await buildPerfectibleSet(model, tinyTask, {
      ...options,
      signal: controller.signal,
      report: () => controller.abort(),
    });
    assert.equal(set.tried, 50);
    const none = await buildPerfectibleSet(model, tinyTask, { ...options, signal: AbortSignal.abort() });
    assert.deepEqual(none, { indices: [], tried: 0, accuracy: 0 });
    assert.equal(memory().tensors, tensors);
  });
});
