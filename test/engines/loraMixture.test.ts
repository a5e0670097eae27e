/** Adapters of mixtures of experts: of the attention alone. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { addLora, mergeLora } from '../../lib/models/lora.js';
import { numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertSameBits } from '../support/compare.js';
import { oddLora, randomizeB } from '../support/lora.js';
import { meanLoss } from '../support/modelReference.js';
import { oddModel, randomTokens } from '../support/models.js';
import { ownTensors } from '../support/owned.js';

ownTensors();

const schedule = { kind: 'constant', learningRate: 1e-2 } as const;
const mixture = { numExperts: 5, numExpertsPerToken: 2, moeIntermediateSize: 28 } as const;
const sequences = [
  { prompt: randomTokens(9, 37, 1), response: randomTokens(30, 37, 2) },
  { prompt: randomTokens(1, 37, 3), response: randomTokens(44, 37, 4) },
];

describe('an adapter of a mixture of experts', () => {
  it('is of the attention unless more is asked for, which is refused', () => {
    for (const denseLayers of [[], [0]]) {
      using model = oddModel({ ...mixture, denseLayers });
      for (const target of ['gate_proj', 'up_proj', 'down_proj'] as const) {
        assert.throws(
          () => addLora(model, { ...oddLora, targets: ['q_proj', target] }, { seed: 1 }),
          new RegExp(
            `^InvalidArgumentError: \\[addLora\\] expected targets among q_proj, k_proj, v_proj, o_proj \\(experts .*got "${target}"$`,
          ),
        );
      }
      const { config, branches } = addLora(model, oddLora, { seed: 1 });
      assert.deepEqual(config.targets, ['q_proj', 'k_proj', 'v_proj', 'o_proj']);
      assert.equal(branches.length, 8);
    }
  });

  for (const precision of floatDtypes) {
    it(`has the same bits in both engines in ${precision}, learns alone, and is merged`, async () => {
      using model = oddModel({ ...mixture, denseLayers: [1] });
      const adapter = addLora(model, oddLora, { seed: 1 });
      randomizeB(model, 5);
      const options = { precision, numerics: numerics('matched') } as const;
      using rollout = new RolloutEngine(model, { ...options, maxBatch: 2, lora: 'factored' });
      using training = new TrainingEngine(model, { ...options, schedule });
      const base = await Promise.all(model.parameters.map(({ master }) => master.floats()));
      const before = memory().tensors;
      for (let i = 0; i < 3; i++) {
        const mu = await rollout.score(sequences);
        assertSameBits(mu.logprobs, (await training.score(sequences)).logprobs, `step ${i}`);
        await training.step(sequences, meanLoss);
        rollout.syncWeights();
        assert.equal(memory().tensors - before, 3 * adapter.parameters.length, 'gradients and moments');
      }
      for (const [i, { name, master }] of model.parameters.entries()) {
        assertSameBits(await master.floats(), base[i]!, name);
      }
      using merged = new RolloutEngine(model, { ...options, maxBatch: 2 });
      const expected = await merged.score(sequences);
      mergeLora(model);
      using plain = new RolloutEngine(model, { ...options, maxBatch: 2 });
      assertSameBits((await plain.score(sequences)).logprobs, expected.logprobs, 'merged');
    });
  }
});
