/** What a data set with a verifier of one's own is to the trainer: an environment. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  type Environment,
  type JudgedResponse,
  sampleJudged,
  taskEnvironment,
} from '../../lib/rl/environment.js';
import { Trainer } from '../../lib/rl/trainer.js';
import { options, prompts, reinforce, STOP, setup, task } from './trainerSetup.js';

const draws = Array.from({ length: 24 }, (_, i) => ({ prompt: i % 5, promptId: i, sampleId: i % 2 }));

/** Rewards of a half for an odd first token, told later and after what was asked is written down. */
function slow(asked: JudgedResponse[]): Environment {
  return {
    prompts: prompts(5),
    responseLength: task.responseLength,
    stopTokens: [STOP, 3],
    rewards: async (responses) => {
      asked.push(...responses);
      await new Promise((resolve) => setTimeout(resolve, 5));
      return responses.map(({ tokens }) => (tokens[0]! % 2) / 2);
    },
  };
}

describe('sampleJudged', () => {
  it('asks about whole responses alone, each with its prompt, and waits for the answer', async () => {
    using engines = setup();
    const asked: JudgedResponse[] = [];
    const { completions, rewards, truncated } = await sampleJudged(engines.rollout, slow(asked), draws, 4);
    assert.ok(truncated.includes(1) && truncated.includes(0), 'both cases are there');
    const whole = completions.flatMap(({ tokens }, i) => (truncated[i] === 1 ? [] : [{ i, tokens }]));
    assert.deepEqual(
      asked.map(({ prompt, tokens }) => ({ prompt, tokens })),
      whole.map(({ i, tokens }) => ({ prompt: draws[i]!.prompt, tokens })),
    );
    completions.forEach(({ tokens, finishReason }, i) => {
      const last = tokens.at(-1)!;
      assert.equal(truncated[i] === 1, last !== STOP && last !== 3);
      assert.equal(finishReason, truncated[i] === 1 ? 'length' : 'stop');
      assert.equal(rewards[i], truncated[i] === 1 ? 0 : (tokens[0]! % 2) / 2);
    });
  });

  it('samples what the engine does with the same names', async () => {
    using engines = setup();
    const environment = taskEnvironment(task, prompts(5));
    const { completions } = await sampleJudged(engines.rollout, environment, draws, 4);
    const direct = await engines.rollout.generate(
      draws.map(({ prompt, ...names }) => ({ prompt: environment.prompts[prompt]!, ...names })),
      { seed: 4, maxNewTokens: 9, stopTokens: [STOP] },
    );
    assert.deepEqual(completions, direct);
  });

  it('names rewards that are no numbers, or too few', async () => {
    using engines = setup();
    const judged = (rewards: Environment['rewards']) =>
      sampleJudged(
        engines.rollout,
        { ...taskEnvironment(task, prompts(5)), stopTokens: [], rewards },
        draws,
        4,
      );
    await assert.rejects(
      judged(() => [1]),
      /^InvalidArgumentError: \[environment\] expected rewards\(\) to return 24 numbers \(one per response\), got 1$/,
    );
    for (const bad of [Number.NaN, Infinity, undefined, null, '1']) {
      await assert.rejects(
        judged((responses) => responses.map((_, i) => (i === 7 ? bad : 1)) as number[]),
        /rewards\(\) to return finite numbers/,
      );
    }
    await assert.rejects(
      judged(() => Promise.reject(new Error('the verifier is away'))),
      /the verifier is away/,
    );
  });
});

describe('Trainer in an environment of prompts of several lengths', () => {
  it('trains on fractional rewards that come later', async () => {
    using engines = setup();
    const asked: JudgedResponse[] = [];
    const environment = { ...slow(asked), prompts: [Int32Array.of(1), Int32Array.of(2, 4, 6)] };
    const trainer = new Trainer(engines.rollout, engines.training, environment, {
      ...options,
      algorithm: reinforce,
    });
    const { trajectories, updates } = await trainer.step(0);
    assert.equal(new Set(trajectories.map(({ prompt }) => prompt.length)).size, 2);
    assert.deepEqual(new Set(trajectories.map(({ reward }) => reward)), new Set([0, 0.5]));
    assert.ok(updates.every(({ gradNorm }) => gradNorm > 0));
  });
});
