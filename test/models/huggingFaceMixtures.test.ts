/** The config.json of models with mixtures of experts. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { InvalidArgumentError } from '../../lib/errors.js';
import { resolveDecoderConfig } from '../../lib/models/config.js';
import { composeHuggingFaceConfig, parseHuggingFaceConfig } from '../../lib/models/huggingFaceConfig.js';

/** What the files of Qwen3-30B-A3B and Mixtral-8x7B say, as far as it matters here. */
const qwen3Moe = {
  architectures: ['Qwen3MoeForCausalLM'],
  attention_bias: false,
  decoder_sparse_step: 1,
  head_dim: 128,
  hidden_act: 'silu',
  hidden_size: 2048,
  intermediate_size: 6144,
  max_position_embeddings: 40960,
  max_window_layers: 48,
  mlp_only_layers: [],
  model_type: 'qwen3_moe',
  moe_intermediate_size: 768,
  norm_topk_prob: true,
  num_attention_heads: 32,
  num_experts: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  torch_dtype: 'bfloat16',
  use_sliding_window: false,
  vocab_size: 151936,
  output_router_logits: false,
  router_aux_loss_coef: 0.001,
  tie_word_embeddings: false,
};
const mixtral = {
  architectures: ['MixtralForCausalLM'],
  attention_dropout: 0.0,
  hidden_act: 'silu',
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  model_type: 'mixtral',
  num_attention_heads: 32,
  num_experts_per_tok: 2,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  num_local_experts: 8,
  output_router_logits: false,
  rms_norm_eps: 1e-5,
  rope_theta: 1000000.0,
  router_aux_loss_coef: 0.02,
  sliding_window: null,
  tie_word_embeddings: false,
  torch_dtype: 'bfloat16',
  vocab_size: 32000,
};

describe('parseHuggingFaceConfig of a mixture', () => {
  it('knows Qwen3-MoE', () => {
    const { modelType, decoder } = parseHuggingFaceConfig(qwen3Moe);
    assert.equal(modelType, 'qwen3_moe');
    assert.deepEqual(decoder, {
      vocabSize: 151936,
      hiddenSize: 2048,
      intermediateSize: 6144,
      numLayers: 48,
      numHeads: 32,
      numKvHeads: 4,
      headDim: 128,
      maxPositionEmbeddings: 40960,
      ropeTheta: 1000000,
      ropeScaling: null,
      rmsNormEps: 1e-6,
      tieWordEmbeddings: false,
      attentionBias: false,
      attentionOutBias: false,
      mlpBias: false,
      qkNorm: true,
      numExperts: 128,
      numExpertsPerToken: 8,
      moeIntermediateSize: 768,
      normalizeRouterWeights: true,
      denseLayers: [],
    });
    // As newer versions of transformers write it, and as its class has it where the file says nothing.
    const { num_experts, norm_topk_prob, head_dim, ...rest } = qwen3Moe;
    const newer = parseHuggingFaceConfig({ ...rest, num_local_experts: 12, mlp_only_layers: null }).decoder;
    assert.deepEqual(
      [newer.numExperts, newer.normalizeRouterWeights, newer.headDim, newer.denseLayers],
      [12, false, 64, []],
    );
  });

  it('knows which layers of Qwen3-MoE are dense', () => {
    const denseLayers = (change: object) =>
      parseHuggingFaceConfig({ ...qwen3Moe, num_hidden_layers: 6, ...change }).decoder.denseLayers;
    assert.deepEqual(denseLayers({ mlp_only_layers: [5, 0, 9] }), [0, 5]);
    assert.deepEqual(denseLayers({ decoder_sparse_step: 2 }), [0, 2, 4]);
    assert.deepEqual(denseLayers({ decoder_sparse_step: 3, mlp_only_layers: [5] }), [0, 1, 3, 4, 5]);
  });

  it('knows Mixtral', () => {
    const { modelType, decoder } = parseHuggingFaceConfig(mixtral);
    assert.equal(modelType, 'mixtral');
    assert.deepEqual(decoder, {
      vocabSize: 32000,
      hiddenSize: 4096,
      intermediateSize: 14336,
      numLayers: 32,
      numHeads: 32,
      numKvHeads: 8,
      headDim: 128,
      maxPositionEmbeddings: 32768,
      ropeTheta: 1000000,
      ropeScaling: null,
      rmsNormEps: 1e-5,
      tieWordEmbeddings: false,
      attentionBias: false,
      attentionOutBias: false,
      mlpBias: false,
      qkNorm: false,
      numExperts: 8,
      numExpertsPerToken: 2,
      moeIntermediateSize: 14336,
      normalizeRouterWeights: true,
      denseLayers: [],
    });
    // What its class has where the file says nothing, and a window that reaches over the whole context.
    const { rms_norm_eps, rope_theta, ...short } = mixtral;
    assert.deepEqual(parseHuggingFaceConfig({ ...short, sliding_window: 32768 }).decoder, decoder);
  });

  const refused: readonly [what: string, source: object, message: RegExp][] = [
    [
      'a mixture without its fields',
      {
        ...qwen3Moe,
        num_experts: undefined,
        num_experts_per_tok: undefined,
        moe_intermediate_size: undefined,
      },
      /num_experts to be an integer .*; and num_experts_per_tok to be .*; and moe_intermediate_size to be /,
    ],
    [
      'Mixtral by its type, without its fields',
      { ...mixtral, architectures: undefined, num_local_experts: null, num_experts_per_tok: null },
      /num_experts to be an integer .*got undefined; and num_experts_per_tok to be/,
    ],
    [
      'two numbers of experts',
      { ...qwen3Moe, num_local_experts: 8 },
      /num_local_experts to be num_experts = 128, got 8/,
    ],
    [
      'more experts a token than there are',
      { ...mixtral, num_experts_per_tok: 9 },
      /num_experts_per_tok to be an integer of at least 1 and at most 8, got 9/,
    ],
    ['no experts', { ...qwen3Moe, num_experts: 0 }, /num_experts to be an integer of at least 1/],
    [
      'a mixture without a layer of experts',
      { ...qwen3Moe, decoder_sparse_step: 49 },
      /decoder_sparse_step and mlp_only_layers to leave a layer with experts, got "none"/,
    ],
    [
      'dense layers that are no list',
      { ...qwen3Moe, mlp_only_layers: 3 },
      /mlp_only_layers to be an array, got 3/,
    ],
    [
      'router weights that are normalised or not',
      { ...qwen3Moe, norm_topk_prob: 'yes' },
      /norm_topk_prob to be true or false, got "yes"/,
    ],
    [
      'a number of layers that no model has',
      { ...qwen3Moe, num_hidden_layers: 2 ** 31 - 1 },
      /num_hidden_layers to be an integer of at least 1 and at most 65536, got 2147483647/,
    ],
    [
      'a number of experts that no model has',
      { ...qwen3Moe, num_experts: 5462 },
      /num_experts to be an integer of at least 1 and at most 5461, got 5462/,
    ],
    ['a window that is none', { ...mixtral, sliding_window: '4096' }, /sliding_window to be a finite number/],
    [
      'a sliding window shorter than the context',
      { ...mixtral, sliding_window: 4096 },
      /sliding_window to be null or at least max_position_embeddings = 32768 \(sliding .*\), got 4096/,
    ],
  ];
  for (const [what, source, message] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => parseHuggingFaceConfig({ ...source }),
        (error) => {
          assert.ok(error instanceof InvalidArgumentError, String(error));
          assert.match(error.message, message);
          assert.equal(error.message.match(/expected/g)!.length, 1);
          return true;
        },
      );
    });
  }

  it('tells a bad number of layers once', () => {
    assert.throws(
      () => parseHuggingFaceConfig({ ...qwen3Moe, num_hidden_layers: 0 }),
      /^InvalidArgumentError: \[config\.json\] expected num_hidden_layers to be an integer of at least 1 and at most 65536, got 0$/,
    );
  });

  it('throws InvalidArgumentError and nothing else, whatever the fields hold', () => {
    const odd = fc.constantFrom({ toString: '' }, [{ toString: '' }], [[[]]], Infinity);
    const value = fc.oneof(fc.jsonValue({ maxDepth: 3 }), odd, fc.integer(), fc.constant(undefined));
    const keys = [...new Set([qwen3Moe, mixtral].flatMap((config) => Object.keys(config)))];
    const field = fc.constantFrom(...keys.filter((key) => /expert|layer|moe|norm|window|position/.test(key)));
    let accepted = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(qwen3Moe, mixtral),
        fc.array(fc.tuple(field, value), { maxLength: 3 }),
        (base, changes) => {
          try {
            const { decoder } = parseHuggingFaceConfig({ ...base, ...Object.fromEntries(changes) });
            assert.deepEqual(resolveDecoderConfig(decoder), decoder);
            accepted++;
          } catch (error) {
            if (!(error instanceof InvalidArgumentError)) throw error;
          }
        },
      ),
      { seed: 1, numRuns: 2000 },
    );
    assert.ok(accepted > 200 && accepted < 1800, `${accepted} accepted`);
  });
});

describe('composeHuggingFaceConfig of a mixture', () => {
  const small = {
    vocabSize: 5,
    hiddenSize: 8,
    intermediateSize: 3,
    numLayers: 1,
    numHeads: 2,
    maxPositionEmbeddings: 9,
  };

  it('says what parseHuggingFaceConfig reads', () => {
    for (const [change, architecture] of [
      [{ numExperts: 4, numExpertsPerToken: 2 }, 'MixtralForCausalLM'],
      [{ numExperts: 4, numExpertsPerToken: 2, qkNorm: true }, 'Qwen3MoeForCausalLM'],
      [
        {
          ...{ numLayers: 3, numExperts: 9, numExpertsPerToken: 9, moeIntermediateSize: 7 },
          ...{ normalizeRouterWeights: false, denseLayers: [0, 2], qkNorm: true },
        },
        'Qwen3MoeForCausalLM',
      ],
    ] as const) {
      const decoder = resolveDecoderConfig({ ...small, ...change });
      const made = JSON.parse(JSON.stringify(composeHuggingFaceConfig(decoder, 'fp16')));
      assert.deepEqual(made.architectures, [architecture]);
      assert.deepEqual(parseHuggingFaceConfig(made).decoder, decoder);
    }
  });

  it('refuses what no architecture has', () => {
    const composed = (change: object) => () =>
      composeHuggingFaceConfig(resolveDecoderConfig({ ...small, ...change }), 'fp32');
    const experts = { numLayers: 2, numExperts: 4, numExpertsPerToken: 2 };
    const both = { attentionBias: true, attentionOutBias: true };
    assert.throws(composed({ ...experts, ...both }), /attentionBias to be false, as in Mixtral/);
    assert.throws(composed({ ...experts, denseLayers: [0] }), /no denseLayers, as in Mixtral/);
    assert.throws(
      composed({ ...experts, moeIntermediateSize: 4 }),
      /moeIntermediateSize to be intermediateSize/,
    );
    assert.throws(
      composed({ ...experts, normalizeRouterWeights: false }),
      /normalizeRouterWeights to be true/,
    );

    assert.throws(
      composed({ ...experts, qkNorm: true, attentionBias: true }),
      /attentionOutBias to be attentionBias, as in Qwen3Moe/,
    );
  });
});
