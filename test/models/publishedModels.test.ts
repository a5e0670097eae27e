/** The config.json of models that are published, as they are: accepted, and with as many parameters as their pages say. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseHuggingFaceConfig } from '../../lib/models/huggingFaceConfig.js';
import { publishedTensors } from '../../lib/models/huggingFaceTensors.js';

const common = {
  attention_dropout: 0.0,
  hidden_act: 'silu',
  initializer_range: 0.02,
  torch_dtype: 'bfloat16',
  use_cache: true,
};
const qwen2 = {
  ...common,
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  bos_token_id: 151643,
  eos_token_id: 151643,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  use_mrope: false,
  use_sliding_window: false,
  vocab_size: 151936,
};
const qwen15 = {
  ...qwen2,
  hidden_size: 1536,
  intermediate_size: 8960,
  max_window_layers: 21,
  num_attention_heads: 12,
  num_hidden_layers: 28,
  rope_theta: 10000,
  sliding_window: 4096,
};
const qwen3 = {
  ...common,
  attention_bias: false,
  bos_token_id: 151643,
  eos_token_id: 151645,
  head_dim: 128,
  max_position_embeddings: 40960,
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: null,
  use_sliding_window: false,
  vocab_size: 151936,
};

const published = {
  'Qwen2.5-Math-1.5B': {
    ...qwen15,
    max_position_embeddings: 4096,
    tie_word_embeddings: true,
  },
  'DeepSeek-R1-Distill-Qwen-1.5B': {
    ...qwen15,
    max_position_embeddings: 131072,
    tie_word_embeddings: false,
  },
  'Qwen2.5-0.5B': {
    ...qwen2,
    hidden_size: 896,
    intermediate_size: 4864,
    max_position_embeddings: 32768,
    max_window_layers: 24,
    num_attention_heads: 14,
    num_hidden_layers: 24,
    rope_theta: 1000000.0,
    sliding_window: 32768,
    tie_word_embeddings: true,
  },
  'Qwen3-0.6B': {
    ...qwen3,
    architectures: ['Qwen3ForCausalLM'],
    model_type: 'qwen3',
    hidden_size: 1024,
    intermediate_size: 3072,
    max_window_layers: 28,
    num_attention_heads: 16,
    num_hidden_layers: 28,
    num_key_value_heads: 8,
    tie_word_embeddings: true,
  },
  'Qwen3-30B-A3B': {
    ...qwen3,
    architectures: ['Qwen3MoeForCausalLM'],
    model_type: 'qwen3_moe',
    decoder_sparse_step: 1,
    hidden_size: 2048,
    intermediate_size: 6144,
    max_window_layers: 48,
    mlp_only_layers: [],
    moe_intermediate_size: 768,
    norm_topk_prob: true,
    num_attention_heads: 32,
    num_experts: 128,
    num_experts_per_tok: 8,
    num_hidden_layers: 48,
    num_key_value_heads: 4,
    output_router_logits: false,
    router_aux_loss_coef: 0.001,
    tie_word_embeddings: false,
  },
  'Llama-3.2-3B': {
    ...common,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    attention_bias: false,
    bos_token_id: 128000,
    eos_token_id: 128001,
    head_dim: 128,
    hidden_size: 3072,
    intermediate_size: 8192,
    max_position_embeddings: 131072,
    mlp_bias: false,
    num_attention_heads: 24,
    num_hidden_layers: 28,
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
    vocab_size: 128256,
  },
  'Mixtral-8x7B-v0.1': {
    ...common,
    architectures: ['MixtralForCausalLM'],
    model_type: 'mixtral',
    bos_token_id: 1,
    eos_token_id: 2,
    hidden_size: 4096,
    intermediate_size: 14336,
    max_position_embeddings: 32768,
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
    vocab_size: 32000,
  },
} as const;

/** By the pages of the models on the Hub. */
const parameters: Record<keyof typeof published, number> = {
  'Qwen2.5-Math-1.5B': 1_543_714_304,
  'DeepSeek-R1-Distill-Qwen-1.5B': 1_777_088_000,
  'Qwen2.5-0.5B': 494_032_768,
  'Qwen3-0.6B': 596_049_920,
  'Qwen3-30B-A3B': 30_532_122_624,
  'Llama-3.2-3B': 3_212_749_824,
  'Mixtral-8x7B-v0.1': 46_702_792_704,
};

/** What transformers 5 writes for the same model. */
function newer(source: Record<string, unknown>): Record<string, unknown> {
  const { torch_dtype: dtype, rope_theta, rope_scaling, num_experts, ...others } = source;
  const layers = source.num_hidden_layers as number;
  return {
    ...others,
    dtype,
    rope_parameters: { rope_type: 'default', ...(rope_scaling as object | null), rope_theta },
    pad_token_id: null,
    ...('use_sliding_window' in source && {
      sliding_window: null,
      layer_types: Array<string>(layers).fill('full_attention'),
    }),
    ...(num_experts !== undefined && { num_local_experts: num_experts }),
    ...(source.model_type === 'mixtral' && { head_dim: null, router_jitter_noise: 0.0 }),
  };
}

describe('config.json of a published model', () => {
  for (const [name, source] of Object.entries(published)) {
    it(`${name}, as transformers 4 and 5 write it`, () => {
      const { decoder, dtype } = parseHuggingFaceConfig(source);
      const count = publishedTensors(decoder).reduce(
        (sum, { shape }) => sum + shape.reduce((product, dim) => product * dim),
        0,
      );
      assert.equal(count, parameters[name as keyof typeof published]);
      assert.equal(dtype, 'bf16');
      assert.equal(decoder.ropeTheta, source.rope_theta);
      const again = parseHuggingFaceConfig(newer(source));
      assert.deepEqual([again.decoder, again.dtype], [decoder, dtype]);
    });
  }
});
