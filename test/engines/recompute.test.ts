/** Activation recomputation in the training engine: less memory, the same bits. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { DecoderConfig } from '../../lib/models/config.js';
import type { Decoder } from '../../lib/models/decoder.js';
import { addLora } from '../../lib/models/lora.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { numerics } from '../../lib/numerics.js';
import { memory } from '../../lib/runtime.js';
import { floatDtypes } from '../../lib/tensor/dtype.js';
import { copy, type Tensor } from '../../lib/tensor/tensor.js';
import { type Recompute, TrainingEngine, type TrainingOptions } from '../../lib/training/engine.js';
import { assertSameBits, normals } from '../support/compare.js';
import { onDevice } from '../support/dtypes.js';
import { oddModel, randomTokens } from '../support/models.js';
import { ownTensors } from '../support/owned.js';

const own = ownTensors();

const lengths = [
  [1, 15],
  [17, 47],
  [40, 57],
] as const;
const batch: TokenSequence[] = lengths.map(([prompt, response], i) => ({
  prompt: randomTokens(prompt, 37, 100 + i),
  response: randomTokens(response, 37, 200 + i),
}));

const lossOf = ({ logprobs }: { logprobs: Float64Array }, begin: number) => ({
  loss: logprobs.reduce((sum, lp, t) => sum + lp * Math.sin(begin + t), 0),
  gradient: logprobs.map((_, t) => Math.sin(begin + t)),
  metrics: {},
});

const options = (recompute: Recompute, more: Partial<TrainingOptions>): TrainingOptions => ({
  precision: 'fp32',
  schedule: { kind: 'constant', learningRate: 1e-2 },
  lossScaler: 'static:8',
  ...more,
  recompute,
});

const features: Record<string, Partial<DecoderConfig>> = {
  'biases, own head': { attentionOutBias: true, mlpBias: true },
  'norms of heads, tied head, one layer': { qkNorm: true, tieWordEmbeddings: true, numLayers: 1 },
  'norms of heads, tied head, five layers': { qkNorm: true, tieWordEmbeddings: true, numLayers: 5 },
  'mixtures of experts': {
    numExperts: 7,
    numExpertsPerToken: 3,
    moeIntermediateSize: 20,
    denseLayers: [1],
    numLayers: 3,
  },
};

const ADAPTER = 'an adapter';

/** A model with an adapter that does something: B is not zero. */
function adaptedModel(): Decoder {
  const model = oddModel();
  const { branches } = addLora(model, { rank: 3, alpha: 5 }, { seed: 2 });
  for (const [i, { b }] of branches.entries()) b.master.upload(normals(b.size, i, 0.1));
  return model;
}

describe('recompute: layers', () => {
  for (const precision of onDevice(...floatDtypes, 'e8m4')) {
    for (const preset of ['rollout', 'training', 'matched'] as const) {
      it(`gives the gradients and steps of recompute: none, to the bit, in ${precision} with ${preset} numerics`, async () => {
        for (const [name, config] of [...Object.entries(features), [ADAPTER, {}] as const]) {
          using kept = name === ADAPTER ? adaptedModel() : oddModel(config);
          using again = name === ADAPTER ? adaptedModel() : oddModel(config);
          const layerNumerics = new Map([[0, numerics('rollout', { gemmSplitK: 32 })]]);
          const more = { precision, numerics: numerics(preset), layerNumerics, microBatchTokens: 100 };
          using plain = new TrainingEngine(kept, options('none', more));
          using recomputing = new TrainingEngine(again, options('layers', more));
          const expected = await plain.gradients(batch, lossOf);
          const found = await recomputing.gradients(batch, lossOf);
          for (const [parameter, gradient] of expected.gradients) {
            assert.ok(gradient.some((g) => g !== 0));
            assertSameBits(found.gradients.get(parameter)!, gradient, `${name}: ${parameter}`);
          }
          assert.deepEqual(await recomputing.step(batch, lossOf), await plain.step(batch, lossOf));
          for (const [i, { master }] of kept.trainable.entries())
            assertSameBits(await again.trainable[i]!.master.floats(), await master.floats(), name);
          const scores = [await plain.score(batch), await recomputing.score(batch)];
          assertSameBits(scores[1]!.logprobs, scores[0]!.logprobs, `${name}: scores`);
        }
      });
    }
  }

  it('routes as the first time, records routes once and replays given ones', async () => {
    const config = features['mixtures of experts']!;
    const perToken = 2 * 3;
    const replay = batch.map(({ prompt, response }, s) =>
      Uint16Array.from({ length: perToken * (prompt.length + response.length - 1) }, (_, i) => (i + s) % 7),
    );
    const results = new Map<Recompute, { masters: Float32Array[]; steps: unknown[] }>();
    for (const recompute of ['none', 'layers'] as const) {
      using model = oddModel(config);
      using engine = new TrainingEngine(model, options(recompute, { precision: 'bf16' }));
      const steps = [
        await engine.step(batch, lossOf, { recordRoutes: true }),
        await engine.step(batch, lossOf, { recordRoutes: true, replay }),
      ];
      assert.deepEqual(steps[1]!.routing!.routes, replay);
      assert.notDeepEqual(steps[0]!.routing!.routes, replay);
      const masters: Float32Array[] = [];
      for (const { master } of model.parameters) masters.push(await master.floats());
      results.set(recompute, { masters, steps });
    }
    assert.deepEqual(results.get('layers'), results.get('none'));
  });

  it('shows each activation and each gradient once, in the same order and with the same bits', async () => {
    using model = oddModel({ qkNorm: true });
    const watched = async (recompute: Recompute) => {
      using engine = new TrainingEngine(model, options(recompute, { precision: 'fp16' }));
      const seen: (readonly [string, Tensor])[] = [];
      const look = (kind: string) => (point: string, layer: number, t: Tensor) => {
        seen.push([`${kind} ${point} ${layer}`, own(copy(t))]);
      };
      await engine.gradients(batch, lossOf, { activation: look('activation'), gradient: look('gradient') });
      return Promise.all(seen.map(async ([place, t]) => [place, await t.bits()] as const));
    };
    const expected = await watched('none');
    assert.equal(expected.length, 2 * (2 + 2 * 9), 'two points outside the layers, nine in each');
    assert.equal(new Set(expected.map(([place]) => place)).size, expected.length);
    assert.deepEqual(await watched('layers'), expected);
  });

  it('keeps one layer at a time: activations grow with layers by their inputs alone', async () => {
    const heldAtLoss = async (numLayers: number, recompute: Recompute) => {
      using model = oddModel({ numLayers });
      using engine = new TrainingEngine(model, options(recompute, {}));
      await engine.step(batch, lossOf); // gradients exist from here on
      const { bytes } = memory();
      let held = 0;
      await engine.step(batch, (scores, begin) => {
        held = memory().bytes - bytes;
        return lossOf(scores, begin);
      });
      assert.equal(memory().bytes, bytes, 'a step leaves nothing');
      return held;
    };
    const perLayer = async (recompute: Recompute) =>
      (await heldAtLoss(9, recompute)) - (await heldAtLoss(8, recompute));
    // The allocator rounds blocks of this size up by at most an eighth.
    const inputs = 2 * 177 * 60 * 4;
    const layers = await perLayer('layers');
    assert.ok(layers >= inputs && layers <= inputs * 1.125, `${layers} and ${inputs}`);
    assert.ok((await perLayer('none')) > 6 * inputs);
  });

  it('is checked', () => {
    using model = oddModel();
    assert.throws(
      () => new TrainingEngine(model, options('layer' as Recompute, {})),
      /\[TrainingEngine\] expected recompute to be one of none, layers, got "layer" \(did you mean layers\?\)/,
    );
  });
});
