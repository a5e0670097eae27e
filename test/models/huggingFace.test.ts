/**
 * Checkpoints in Hugging Face's layout, made with their reference values by test/fixtures/models/generate.py, which has a
 * forward and backward pass of its own in PyTorch: what the engines make of the same files.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { publishedTensors } from '../../lib/models/huggingFaceTensors.js';
import { type LoadedModel, loadModel } from '../../lib/models/loadModel.js';
import { type NumericsPreset, numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertClose, assertSameBits, relativeError } from '../support/compare.js';
import { meanLoss, readReference } from '../support/modelReference.js';
import { ownTensors } from '../support/owned.js';

ownTensors();

const fixtures = fileURLToPath(new URL('../../../test/fixtures/models/', import.meta.url));
const names = [
  'llama3',
  'llama-linear',
  'qwen2-tied',
  'qwen3',
  'qwen3-tied',
  'qwen3-moe',
  'qwen3-moe-sparse',
  'mixtral',
] as const;
const mixtures: readonly string[] = ['qwen3-moe', 'qwen3-moe-sparse', 'mixtral'];
const withGradients: readonly string[] = ['llama3', 'qwen3', ...mixtures];
const presets = ['rollout', 'training', 'matched'] as const satisfies readonly NumericsPreset[];
const schedule = { kind: 'constant', learningRate: 0 } as const;

function engines({ model }: LoadedModel, precision: NativeFloatDType, preset: NumericsPreset) {
  const choices = numerics(preset);
  const rollout = new RolloutEngine(model, { precision, numerics: choices, maxBatch: 4 });
  const training = new TrainingEngine(model, { precision, numerics: choices, schedule });
  const dispose = () => {
    rollout.dispose();
    training.dispose();
  };
  return { rollout, training, [Symbol.dispose]: dispose };
}

for (const name of names) {
  describe(`the ${name} checkpoint`, () => {
    it('is scored in fp32 as PyTorch scores it', async () => {
      const { sequence, logprobs, logprobs32, distributions } = await readReference(join(fixtures, name));
      const loaded = await loadModel(join(fixtures, name));
      using _model = loaded.model;
      for (const preset of presets) {
        using both = engines(loaded, 'fp32', preset);
        for (const engine of [both.rollout, both.training]) {
          const label = `${engine.constructor.name}, ${preset}`;
          const scores = await engine.score([sequence]);
          assertClose(scores.logprobs, logprobs, 'fp32', label);
          assertClose(scores.logprobs, logprobs32, 'fp32', `${label}, against fp32`);
          const [all] = await engine.distributions([sequence]);
          assertClose(all!, distributions, 'fp32', `${label}: distributions`);
        }
      }
    });

    // The reference knows neither rounded weights nor rounded activations; a mean log-prob is about 6.
    for (const [precision, limit] of [
      ['fp16', 2e-3],
      ['bf16', 1.5e-2],
    ] as const) {
      it(`is scored in ${precision} within ${limit}`, async () => {
        const { sequence, logprobs, distributions } = await readReference(join(fixtures, name));
        const loaded = await loadModel(join(fixtures, name));
        using _model = loaded.model;
        for (const preset of presets) {
          using both = engines(loaded, precision, preset);
          for (const engine of [both.rollout, both.training]) {
            const label = `${engine.constructor.name}, ${preset}`;
            const { logprobs: found } = await engine.score([sequence]);
            assertClose(found, logprobs, precision, label, limit);
            const [all] = await engine.distributions([sequence]);
            assertClose(all!, distributions, precision, `${label}: distributions`, limit);
            const error = relativeError(found, logprobs);
            assert.ok(error > limit / 100, `${label}: ${error} is too near for ${precision}`);
          }
        }
      });
    }

    for (const precision of ['fp32', 'fp16', 'bf16'] as const) {
      it(`has the same bits in both engines and through the cache in ${precision}`, async () => {
        const { sequence } = await readReference(join(fixtures, name));
        const loaded = await loadModel(join(fixtures, name));
        using _model = loaded.model;
        using both = engines(loaded, precision, 'matched');
        const mu = await both.rollout.score([sequence]);
        const pi = await both.training.score([sequence]);
        assertSameBits(mu.logprobs, pi.logprobs, 'log-probs');
        assertSameBits(mu.entropy, pi.entropy, 'entropies');

        const prompts = [3, 1, 20, 7, 16].map((length) => Array.from(sequence.response).slice(0, length));
        const requests = prompts.map((prompt, promptId) => ({ prompt, promptId, sampleId: 0 }));
        const completions = await both.rollout.generate(requests, {
          seed: 1,
          maxNewTokens: 40,
          stopTokens: [5],
        });
        const sampled = completions.map(({ tokens }, i) => ({ prompt: prompts[i]!, response: tokens }));
        const drawn = Float64Array.from(completions.flatMap(({ logprobs }) => [...logprobs]));
        assertSameBits(drawn, (await both.rollout.score(sampled)).logprobs, 'rollout scores');
        assertSameBits(drawn, (await both.training.score(sampled)).logprobs, 'training scores');
      });
    }

    it('goes to the experts of PyTorch', { skip: !mixtures.includes(name) && 'it is dense' }, async () => {
      const { sequence, routes } = await readReference(join(fixtures, name));
      const loaded = await loadModel(join(fixtures, name));
      using _model = loaded.model;
      for (const preset of presets) {
        using both = engines(loaded, 'fp32', preset);
        const { routing } = await both.training.score([sequence], { recordRoutes: true });
        assert.deepEqual(routing!.routes, [routes], preset);
      }
    });

    const skip = !withGradients.includes(name) && 'its fixture has no gradients';
    it('has the gradients of PyTorch in fp32', { skip }, async () => {
      const { sequence, logprobs, gradients } = await readReference(join(fixtures, name));
      const loaded = await loadModel(join(fixtures, name));
      using _model = loaded.model;
      const tensors = publishedTensors(loaded.model.config);
      assert.deepEqual([...gradients.keys()].sort(), tensors.map((t) => t.name).sort());
      for (const preset of presets) {
        using both = engines(loaded, 'fp32', preset);
        const found = await both.training.gradients([sequence], meanLoss);
        assertClose([found.loss], [meanLoss({ logprobs }).loss], 'fp32', 'loss');
        for (const tensor of tensors) {
          const whole = found.gradients.get(tensor.parameter)!;
          const columns = tensor.shape[1] ?? 1;
          const part = whole.subarray(tensor.row * columns, (tensor.row + tensor.shape[0]!) * columns);
          assertClose(part, gradients.get(tensor.name)!, 'fp32', `${preset}: ${tensor.name}`);
        }
      }
    });
  });
}
