import type { DecoderConfig } from '../../lib/models/config.js';
import { Decoder } from '../../lib/models/decoder.js';

/** Small, with nothing round about it: grouped-query attention, QKV bias, odd vocabulary. */
export const oddConfig: DecoderConfig = {
  vocabSize: 37,
  hiddenSize: 60,
  intermediateSize: 92,
  numLayers: 2,
  numHeads: 6,
  numKvHeads: 2,
  headDim: 10,
  maxPositionEmbeddings: 700,
  attentionBias: true,
};

/** Two mixtures of experts about a dense layer. */
export const mixtureFields = {
  numLayers: 3,
  numExperts: 7,
  numExpertsPerToken: 3,
  moeIntermediateSize: 36,
  denseLayers: [1],
} as const;

/** As Qwen3-MoE has it. */
export const mixtureConfig: DecoderConfig = {
  ...oddConfig,
  ...mixtureFields,
  attentionBias: false,
  qkNorm: true,
};

export function oddModel(overrides: Partial<DecoderConfig> = {}, seed = 7): Decoder {
  return new Decoder({ ...oddConfig, ...overrides }, { seed });
}

/** Token ids from a small generator of its own. */
export function randomTokens(count: number, vocabSize: number, seed: number): Int32Array {
  let state = (seed * 2654435761 + 12345) >>> 0;
  return Int32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 4294967296) * vocabSize);
  });
}
