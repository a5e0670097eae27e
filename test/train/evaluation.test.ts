import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Decoder } from '../../lib/models/decoder.js';
import type { Environment } from '../../lib/rl/environment.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { averageAndPass, evaluate } from '../../lib/train/evaluation.js';
import { oddConfig } from '../support/models.js';
import { ownTensors } from '../support/owned.js';

ownTensors();

describe('averageAndPass', () => {
  it('avg@k and pass@k by hand', () => {
    // Three problems, four responses each: 1, 0 and 3 right.
    const rewards = [0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 0, 1];
    assert.deepEqual(averageAndPass(rewards, 4, 'a', 'p'), { a: 4 / 12, p: 2 / 3 });
    assert.deepEqual(averageAndPass(rewards, 1, 'a', 'p'), { a: 4 / 12, p: 4 / 12 });
    assert.deepEqual(averageAndPass(rewards, 12, 'a', 'p'), { a: 4 / 12, p: 1 });
    // Half a point is no right answer.
    assert.deepEqual(averageAndPass([0.5, 0.5, 0, -1], 2, 'a', 'p'), { a: 0, p: 0 });
  });
});

describe('evaluate', () => {
  it('tries every problem k times by the same draws, whatever the batch', async () => {
    using model = new Decoder(oddConfig, { seed: 3 });
    const seen: string[][] = [];
    const environment: Environment = {
      prompts: [Int32Array.of(1, 2), Int32Array.of(3)],
      responseLength: 9,
      stopTokens: [4, 5, 6, 7, 8, 9],
      rewards: (responses) => {
        seen.push(responses.map(({ prompt, tokens }) => `${prompt}:${tokens.join()}`));
        return responses.map(({ prompt }) => prompt);
      },
    };
    const options = { samples: 6, temperature: 1, topP: 1 };
    const results = [];
    for (const maxBatch of [12, 3]) {
      using rollout = new RolloutEngine(model, { precision: 'fp16', maxBatch, maxLength: 32 });
      results.push((await evaluate(rollout, environment, options, 11))!);
    }
    const [first, second] = results.map(({ 'time/eval_s': _, ...numbers }) => numbers);
    assert.deepEqual(first, second);
    assert.deepEqual(seen[0], seen[1]);
    const right = seen[0]!.filter((text) => text.startsWith('1:')).length;
    assert.equal(first!['eval/avg@6'], right / 12);
    assert.equal(first!['eval/pass@6'], right > 0 ? 0.5 : 0);
    assert.equal(first!['eval/truncated_share'], (12 - seen[0]!.length) / 12);
    assert.ok(seen[0]!.length > 2 && right > 0, 'some end');
    using rollout = new RolloutEngine(model, { precision: 'fp16', maxBatch: 12, maxLength: 32 });
    await evaluate(rollout, environment, { ...options, temperature: 0 }, 11);
    assert.ok(new Set(seen[2]).size <= 2, 'greedy responses to a prompt are one');
  });
});
