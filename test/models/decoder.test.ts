/** The decoder in both engines against a forward pass in fp64 of the test's own, and how it is initialised. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type { DecoderConfig } from '../../lib/models/config.js';
import { Decoder } from '../../lib/models/decoder.js';
import type { TokenSequence } from '../../lib/models/sequences.js';
import { numerics } from '../../lib/numerics.js';
import { RolloutEngine } from '../../lib/rollout/engine.js';
import { memory } from '../../lib/runtime.js';
import { TrainingEngine } from '../../lib/training/engine.js';
import { assertClose, assertSameBits, relativeError } from '../support/compare.js';
import { randomizeConstants, referenceScores, weightsOf } from '../support/decoderReference.js';
import { mixtureConfig, oddConfig, randomTokens } from '../support/models.js';

const schedule = { kind: 'constant', learningRate: 0 } as const;

const configs: Readonly<Record<string, DecoderConfig>> = {
  'grouped queries, bias, odd sizes': oddConfig,
  'tied head, no bias': { ...oddConfig, tieWordEmbeddings: true, attentionBias: false, numLayers: 1 },
  'every head its own keys, defaults': {
    vocabSize: 19,
    hiddenSize: 48,
    intermediateSize: 33,
    numLayers: 3,
    numHeads: 4,
    maxPositionEmbeddings: 150,
  },
  'one key-value head, heads wider than the model, large eps, small theta': {
    vocabSize: 64,
    hiddenSize: 32,
    intermediateSize: 80,
    numLayers: 2,
    numHeads: 3,
    numKvHeads: 1,
    headDim: 16,
    maxPositionEmbeddings: 150,
    ropeTheta: 13,
    rmsNormEps: 0.05,
    attentionBias: true,
    tieWordEmbeddings: true,
  },
  'norms of heads, positions scaled linearly': {
    ...oddConfig,
    qkNorm: true,
    attentionBias: false,
    rmsNormEps: 1e-3,
    ropeScaling: { type: 'linear', factor: 4 },
  },
  'norms of heads and every bias, positions scaled as Llama 3 does': {
    ...oddConfig,
    headDim: 16,
    qkNorm: true,
    attentionOutBias: true,
    mlpBias: true,
    tieWordEmbeddings: true,
    ropeTheta: 100,
    // Wavelengths from 6 to 353: of some all is kept, of some a part, of some nothing.
    ropeScaling: {
      type: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 64,
    },
  },
  'mixtures of experts about a dense layer': mixtureConfig,
  'mixtures of which each token has one expert, weights that do not sum to 1': {
    ...oddConfig,
    numExperts: 5,
    numExpertsPerToken: 1,
    normalizeRouterWeights: false,
  },
  'mixtures of which each token has every expert': { ...oddConfig, numExperts: 2, numExpertsPerToken: 2 },
  'a model of the smallest sizes': {
    vocabSize: 2,
    hiddenSize: 2,
    intermediateSize: 1,
    numLayers: 1,
    numHeads: 1,
    maxPositionEmbeddings: 150,
  },
};

function batchFor({ config }: Decoder): TokenSequence[] {
  const lengths = [
    [1, 1],
    [1, 20],
    [17, 3],
    [30, 36],
  ] as const;
  return lengths.map(([prompt, response], i) => ({
    prompt: randomTokens(prompt, config.vocabSize, 10 + i),
    response: randomTokens(response, config.vocabSize, 20 + i),
  }));
}

/** A model in which every parameter has values of its own. */
function randomModel(config: DecoderConfig, seed: number): Decoder {
  const model = new Decoder(config, { seed });
  randomizeConstants(model, 1000);
  return model;
}

describe('Decoder', () => {
  for (const [name, config] of Object.entries(configs)) {
    it(`both engines agree with the definition in fp32: ${name}`, async () => {
      using model = randomModel(config, 3);
      const batch = batchFor(model);
      const reference = referenceScores(model, await weightsOf(model, 'fp32'), batch, 0.8);
      for (const preset of ['rollout', 'training', 'matched'] as const) {
        using rollout = new RolloutEngine(model, { precision: 'fp32', numerics: numerics(preset) });
        using training = new TrainingEngine(model, {
          precision: 'fp32',
          numerics: numerics(preset),
          schedule,
          temperature: 0.8,
        });
        for (const [engine, scores] of [
          ['rollout', await rollout.score(batch, { temperature: 0.8 })],
          ['training', await training.score(batch)],
        ] as const) {
          assertClose(scores.logprobs, reference.logprobs, 'fp32', `${engine}, ${preset}: log-probs`);
          assertClose(scores.entropy, reference.entropy, 'fp32', `${engine}, ${preset}: entropies`);
          assert.deepEqual([...scores.offsets], [0, 1, 21, 24, 60]);
        }
      }
    });
  }

  // The reference has the weights rounded and nothing else, so what is left is the rounding of activations, of unit
  // 2^-12 in fp16 and 2^-9 in bf16 relative to each. It adds up over some twenty ops like a random walk, to a few
  // times the unit in a logit of size 1, against log-probs of size 4. Found: 1.3e-4 and 9.9e-4; the limits are three
  // times that, and the floor is what keeps an fp32 pass in disguise out.
  for (const [precision, limit] of [
    ['fp16', 4e-4],
    ['bf16', 3e-3],
  ] as const) {
    it(`both engines are within ${limit} of the definition in ${precision}`, async () => {
      using model = randomModel({ ...oddConfig, qkNorm: true }, 3);
      const batch = batchFor(model);
      const reference = referenceScores(model, await weightsOf(model, precision), batch);
      for (const preset of ['rollout', 'training', 'matched'] as const) {
        using rollout = new RolloutEngine(model, { precision, numerics: numerics(preset) });
        using training = new TrainingEngine(model, { precision, numerics: numerics(preset), schedule });
        for (const [engine, scores] of [
          ['rollout', await rollout.score(batch)],
          ['training', await training.score(batch)],
        ] as const) {
          const label = `${engine}, ${preset}`;
          assertClose(scores.logprobs, reference.logprobs, precision, `${label}: log-probs`, limit);
          assertClose(scores.entropy, reference.entropy, precision, `${label}: entropies`, limit);
          const error = relativeError(scores.logprobs, reference.logprobs);
          assert.ok(error > limit / 20, `${label}: ${error} is too near for ${precision}`);
        }
      }
    });
  }

  it('every parameter matters to the log-probs', async () => {
    using model = randomModel(configs['norms of heads and every bias, positions scaled as Llama 3 does']!, 3);
    const batch = batchFor(model).slice(0, 2);
    using training = new TrainingEngine(model, { precision: 'fp32', schedule });
    const { logprobs } = await training.score(batch);
    for (const { name, master } of model.parameters) {
      const values = await master.floats();
      master.upload(values.map((x, i) => x + (i % 3 === 0 ? 0.1 : 0)));
      const changed = await training.score(batch);
      assert.ok(relativeError(changed.logprobs, logprobs) > 1e-4, name);
      master.upload(values);
    }
    assertSameBits((await training.score(batch)).logprobs, logprobs, 'masters restored');
  });

  it('has the parameters of the architecture, by name and shape', () => {
    const shapesOf = (config: DecoderConfig) => {
      using model = new Decoder(config, { seed: 1 });
      assert.equal(
        model.parameterCount,
        model.parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b), 0),
      );
      return model.parameters.map(({ name, shape }) => `${name} [${shape}]`);
    };
    assert.deepEqual(shapesOf({ ...oddConfig, numLayers: 1 }), [
      'model.embed_tokens.weight [37,60]',
      'model.layers.0.input_layernorm.weight [60]',
      'model.layers.0.self_attn.qkv_proj.weight [100,60]',
      'model.layers.0.self_attn.qkv_proj.bias [100]',
      'model.layers.0.self_attn.o_proj.weight [60,60]',
      'model.layers.0.post_attention_layernorm.weight [60]',
      'model.layers.0.mlp.gate_up_proj.weight [184,60]',
      'model.layers.0.mlp.down_proj.weight [60,92]',
      'model.norm.weight [60]',
      'lm_head.weight [37,60]',
    ]);
    const all = { qkNorm: true, attentionOutBias: true, mlpBias: true };
    assert.deepEqual(
      shapesOf({ ...oddConfig, ...all, numLayers: 1 }).filter((line) => /self_attn|mlp\./.test(line)),
      [
        'model.layers.0.self_attn.qkv_proj.weight [100,60]',
        'model.layers.0.self_attn.qkv_proj.bias [100]',
        'model.layers.0.self_attn.o_proj.weight [60,60]',
        'model.layers.0.self_attn.q_norm.weight [10]',
        'model.layers.0.self_attn.k_norm.weight [10]',
        'model.layers.0.self_attn.o_proj.bias [60]',
        'model.layers.0.mlp.gate_up_proj.weight [184,60]',
        'model.layers.0.mlp.down_proj.weight [60,92]',
        'model.layers.0.mlp.gate_up_proj.bias [184]',
        'model.layers.0.mlp.down_proj.bias [60]',
      ],
    );
    assert.deepEqual(
      shapesOf(mixtureConfig).filter((line) => /mlp\./.test(line)),
      [
        'model.layers.0.mlp.gate.weight [7,60]',
        'model.layers.0.mlp.experts.gate_up_proj.weight [7,72,60]',
        'model.layers.0.mlp.experts.down_proj.weight [7,60,36]',
        'model.layers.1.mlp.gate_up_proj.weight [184,60]',
        'model.layers.1.mlp.down_proj.weight [60,92]',
        'model.layers.2.mlp.gate.weight [7,60]',
        'model.layers.2.mlp.experts.gate_up_proj.weight [7,72,60]',
        'model.layers.2.mlp.experts.down_proj.weight [7,60,36]',
      ],
    );
    const tied = shapesOf({ ...oddConfig, tieWordEmbeddings: true, attentionBias: false });
    assert.equal(tied.length, 1 + 2 * 6 + 1);
    assert.ok(!tied.some((line) => line.includes('lm_head') || line.includes('bias')));
    using model = new Decoder({ ...oddConfig, tieWordEmbeddings: true }, { seed: 1 });
    assert.equal(model.head, model.embedding);
  });

  it('begins with the documented spread', async () => {
    const config: DecoderConfig = {
      vocabSize: 200,
      hiddenSize: 96,
      intermediateSize: 160,
      numLayers: 3,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 32,
      maxPositionEmbeddings: 8,
      attentionBias: true,
    };
    using model = new Decoder(config, { seed: 12 });
    const residual = 1 / Math.sqrt(6);
    const expected: Record<string, number> = {
      embed_tokens: 0.5,
      qkv_proj: 1 / Math.sqrt(96),
      o_proj: residual / Math.sqrt(128),
      gate_up_proj: 1 / Math.sqrt(96),
      down_proj: residual / Math.sqrt(160),
      lm_head: 0.5 / Math.sqrt(96),
      gate: 1 / Math.sqrt(96),
    };
    using mixture = new Decoder(
      { ...config, numExperts: 6, numExpertsPerToken: 2, moeIntermediateSize: 160 },
      { seed: 13 },
    );
    for (const { name, master } of [...model.parameters, ...mixture.parameters]) {
      const values = await master.floats();
      if (name.endsWith('norm.weight'))
        assert.ok(
          values.every((x) => x === 1),
          name,
        );
      else if (name.endsWith('bias'))
        assert.ok(
          values.every((x) => x === 0),
          name,
        );
      else {
        const std = expected[name.split('.').at(-2)!]!;
        const n = values.length;
        const mean = values.reduce((sum, x) => sum + x, 0) / n;
        const square = values.reduce((sum, x) => sum + x * x, 0) / n;
        const fourth = values.reduce((sum, x) => sum + x ** 4, 0) / n;
        // Five standard errors: of a mean 1 / sqrt(n), of a variance sqrt(2 / n), of a kurtosis sqrt(96 / n).
        assert.ok(Math.abs(mean) < (5 * std) / Math.sqrt(n), `${name}: mean ${mean}`);
        assert.ok(Math.abs(square / std ** 2 - 1) < 5 * Math.sqrt(2 / n), `${name}: ${Math.sqrt(square)}`);
        assert.ok(Math.abs(fourth / square ** 2 - 3) < 5 * Math.sqrt(96 / n), `${name}: kurtosis`);
      }
    }
  });

  it('without a seed leaves the weights to whoever loads them', async () => {
    using model = new Decoder(oddConfig, { seed: null });
    using other = new Decoder(oddConfig, { seed: 1 });
    for (const [i, { name, shape, master }] of model.parameters.entries()) {
      assert.deepEqual([name, shape], [other.parameters[i]!.name, other.parameters[i]!.shape]);
      master.upload(await other.parameters[i]!.master.floats());
    }
    const batch = batchFor(model);
    using engine = new TrainingEngine(model, { precision: 'fp32', schedule });
    using twin = new TrainingEngine(other, { precision: 'fp32', schedule });
    assertSameBits((await engine.score(batch)).logprobs, (await twin.score(batch)).logprobs, 'log-probs');
  });

  it('is a pure function of the seed, and no two parameters or seeds share values', async () => {
    const valuesOf = async (seed: number) => {
      using model = new Decoder(oddConfig, { seed });
      const values = new Map<string, Float32Array>();
      for (const { name, master } of model.parameters) values.set(name, await master.floats());
      return values;
    };
    const [a, again, b] = [await valuesOf(0), await valuesOf(0), await valuesOf(2 ** 32 - 1)];
    const seen = new Map<string, string>();
    for (const [name, values] of a) {
      assertSameBits(values, again.get(name)!, name);
      if (/norm|bias/.test(name)) continue;
      assert.ok(relativeError(values, b.get(name)!) > 1, `${name} differs between seeds`);
      for (const [of, set] of [
        ['seed 0', a],
        ['the last seed', b],
      ] as const) {
        // The same draws scaled would have the same ratios.
        const [first, second, third] = set.get(name)!;
        const key = `${Math.fround(first! / second!)} ${Math.fround(second! / third!)}`;
        assert.ok(!seen.has(key), `${name} of ${of} repeats ${seen.get(key)}`);
        seen.set(key, `${name} of ${of}`);
      }
    }
  });

  it('refuses a bad seed or config before it makes anything', () => {
    const { tensors } = memory();
    for (const seed of [-1, 0.5, 2 ** 32, Number.NaN]) {
      assert.throws(() => new Decoder(oddConfig, { seed }), /\[Decoder\] expected seed to be an integer/);
    }
    assert.throws(() => new Decoder({ ...oddConfig, numHeads: 0 }, { seed: 1 }), /numHeads/);
    assert.equal(memory().tensors, tensors);
  });

  it('gives everything back', () => {
    const { tensors, bytes } = memory();
    {
      using model = new Decoder(oddConfig, { seed: 1 });
      for (const parameter of model.parameters) parameter.gradient;
      assert.ok(memory().tensors > tensors);
    }
    assert.equal(memory().tensors, tensors);
    assert.equal(memory().bytes, bytes);
  });
});
