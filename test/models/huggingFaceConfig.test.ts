import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { resolveDecoderConfig } from '../../lib/models/config.js';
import { composeHuggingFaceConfig, parseHuggingFaceConfig } from '../../lib/models/huggingFaceConfig.js';

/** What the files of published models say, as far as it matters here. */
const qwen25Math = {
  architectures: ['Qwen2ForCausalLM'],
  attention_dropout: 0.0,
  bos_token_id: 151643,
  eos_token_id: 151643,
  hidden_act: 'silu',
  hidden_size: 1536,
  initializer_range: 0.02,
  intermediate_size: 8960,
  max_position_embeddings: 4096,
  max_window_layers: 21,
  model_type: 'qwen2',
  num_attention_heads: 12,
  num_hidden_layers: 28,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  sliding_window: 4096,
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
  use_sliding_window: false,
  vocab_size: 151936,
};
const llama32 = {
  architectures: ['LlamaForCausalLM'],
  attention_bias: false,
  head_dim: 64,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 8192,
  max_position_embeddings: 131072,
  mlp_bias: false,
  model_type: 'llama',
  num_attention_heads: 32,
  num_hidden_layers: 16,
  num_key_value_heads: 8,
  pretraining_tp: 1,
  rms_norm_eps: 1e-5,
  rope_scaling: {
    factor: 32.0,
    high_freq_factor: 4.0,
    low_freq_factor: 1.0,
    original_max_position_embeddings: 8192,
    rope_type: 'llama3',
  },
  rope_theta: 500000.0,
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
  vocab_size: 128256,
};
const qwen3 = {
  architectures: ['Qwen3ForCausalLM'],
  attention_bias: false,
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 1024,
  intermediate_size: 3072,
  max_position_embeddings: 40960,
  max_window_layers: 28,
  model_type: 'qwen3',
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 8,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  tie_word_embeddings: true,
  torch_dtype: 'bfloat16',
  use_sliding_window: false,
  vocab_size: 151936,
};

/** What a dense model has in the fields of a mixture. */
const dense = {
  numExperts: 0,
  numExpertsPerToken: 0,
  moeIntermediateSize: 0,
  normalizeRouterWeights: false,
  denseLayers: [],
};

describe('parseHuggingFaceConfig', () => {
  it('knows Qwen2', () => {
    const { modelType, decoder, dtype, source } = parseHuggingFaceConfig(qwen25Math);
    assert.deepEqual([modelType, dtype, source], ['qwen2', 'bf16', qwen25Math]);
    assert.deepEqual(decoder, {
      vocabSize: 151936,
      hiddenSize: 1536,
      intermediateSize: 8960,
      numLayers: 28,
      numHeads: 12,
      numKvHeads: 2,
      headDim: 128,
      maxPositionEmbeddings: 4096,
      ropeTheta: 10000,
      ropeScaling: null,
      rmsNormEps: 1e-6,
      tieWordEmbeddings: true,
      attentionBias: true,
      attentionOutBias: false,
      mlpBias: false,
      qkNorm: false,
      ...dense,
    });
  });

  it('knows Llama 3.2', () => {
    const { modelType, decoder } = parseHuggingFaceConfig(llama32);
    assert.equal(modelType, 'llama');
    assert.deepEqual(decoder, {
      vocabSize: 128256,
      hiddenSize: 2048,
      intermediateSize: 8192,
      numLayers: 16,
      numHeads: 32,
      numKvHeads: 8,
      headDim: 64,
      maxPositionEmbeddings: 131072,
      ropeTheta: 500000,
      ropeScaling: {
        type: 'llama3',
        factor: 32,
        lowFreqFactor: 1,
        highFreqFactor: 4,
        originalMaxPositionEmbeddings: 8192,
      },
      rmsNormEps: 1e-5,
      tieWordEmbeddings: true,
      attentionBias: false,
      attentionOutBias: false,
      mlpBias: false,
      qkNorm: false,
      ...dense,
    });
  });

  it('knows Qwen3', () => {
    const { modelType, decoder } = parseHuggingFaceConfig(qwen3);
    assert.equal(modelType, 'qwen3');
    const { numHeads, headDim, hiddenSize, ropeTheta, qkNorm, attentionBias } = decoder;
    assert.deepEqual(
      [numHeads, headDim, hiddenSize, ropeTheta, qkNorm, attentionBias],
      [16, 128, 1024, 1000000, true, false],
    );
  });

  it('fills in what old or short files leave out', () => {
    const { num_key_value_heads, rope_theta, rms_norm_eps, hidden_act, tie_word_embeddings, ...rest } =
      llama32;
    const { head_dim, rope_scaling, mlp_bias, attention_bias, torch_dtype, ...short } = rest;
    const { decoder, dtype } = parseHuggingFaceConfig({ ...short, head_dim: null, rope_scaling: null });
    assert.deepEqual(
      decoder,
      resolveDecoderConfig({
        vocabSize: 128256,
        hiddenSize: 2048,
        intermediateSize: 8192,
        numLayers: 16,
        numHeads: 32,
        maxPositionEmbeddings: 131072,
      }),
    );
    assert.equal(dtype, null);
    const { head_dim: _, ...without } = qwen3;
    assert.equal(parseHuggingFaceConfig({ ...without, hidden_size: 512 }).decoder.headDim, 128);
    const { architectures, ...byType } = qwen3;
    assert.equal(parseHuggingFaceConfig(byType).modelType, 'qwen3');
    const { model_type, ...byArchitecture } = qwen3;
    assert.equal(parseHuggingFaceConfig(byArchitecture).modelType, 'qwen3');
  });

  it('knows where biases are', () => {
    const biases = (source: object) => {
      const { attentionBias, attentionOutBias, mlpBias } = parseHuggingFaceConfig({ ...source }).decoder;
      return [attentionBias, attentionOutBias, mlpBias];
    };
    assert.deepEqual(biases({ ...llama32, attention_bias: true }), [true, true, false]);
    assert.deepEqual(biases({ ...llama32, mlp_bias: true }), [false, false, true]);
    assert.deepEqual(biases({ ...qwen3, attention_bias: true, mlp_bias: true }), [true, true, false]);
    assert.deepEqual(biases({ ...qwen25Math, attention_bias: false }), [true, false, false]);
  });

  it('reads rotary positions in every spelling', () => {
    const rope = (change: object) => {
      const { ropeTheta, ropeScaling } = parseHuggingFaceConfig({ ...llama32, ...change }).decoder;
      return [ropeTheta, ropeScaling];
    };
    const linear = { type: 'linear', factor: 4 };
    assert.deepEqual(rope({ rope_scaling: { type: 'linear', factor: 4.0 } }), [500000, linear]);
    assert.deepEqual(rope({ rope_scaling: { rope_type: 'linear', factor: 4 } }), [500000, linear]);
    assert.deepEqual(rope({ rope_scaling: { type: 'linear', rope_type: 'linear', factor: 4 } }), [
      500000,
      linear,
    ]);
    assert.deepEqual(rope({ rope_scaling: { rope_type: 'default' } }), [500000, null]);
    const { rope_theta, rope_scaling, ...newer } = llama32;
    const parameters = { rope_theta: 700, rope_type: 'linear', factor: 4 };
    const read = parseHuggingFaceConfig({ ...newer, rope_parameters: parameters }).decoder;
    assert.deepEqual([read.ropeTheta, read.ropeScaling], [700, linear]);
    // Where a file has both, the newer counts.
    const both = { rope_theta: 700, rope_parameters: { rope_theta: 700, rope_type: 'default' } };
    assert.deepEqual(rope(both), [700, null]);
  });

  it('reads the dtype in every spelling', () => {
    const dtype = (change: object) =>
      parseHuggingFaceConfig({ ...qwen3, torch_dtype: undefined, ...change }).dtype;
    assert.equal(dtype({ torch_dtype: 'float16' }), 'fp16');
    assert.equal(dtype({ dtype: 'float32' }), 'fp32');
    assert.equal(dtype({ dtype: 'torch.bfloat16' }), 'bf16');
    assert.equal(dtype({}), null);
  });

  const scaling = (change: object) => ({ rope_scaling: { ...llama32.rope_scaling, ...change } });
  const refused: readonly [what: string, source: object, message: RegExp][] = [
    [
      'another architecture',
      { ...llama32, architectures: ['Gemma2ForCausalLM'], model_type: 'gemma2' },
      /architectures to be one of LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3MoeForCausalLM, MixtralForCausalLM, got "Gemma2ForCausalLM"/,
    ],
    [
      'one with a name like another',
      { ...llama32, architectures: ['MistralForCausalLM'], model_type: 'mistral' },
      /MixtralForCausalLM, got "MistralForCausalLM"$/,
    ],
    [
      'another model type',
      { ...llama32, architectures: undefined, model_type: 'gpt2' },
      /model_type to be one of llama, qwen2, qwen3, qwen3_moe, mixtral, got "gpt2"/,
    ],
    ['neither', { ...llama32, architectures: [], model_type: undefined }, /architectures to be one of Llama/],
    [
      'a list of something else',
      { ...llama32, architectures: [7] },
      /architectures to be one of Llama.*got 7/,
    ],
    [
      'two architectures in one',
      { ...llama32, model_type: 'qwen2' },
      /model_type of LlamaForCausalLM to be llama, got "qwen2"/,
    ],
    [
      'a size that is missing',
      { ...llama32, hidden_size: undefined },
      /hidden_size to be an integer .*undefined/,
    ],
    [
      'a size in quotes',
      { ...llama32, vocab_size: '10' },
      /vocab_size to be an integer of at least 1, got "10"/,
    ],
    [
      'no layer',
      { ...llama32, num_hidden_layers: 0 },
      /num_hidden_layers to be an integer of at least 1 and at most 65536, got 0/,
    ],
    [
      'heads that do not divide',
      { ...llama32, num_key_value_heads: 5 },
      /num_key_value_heads to divide num_attention_heads = 32, got 5/,
    ],
    ['no key-value heads in Qwen', { ...qwen3, num_key_value_heads: undefined }, /num_key_value_heads to be/],
    ['an odd head_dim', { ...llama32, head_dim: 63 }, /head_dim to be even and at most 256, got 63/],
    ['a wide head_dim', { ...llama32, head_dim: 512 }, /head_dim to be even and at most 256, got 512/],
    ['a head_dim that is none', { ...llama32, head_dim: null, hidden_size: 2050 }, /head_dim .*got 64\.0625/],
    [
      'another activation',
      { ...llama32, hidden_act: 'gelu' },
      /hidden_act to be one of silu, swish, got "gelu"/,
    ],
    ['a negative eps', { ...llama32, rms_norm_eps: -1 }, /rms_norm_eps to be a finite number of at least 0/],
    [
      'a flag that is none',
      { ...llama32, tie_word_embeddings: 1 },
      /tie_word_embeddings to be true or false, got 1/,
    ],
    [
      'yarn',
      { ...qwen3, ...scaling({ rope_type: 'yarn' }) },
      /rope_scaling\.rope_type to be one of default, linear/,
    ],
    [
      'yarn in the old spelling',
      { ...qwen3, rope_scaling: { type: 'yarn', factor: 4 } },
      /rope_type .*got "yarn"/,
    ],
    [
      'two rope types',
      { ...llama32, ...scaling({ type: 'linear' }) },
      /rope_scaling\.type to be rope_scaling\.rope_type/,
    ],
    [
      'a scaling without factor',
      { ...llama32, ...scaling({ factor: undefined }) },
      /rope_scaling\.factor .*undefined/,
    ],
    [
      'frequency factors the wrong way round',
      { ...llama32, ...scaling({ high_freq_factor: 0.5 }) },
      /0 < low_freq_factor < high_freq_factor in rope_scaling, got \[1, 0\.5\]/,
    ],
    [
      'a field of rope_scaling that is not known',
      { ...llama32, ...scaling({ beta_fast: 32 }) },
      /each field of rope_scaling to be one of .*got "beta_fast"/,
    ],
    [
      'rotary positions by kind of layer',
      { ...qwen3, rope_parameters: { full_attention: { rope_type: 'default' } } },
      /each field of rope_parameters to be one of .*got "full_attention"/,
    ],
    [
      'rope_scaling that is no object',
      { ...llama32, rope_scaling: 'linear' },
      /rope_scaling to be an object/,
    ],
    [
      'two thetas',
      { ...llama32, rope_parameters: { rope_theta: 7 } },
      /rope_theta to be rope_parameters\.rope_theta = 7, got 500000/,
    ],
    [
      'heads turned in part',
      { ...llama32, partial_rotary_factor: 0.5 },
      /partial_rotary_factor to be 1, got 0\.5/,
    ],
    [
      'heads turned in part, the newer way',
      { ...llama32, rope_theta: undefined, rope_parameters: { rope_theta: 7, partial_rotary_factor: 0.25 } },
      /rope_parameters\.partial_rotary_factor to be 1, got 0\.25/,
    ],
    [
      'a sliding window',
      { ...qwen25Math, use_sliding_window: true },
      /use_sliding_window to be false \(sliding windows are not supported\), got true/,
    ],
    [
      'a sliding window by layer types',
      { ...qwen3, layer_types: ['full_attention', 'sliding_attention'] },
      /layer_types to be full_attention in every layer \(sliding .*\), got "sliding_attention"/,
    ],
    [
      'quantised weights',
      { ...qwen3, quantization_config: { quant_method: 'gptq', bits: 4 } },
      /weights that are not quantised, without quantization_config, got "gptq"/,
    ],
    [
      'another dtype',
      { ...qwen3, torch_dtype: 'int8' },
      /torch_dtype to be one of float32, float16, bfloat16/,
    ],
  ];
  for (const [what, source, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => parseHuggingFaceConfig({ ...source }, 'folder/config.json'),
        (error) => {
          assert.ok(error instanceof InvalidArgumentError, String(error));
          assert.match(error.message, /^\[folder\/config\.json\] expected /);
          assert.match(error.message, message);
          return true;
        },
      );
    });
  }

  it('lists everything that is wrong', () => {
    const bad = {
      ...llama32,
      hidden_size: 0,
      head_dim: null,
      hidden_act: 'relu',
      num_key_value_heads: 5,
      ...scaling({ factor: 0, original_max_position_embeddings: null }),
      quantization_config: {},
    };
    assert.throws(
      () => parseHuggingFaceConfig(bad),
      ({ message }: Error) => {
        const problems = [
          'hidden_size',
          'hidden_act',
          'num_key_value_heads',
          'factor',
          'original',
          'quantised',
        ];
        for (const problem of problems) assert.ok(message.includes(problem), `${problem} in ${message}`);
        assert.equal(message.match(/\[config\.json\]/g)!.length, 1);
        assert.ok(!message.includes('undefined'), message);
        return true;
      },
    );
  });
});

describe('parseHuggingFaceConfig of anything', () => {
  it('throws InvalidArgumentError and nothing else', () => {
    const keys = [...new Set([qwen25Math, llama32, qwen3].flatMap((config) => Object.keys(config)))];
    const added = ['rope_parameters', 'layer_types', 'quantization_config', 'dtype', 'partial_rotary_factor'];
    const odd = fc.constantFrom(
      { toString: '' },
      [{ toString: '' }],
      { constructor: { name: {} } },
      [[[]]],
      Infinity,
    );
    const value = fc.oneof(fc.jsonValue({ maxDepth: 3 }), odd, fc.integer(), fc.constant(undefined));
    const field = fc.constantFrom(...keys, ...added);
    const ropeField = fc.constantFrom(...Object.keys(llama32.rope_scaling), 'type', 'rope_theta');
    let accepted = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(qwen25Math, llama32, qwen3),
        fc.array(fc.tuple(field, value), { maxLength: 3 }),
        fc.array(fc.tuple(ropeField, value), { maxLength: 1 }),
        (base, changes, ropeChanges) => {
          const source: Record<string, unknown> = { ...base, ...Object.fromEntries(changes) };
          if (ropeChanges.length > 0) {
            source.rope_scaling = { ...llama32.rope_scaling, ...Object.fromEntries(ropeChanges) };
          }
          try {
            const { decoder } = parseHuggingFaceConfig(source);
            assert.deepEqual(resolveDecoderConfig(decoder), decoder);
            accepted++;
          } catch (error) {
            if (!(error instanceof InvalidArgumentError)) throw error;
          }
        },
      ),
      { seed: 1, numRuns: 3000 },
    );
    assert.ok(accepted > 300 && accepted < 2700, `${accepted} accepted`);
  });
});

describe('composeHuggingFaceConfig', () => {
  const small = {
    vocabSize: 5,
    hiddenSize: 8,
    intermediateSize: 3,
    numLayers: 1,
    numHeads: 2,
    maxPositionEmbeddings: 9,
  };

  it('says what parseHuggingFaceConfig reads', () => {
    const cases = [
      [{}, 'LlamaForCausalLM'],
      [{ attentionBias: true, attentionOutBias: true, mlpBias: true }, 'LlamaForCausalLM'],
      [{ mlpBias: true, tieWordEmbeddings: true, rmsNormEps: 0.1, ropeTheta: 7 }, 'LlamaForCausalLM'],
      [{ ropeScaling: { type: 'linear', factor: 3 } }, 'LlamaForCausalLM'],
      [{ attentionBias: true, numKvHeads: 1, headDim: 6 }, 'Qwen2ForCausalLM'],
      [{ qkNorm: true, headDim: 14 }, 'Qwen3ForCausalLM'],
      [{ qkNorm: true, attentionBias: true, attentionOutBias: true }, 'Qwen3ForCausalLM'],
      [
        {
          ropeScaling: {
            type: 'llama3',
            factor: 3,
            lowFreqFactor: 1,
            highFreqFactor: 2,
            originalMaxPositionEmbeddings: 8,
          },
        },
        'LlamaForCausalLM',
      ],
    ] as const;
    for (const [change, architecture] of cases) {
      const decoder = resolveDecoderConfig({ ...small, ...change });
      const made = JSON.parse(JSON.stringify(composeHuggingFaceConfig(decoder, 'fp16')));
      assert.deepEqual(made.architectures, [architecture]);
      const read = parseHuggingFaceConfig(made);
      assert.deepEqual(read.decoder, decoder);
      assert.equal(read.dtype, 'fp16');
    }
  });

  it('carries over what the source says', () => {
    const { decoder } = parseHuggingFaceConfig(qwen25Math);
    const shorter = { ...decoder, maxPositionEmbeddings: 64 };
    assert.deepEqual(composeHuggingFaceConfig(shorter, 'fp16', qwen25Math), {
      ...qwen25Math,
      torch_dtype: 'float16',
    });
    const { torch_dtype, ...newer } = { ...qwen25Math, dtype: 'bfloat16' };
    assert.deepEqual(composeHuggingFaceConfig(decoder, 'fp32', newer), { ...newer, dtype: 'float32' });
  });

  it('refuses the source of another model, and what no architecture has', () => {
    const { decoder } = parseHuggingFaceConfig(qwen25Math);
    assert.throws(
      () => composeHuggingFaceConfig({ ...decoder, numLayers: 2 }, 'fp32', qwen25Math),
      /\[saveModel\] expected config with the model's numLayers = 2, got 28/,
    );
    const composed = (change: object) => () =>
      composeHuggingFaceConfig(resolveDecoderConfig({ ...small, ...change }), 'fp32');
    assert.throws(composed({ qkNorm: true, mlpBias: true }), /mlpBias to be false, as in Qwen3/);
    assert.throws(composed({ attentionOutBias: true }), /attentionOutBias to be attentionBias, as in Llama/);
    assert.throws(composed({ qkNorm: true, attentionBias: true }), /attentionOutBias .*as in Qwen3/);
  });
});
