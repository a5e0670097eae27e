import { isDeepStrictEqual } from 'node:util';
import { checkBoolean, checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';
import { checkRopeScaling, type RopeScaling } from '../ops/rope.js';

/**
 * A decoder as Llama, Qwen2 and Qwen3 have it, or with mixtures of experts as Qwen3-MoE and Mixtral; the names are Hugging
 * Face's, in camelCase.
 */
export interface DecoderConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  /** Key-value heads, a divisor of numHeads; default numHeads. */
  readonly numKvHeads?: number;
  /** Default hiddenSize / numHeads. */
  readonly headDim?: number;
  /** Longest sequence, prompt and response together. */
  readonly maxPositionEmbeddings: number;
  /** Base of the rotary frequencies; default 10000. */
  readonly ropeTheta?: number;
  /** How the rotary frequencies are scaled for longer texts; default null, not at all. */
  readonly ropeScaling?: RopeScaling | null;
  /** Default 1e-6. */
  readonly rmsNormEps?: number;
  /** Whether the head is the embedding; default false. */
  readonly tieWordEmbeddings?: boolean;
  /** Whether Q, K and V have a bias (Qwen2); default false. */
  readonly attentionBias?: boolean;
  /** Whether the projection behind the attention has a bias; default false. */
  readonly attentionOutBias?: boolean;
  /** Whether the projections of the feed-forward block have a bias; default false. */
  readonly mlpBias?: boolean;
  /** Whether each head of Q and K is normalised before its rotary positions (Qwen3); default false. */
  readonly qkNorm?: boolean;
  /** Experts of a mixture, which the feed-forward blocks then are; default 0, a dense model. */
  readonly numExperts?: number;
  /** Experts that each token goes to; of a mixture. */
  readonly numExpertsPerToken?: number;
  /** Width of an expert, as intermediateSize is that of a dense block; of a mixture, default intermediateSize. */
  readonly moeIntermediateSize?: number;
  /** Whether the weights of a token's experts sum to 1 (norm_topk_prob); of a mixture, default true. */
  readonly normalizeRouterWeights?: boolean;
  /** Layers of a mixture, from 0, that are dense all the same, rising; default none. */
  readonly denseLayers?: readonly number[];
}

/** Whether the feed-forward block of a layer is a mixture of experts. */
export function isMixtureLayer({ numExperts, denseLayers }: ResolvedDecoderConfig, layer: number): boolean {
  return numExperts > 0 && !denseLayers.includes(layer);
}

export type ResolvedDecoderConfig = Required<DecoderConfig>;

/**
 * Fills in defaults and checks every field.
 *
 * @throws InvalidArgumentError naming the field, what was expected and what was found
 */
export function resolveDecoderConfig(config: DecoderConfig): ResolvedDecoderConfig {
  const where = 'DecoderConfig';
  for (const name of Object.keys(config)) checkChoice(where, 'each field', name, fields);
  const vocabSize = checkInteger(where, 'vocabSize', config.vocabSize, 1);
  const hiddenSize = checkInteger(where, 'hiddenSize', config.hiddenSize, 1);
  const intermediateSize = checkInteger(where, 'intermediateSize', config.intermediateSize, 1);
  const numLayers = checkInteger(where, 'numLayers', config.numLayers, 1);
  const numHeads = checkInteger(where, 'numHeads', config.numHeads, 1);
  const numKvHeads = checkInteger(where, 'numKvHeads', config.numKvHeads ?? numHeads, 1, numHeads);
  if (numHeads % numKvHeads !== 0) invalid(where, `numKvHeads to divide numHeads = ${numHeads}`, numKvHeads);
  const headDim = checkInteger(where, 'headDim', config.headDim ?? hiddenSize / numHeads, 2, 256);
  if (headDim % 2 !== 0) invalid(where, 'headDim to be even (rotary positions turn pairs)', headDim);
  return {
    vocabSize,
    hiddenSize,
    intermediateSize,
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositionEmbeddings: checkInteger(where, 'maxPositionEmbeddings', config.maxPositionEmbeddings, 1),
    ropeTheta: checkNumber(where, 'ropeTheta', config.ropeTheta ?? 10000, 1),
    ropeScaling: config.ropeScaling ? checkRopeScaling(where, config.ropeScaling) : null,
    rmsNormEps: checkNumber(where, 'rmsNormEps', config.rmsNormEps ?? 1e-6, 0),
    tieWordEmbeddings: checkBoolean(where, 'tieWordEmbeddings', config.tieWordEmbeddings ?? false),
    attentionBias: checkBoolean(where, 'attentionBias', config.attentionBias ?? false),
    attentionOutBias: checkBoolean(where, 'attentionOutBias', config.attentionOutBias ?? false),
    mlpBias: checkBoolean(where, 'mlpBias', config.mlpBias ?? false),
    qkNorm: checkBoolean(where, 'qkNorm', config.qkNorm ?? false),
    ...resolveMixture(where, config, intermediateSize, numLayers),
  };
}

type Mixture = Pick<
  ResolvedDecoderConfig,
  'numExperts' | 'numExpertsPerToken' | 'moeIntermediateSize' | 'normalizeRouterWeights' | 'denseLayers'
>;

/** What a dense model has in the fields of a mixture. */
const noMixture: Mixture = {
  numExperts: 0,
  numExpertsPerToken: 0,
  moeIntermediateSize: 0,
  normalizeRouterWeights: false,
  denseLayers: [],
};

function resolveMixture(
  where: string,
  config: DecoderConfig,
  intermediateSize: number,
  numLayers: number,
): Mixture {
  // Routers choose among as many as 16 bits can tell apart.
  const numExperts = checkInteger(where, 'numExperts', config.numExperts ?? 0, 0, 65536);
  if (numExperts === 0) {
    for (const [name, none] of Object.entries(noMixture)) {
      const value = config[name as keyof Mixture] ?? none;
      if (!isDeepStrictEqual(value, none)) invalid(where, `${name} only beside numExperts above 0`, value);
    }
    return noMixture;
  }
  if (config.mlpBias) invalid(where, 'mlpBias to be false in a mixture of experts', true);
  const denseLayers = config.denseLayers ?? [];
  if (!Array.isArray(denseLayers)) invalid(where, 'denseLayers to be an array', denseLayers);
  for (const [i, layer] of denseLayers.entries()) {
    checkInteger(where, `denseLayers[${i}]`, layer, i === 0 ? 0 : denseLayers[i - 1] + 1, numLayers - 1);
  }
  if (denseLayers.length === numLayers) invalid(where, 'a layer that is not among denseLayers', denseLayers);
  const { numExpertsPerToken, moeIntermediateSize = intermediateSize } = config;
  return {
    numExperts,
    numExpertsPerToken: checkInteger(where, 'numExpertsPerToken', numExpertsPerToken, 1, numExperts),
    moeIntermediateSize: checkInteger(where, 'moeIntermediateSize', moeIntermediateSize, 1),
    normalizeRouterWeights: checkBoolean(
      where,
      'normalizeRouterWeights',
      config.normalizeRouterWeights ?? true,
    ),
    denseLayers: [...denseLayers],
  };
}

const fields: readonly string[] = [
  'vocabSize',
  'hiddenSize',
  'intermediateSize',
  'numLayers',
  'numHeads',
  'numKvHeads',
  'headDim',
  'maxPositionEmbeddings',
  'ropeTheta',
  'ropeScaling',
  'rmsNormEps',
  'tieWordEmbeddings',
  'attentionBias',
  'attentionOutBias',
  'mlpBias',
  'qkNorm',
  ...Object.keys(noMixture),
];
