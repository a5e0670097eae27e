/** The trainer on a mixture of experts: which experts its passes use, and what it tells of them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { Routes } from '../../lib/models/routes.js';
import { taskEnvironment } from '../../lib/rl/environment.js';
import { recordOf } from '../../lib/rl/record.js';
import { type RouterReplay, routerReplays, Trainer } from '../../lib/rl/trainer.js';
import { assertSameBits } from '../support/compare.js';
import { options, prompts, reinforce, setup, task } from './trainerSetup.js';

const environment = taskEnvironment(task, prompts(20));

/** A step, and the routes that each call of the training engine was given. */
async function stepOf(routerReplay: RouterReplay | undefined, preset?: 'matched') {
  using engines = setup({ experts: true, ...(preset && { preset }) });
  const { rollout, training } = engines;
  const given: { call: string; replay: readonly Routes[] | undefined }[] = [];
  for (const call of ['score', 'step'] as const) {
    const own = training[call].bind(training) as (...values: unknown[]) => unknown;
    Object.assign(training, {
      [call]: (...values: unknown[]) => {
        given.push({ call, replay: (values.at(-1) as { replay?: Routes[] }).replay });
        return own(...values);
      },
    });
  }
  const trainer = new Trainer(rollout, training, environment, {
    ...options,
    algorithm: reinforce,
    ...(routerReplay && { routerReplay }),
  });
  const step = await trainer.step(0);
  const routes = step.trajectories.map(({ completion }) => completion.routes!);
  const { routing } = await training.score(
    step.trajectories.map(({ prompt, completion }) => ({ prompt, response: completion.tokens })),
    { recordRoutes: true },
  );
  return { step, given: given.slice(0, 4), routes, after: routing! };
}

describe('routerReplay', () => {
  it('none: every pass uses what its own routers choose', async () => {
    for (const replay of ['none', undefined] as const) {
      const { step, given } = await stepOf(replay);
      assert.deepEqual(
        given.map(({ call, replay }) => [call, replay]),
        [
          ['score', undefined],
          ['step', undefined],
          ['step', undefined],
          ['step', undefined],
        ],
      );
      const { flipShare, auxiliaryLoss, maxExpertShare } = step.routing!;
      assert.ok(flipShare > 0 && flipShare < 0.2, `${flipShare}`);
      assert.ok(auxiliaryLoss > 2 && auxiliaryLoss < 6, `${auxiliaryLoss}`);
      assert.ok(maxExpertShare > 1 / 6 && maxExpertShare <= 1 / 2, `${maxExpertShare}`);
    }
  });

  it('training: updates use what the first pass chose', async () => {
    const none = await stepOf('none');
    const { step, given } = await stepOf('training');
    assert.equal(given[0]!.replay, undefined);
    assert.deepEqual(step.routing, none.step.routing);
    const updates = given.slice(1).map(({ replay }) => replay!);
    // Each response is in one update, with its own routes: those of the training engine, some of which are flips.
    const { update } = step.logprobs;
    const dealt = updates.flat();
    assert.equal(dealt.length, update.length);
    const sampled = new Set(none.routes.map(String));
    const own = dealt.filter((routes) => !sampled.has(String(routes))).length;
    assert.ok(own > 0 && own < dealt.length, `${own} of ${dealt.length} are not the rollout's`);
    // Before anything is learned pi is pi_old.
    const first = step.logprobs;
    first.update.forEach((u, s) => {
      if (u !== 0) return;
      const of = (values: Float64Array) => values.subarray(first.offsets[s]!, first.offsets[s + 1]!);
      assertSameBits(of(first.current), of(first.old), `response ${s}`);
    });
  });

  it('rollout: all passes use what the rollout engine used, which ends the flips', async () => {
    const none = await stepOf('none');
    const { step, given, routes } = await stepOf('rollout');
    assert.deepEqual(routes, none.routes, 'what is sampled does not change');
    assert.deepEqual(given[0]!.replay, routes);
    const updates = given.slice(1).flatMap(({ replay }) => replay!);
    assert.deepEqual(updates.map(String).sort(), routes.map(String).sort());
    assert.equal(step.routing!.flipShare, 0);
    const absolute = ({ mismatch }: typeof step) => mismatch.meanAbsLogRatio;
    assert.ok(absolute(step) < absolute(none.step), `${absolute(none.step)} to ${absolute(step)}`);
  });

  it('each kind is the same to the bit in matched numerics, where nothing flips before an update', async () => {
    const runs = [];
    for (const replay of routerReplays) runs.push(await stepOf(replay, 'matched'));
    for (const { step } of runs) {
      assert.equal(step.routing!.flipShare, 0);
      assert.equal(step.mismatch.meanAbsLogRatio, 0);
    }
    const [, training, rollout] = runs;
    assert.deepEqual(rollout!.step.logprobs, training!.step.logprobs);
  });

  it('is told in the record of a step; a dense model has none of it, and nothing to replay', async () => {
    const run = { window: 0, overflows: 0, lossScale: 1, warned: false, totalSeconds: 1 };
    const { step } = await stepOf('none');
    const record = recordOf(step, run);
    assert.equal(record['routing/flip_share'], step.routing!.flipShare);
    assert.equal(record['routing/auxiliary_loss'], step.routing!.auxiliaryLoss);
    assert.equal(record['routing/max_expert_share'], step.routing!.maxExpertShare);
    using engines = setup();
    const trainerOf = (routerReplay: RouterReplay) =>
      new Trainer(engines.rollout, engines.training, environment, {
        ...options,
        algorithm: reinforce,
        routerReplay,
      });
    const dense = await trainerOf('none').step(0);
    assert.equal(dense.routing, null);
    assert.ok(!Object.keys(recordOf(dense, run)).some((name) => name.startsWith('routing/')));
    assert.ok(dense.trajectories.every(({ completion }) => !('routes' in completion)));
    assert.throws(
      () => trainerOf('rollout'),
      /\[Trainer\] expected routerReplay none for a dense model, got "rollout"/,
    );
    assert.throws(() => trainerOf('rolout' as never), /routerReplay to be one of .*did you mean rollout/);
  });
});
