import { checkChoice, checkInteger, checkNumber, invalid } from '../errors.js';
import { checkRopeScaling, type RopeScaling } from '../ops/rope.js';

/** A decoder as Llama, Qwen2 and Qwen3 have it; the names are Hugging Face's, in camelCase. */
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
    tieWordEmbeddings: checkBoolean('tieWordEmbeddings', config.tieWordEmbeddings ?? false),
    attentionBias: checkBoolean('attentionBias', config.attentionBias ?? false),
    attentionOutBias: checkBoolean('attentionOutBias', config.attentionOutBias ?? false),
    mlpBias: checkBoolean('mlpBias', config.mlpBias ?? false),
    qkNorm: checkBoolean('qkNorm', config.qkNorm ?? false),
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
];

function checkBoolean(name: string, value: unknown): boolean {
  if (typeof value !== 'boolean') invalid('DecoderConfig', `${name} to be a boolean`, value);
  return value;
}
