/**
 * The `config.json` of Hugging Face models, read and written. Names and defaults are those of the transformers library;
 * fields that do not change what a model computes are carried along unread.
 */
import { isDeepStrictEqual } from 'node:util';
import {
  attempt,
  checkBoolean,
  checkChoice,
  checkInteger,
  checkNumber,
  invalid,
  throwTogether,
} from '../errors.js';
import { isObject } from '../io/jsonFile.js';
import type { RopeScaling } from '../ops/rope.js';
import { floatDtypes, type NativeFloatDType } from '../tensor/dtype.js';
import { type DecoderConfig, type ResolvedDecoderConfig, resolveDecoderConfig } from './config.js';
import { composeMixtral, composeQwen3Moe, readMixtral, readQwen3Moe } from './huggingFaceMixtures.js';

/** The model types that can be loaded, with the architecture that each is called by. */
export const architectures = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
  qwen3_moe: 'Qwen3MoeForCausalLM',
  mixtral: 'MixtralForCausalLM',
} as const;
export type ModelType = keyof typeof architectures;

/** Model types whose classes have a norm of query and key heads. */
const withHeadNorms: readonly ModelType[] = ['qwen3', 'qwen3_moe'];
/** Model types whose query, key and value have no bias or always one, whatever the file says. */
const fixedBias: Partial<Record<ModelType, boolean>> = { qwen2: true, mixtral: false };

/** What Hugging Face calls our dtypes. */
const dtypeNames = { fp32: 'float32', fp16: 'float16', bf16: 'bfloat16' } as const;

/** Layers are listed one by one: a number that no model has would take all memory. */
const MOST_LAYERS = 65536;

type JsonObject = Readonly<Record<string, unknown>>;

/** A checked config.json. */
export interface HuggingFaceConfig {
  readonly modelType: ModelType;
  readonly decoder: ResolvedDecoderConfig;
  /** What the weights are said to be stored in; null where nothing is said. */
  readonly dtype: NativeFloatDType | null;
  /** The whole object as it was read. */
  readonly source: JsonObject;
}

/**
 * Checks a config.json and says what decoder it describes.
 *
 * @param where names the file in errors
 * @throws InvalidArgumentError that lists everything that is wrong or not supported; for an unknown architecture, the
 *   known ones
 */
export function parseHuggingFaceConfig(source: JsonObject, where = 'config.json'): HuggingFaceConfig {
  const modelType = readModelType(source, where);
  const errors: unknown[] = [];
  const integer = (name: string, fallback?: number, max?: number) =>
    attempt(errors, () => checkInteger(where, name, source[name] ?? fallback, 1, max));
  const boolean = (name: string) => attempt(errors, () => checkBoolean(where, name, source[name] ?? false));

  const hiddenSize = integer('hidden_size');
  const numLayers = integer('num_hidden_layers', undefined, MOST_LAYERS);
  const numHeads = integer('num_attention_heads');
  /** A field that follows from others where it is missing; where these are bad, they are told already. */
  const derived = (name: string, fallback: number | undefined) =>
    (source[name] ?? fallback) === undefined ? undefined : integer(name, fallback);
  const kvHeads = 'num_key_value_heads';
  // The Qwen classes have a default that fits one size of model: none is better than a wrong one.
  const numKvHeads = modelType === 'llama' ? derived(kvHeads, numHeads) : integer(kvHeads);
  const headDim = derived('head_dim', defaultHeadDim(modelType, hiddenSize, numHeads));
  attempt(errors, () => checkHeads(where, numHeads, numKvHeads, headDim));

  const biased = fixedBias[modelType] ?? boolean('attention_bias');
  const mixtral = modelType === 'mixtral';
  const described: Partial<Record<keyof DecoderConfig, unknown>> = {
    vocabSize: integer('vocab_size'),
    hiddenSize,
    intermediateSize: integer('intermediate_size'),
    numLayers,
    numHeads,
    numKvHeads,
    headDim,
    maxPositionEmbeddings: integer('max_position_embeddings'),
    ...readRope(source, where, errors, mixtral ? 1e6 : 1e4),
    rmsNormEps: attempt(errors, () =>
      checkNumber(where, 'rms_norm_eps', source.rms_norm_eps ?? (mixtral ? 1e-5 : 1e-6), 0),
    ),
    tieWordEmbeddings: boolean('tie_word_embeddings'),
    attentionBias: biased,
    // Behind the attention Qwen2's class has none.
    attentionOutBias: modelType === 'qwen2' ? false : biased,
    mlpBias: modelType === 'llama' ? boolean('mlp_bias') : false,
    qkNorm: withHeadNorms.includes(modelType),
    ...(mixtral && readMixtral(source, where, errors, numLayers)),
    ...(modelType === 'qwen3_moe' && readQwen3Moe(source, where, errors, numLayers)),
  };
  attempt(errors, () => checkChoice(where, 'hidden_act', source.hidden_act ?? 'silu', ['silu', 'swish']));
  attempt(errors, () => refuseSlidingWindow(source, where, modelType));
  attempt(errors, () => refuseQuantization(source, where));
  const dtype = attempt(errors, () => readDtype(source, where)) ?? null;
  throwTogether(where, errors);
  return { modelType, decoder: resolveDecoderConfig(described as unknown as DecoderConfig), dtype, source };
}

function readModelType({ architectures: listed, model_type: type }: JsonObject, where: string): ModelType {
  const byType = (Object.keys(architectures) as ModelType[]).find((key) => key === type);
  const name = Array.isArray(listed) && listed.length > 0 ? listed[0] : byType && architectures[byType];
  if (name === undefined && type !== undefined)
    refuseUnknown(where, 'model_type', type, Object.keys(architectures));
  const modelType = (Object.keys(architectures) as ModelType[]).find(
    (candidate) => architectures[candidate] === name,
  );
  if (modelType === undefined) refuseUnknown(where, 'architectures', name, Object.values(architectures));
  const architecture = architectures[modelType];
  if (type !== undefined && type !== modelType) {
    invalid(where, `model_type of ${architecture} to be ${modelType}`, type);
  }
  return modelType;
}

/** Without asking whether a near one was meant: Mistral is no slip for Mixtral. */
function refuseUnknown(where: string, name: string, value: unknown, known: readonly string[]): never {
  invalid(where, `${name} to be one of ${known.join(', ')}`, value);
}

function defaultHeadDim(modelType: ModelType, hiddenSize?: number, numHeads?: number): number | undefined {
  if (modelType === 'qwen3') return 128;
  return hiddenSize === undefined || numHeads === undefined ? undefined : hiddenSize / numHeads;
}

function checkHeads(where: string, numHeads?: number, numKvHeads?: number, headDim?: number): void {
  if (numHeads !== undefined && numKvHeads !== undefined && numHeads % numKvHeads !== 0) {
    invalid(where, `num_key_value_heads to divide num_attention_heads = ${numHeads}`, numKvHeads);
  }
  if (headDim !== undefined && (headDim % 2 !== 0 || headDim > 256)) {
    invalid(where, 'head_dim to be even and at most 256', headDim);
  }
}

const ropeKeys = [
  'rope_type',
  'type',
  'rope_theta',
  'factor',
  'low_freq_factor',
  'high_freq_factor',
  'original_max_position_embeddings',
  'partial_rotary_factor',
];

/** `rope_theta` and `rope_scaling`, or `rope_parameters`, which newer files have in place of both. */
function readRope(
  source: JsonObject,
  where: string,
  errors: unknown[],
  defaultTheta: number,
): { ropeTheta: number | undefined; ropeScaling: RopeScaling | null | undefined } {
  const name = isObject(source.rope_parameters) ? 'rope_parameters' : 'rope_scaling';
  const settings = source[name] ?? {};
  const ropeTheta = attempt(errors, () => {
    const inner = isObject(settings) ? settings.rope_theta : undefined;
    const theta = checkNumber(where, 'rope_theta', inner ?? source.rope_theta ?? defaultTheta, 1);
    const outer = source.rope_theta ?? theta;
    if (outer !== theta) invalid(where, `rope_theta to be ${name}.rope_theta = ${theta}`, outer);
    return theta;
  });
  const ropeScaling = attempt(errors, () => readScaling(settings, where, name));
  const partial = source.partial_rotary_factor ?? 1;
  attempt(errors, () => partial === 1 || invalid(where, 'partial_rotary_factor to be 1', partial));
  return { ropeTheta, ropeScaling };
}

function readScaling(settings: unknown, where: string, name: string): RopeScaling | null {
  if (!isObject(settings)) invalid(where, `${name} to be an object`, settings);
  const type = checkChoice(where, `${name}.rope_type`, settings.rope_type ?? settings.type ?? 'default', [
    'default',
    'linear',
    'llama3',
  ]);
  if ((settings.type ?? type) !== type) invalid(where, `${name}.type to be ${name}.rope_type`, settings.type);
  for (const key of Object.keys(settings)) checkChoice(where, `each field of ${name}`, key, ropeKeys);
  if ((settings.partial_rotary_factor ?? 1) !== 1) {
    invalid(where, `${name}.partial_rotary_factor to be 1`, settings.partial_rotary_factor);
  }
  if (type === 'default') return null;
  const errors: unknown[] = [];
  const number = (key: string, min: number) =>
    attempt(errors, () => checkNumber(where, `${name}.${key}`, settings[key], min)) ?? Number.NaN;
  const factor = number('factor', 1);
  if (type === 'linear') {
    throwTogether(where, errors);
    return { type, factor };
  }
  const lowFreqFactor = number('low_freq_factor', 0);
  const highFreqFactor = number('high_freq_factor', 0);
  if (lowFreqFactor === 0 || highFreqFactor <= lowFreqFactor) {
    const factors = [lowFreqFactor, highFreqFactor];
    attempt(errors, () => invalid(where, `0 < low_freq_factor < high_freq_factor in ${name}`, factors));
  }
  const original = 'original_max_position_embeddings';
  const originalMaxPositionEmbeddings =
    attempt(errors, () => checkInteger(where, `${name}.${original}`, settings[original], 1)) ?? Number.NaN;
  throwTogether(where, errors);
  return { type, factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings };
}

/** Attention to the nearest tokens alone, which the Qwen classes can be told to do in some layers, Mixtral in all. */
function refuseSlidingWindow(source: JsonObject, where: string, modelType: ModelType): void {
  const without = '(sliding windows are not supported)';
  const { layer_types: types } = source;
  const other = Array.isArray(types) ? types.find((type) => type !== 'full_attention') : undefined;
  if (other !== undefined)
    invalid(where, `layer_types to be full_attention in every layer ${without}`, other);
  const { sliding_window: window = null, max_position_embeddings: context } = source;
  if (modelType === 'mixtral' && window !== null) {
    const all = typeof context === 'number' ? context : Infinity;
    const reached = checkNumber(where, 'sliding_window', window);
    if (reached < all)
      invalid(
        where,
        `sliding_window to be null or at least max_position_embeddings = ${all} ${without}`,
        window,
      );
  }
  if (
    modelType.startsWith('qwen') &&
    checkBoolean(where, 'use_sliding_window', source.use_sliding_window ?? false)
  ) {
    invalid(where, `use_sliding_window to be false ${without}`, true);
  }
}

/** @throws InvalidArgumentError where a config.json says that its weights are quantised */
export function refuseQuantization({ quantization_config: quantization }: JsonObject, where: string): void {
  if (quantization === undefined || quantization === null) return;
  const method = isObject(quantization) ? quantization.quant_method : quantization;
  invalid(where, 'weights that are not quantised, without quantization_config', method ?? quantization);
}

function readDtype(source: JsonObject, where: string): NativeFloatDType | null {
  const name = source.dtype ?? source.torch_dtype ?? null;
  if (name === null) return null;
  const plain = typeof name === 'string' ? name.replace(/^torch\./, '') : name;
  const found = checkChoice(where, 'torch_dtype', plain, Object.values(dtypeNames));
  return floatDtypes.find((dtype) => dtypeNames[dtype] === found)!;
}

/**
 * The model type that a decoder is written as: of two that could have it, the one that says so in fewer words.
 *
 * @throws InvalidArgumentError where no known architecture has what this one has
 */
export function modelTypeOf(where: string, decoder: ResolvedDecoderConfig): ModelType {
  const { attentionBias, attentionOutBias, mlpBias, qkNorm, numExperts } = decoder;
  const biasesOfQwen2 = attentionBias && !attentionOutBias && !mlpBias;
  const dense = qkNorm ? 'qwen3' : biasesOfQwen2 ? 'qwen2' : 'llama';
  const modelType = numExperts === 0 ? dense : qkNorm ? 'qwen3_moe' : 'mixtral';
  const asIn = `as in ${architectures[modelType]}`;
  if (modelType !== 'qwen2' && attentionBias !== attentionOutBias) {
    invalid(where, `attentionOutBias to be attentionBias, ${asIn}`, attentionOutBias);
  }
  if (modelType !== 'llama' && mlpBias) invalid(where, `mlpBias to be false, ${asIn}`, mlpBias);
  if (modelType === 'mixtral') {
    const { intermediateSize, moeIntermediateSize, normalizeRouterWeights, denseLayers } = decoder;
    if (attentionBias) invalid(where, `attentionBias to be false, ${asIn}`, attentionBias);
    if (!normalizeRouterWeights) invalid(where, `normalizeRouterWeights to be true, ${asIn}`, false);
    if (denseLayers.length > 0) invalid(where, `no denseLayers, ${asIn}`, denseLayers);
    if (moeIntermediateSize !== intermediateSize)
      invalid(where, `moeIntermediateSize to be intermediateSize, ${asIn}`, moeIntermediateSize);
  }
  return modelType;
}

/**
 * The config.json of a decoder whose weights are stored in `dtype`.
 *
 * @param source of a model that this one was made from: its fields are carried over, its context included
 * @throws InvalidArgumentError where `source` describes another decoder, or no known architecture has what this one has
 */
export function composeHuggingFaceConfig(
  decoder: ResolvedDecoderConfig,
  dtype: NativeFloatDType,
  source?: JsonObject,
): Record<string, unknown> {
  const where = 'saveModel';
  if (source !== undefined) {
    const { maxPositionEmbeddings } = decoder;
    const described = { ...parseHuggingFaceConfig(source).decoder, maxPositionEmbeddings };
    const other = (Object.keys(decoder) as (keyof ResolvedDecoderConfig)[]).find(
      (field) => !isDeepStrictEqual(described[field], decoder[field]),
    );
    if (other) invalid(where, `config with the model's ${other} = ${decoder[other]}`, described[other]);
    return withDtype(source, dtype);
  }
  const { attentionBias, mlpBias, ropeScaling } = decoder;
  const modelType = modelTypeOf(where, decoder);
  return {
    architectures: [architectures[modelType]],
    model_type: modelType,
    vocab_size: decoder.vocabSize,
    hidden_size: decoder.hiddenSize,
    intermediate_size: decoder.intermediateSize,
    num_hidden_layers: decoder.numLayers,
    num_attention_heads: decoder.numHeads,
    num_key_value_heads: decoder.numKvHeads,
    head_dim: decoder.headDim,
    hidden_act: 'silu',
    max_position_embeddings: decoder.maxPositionEmbeddings,
    rope_theta: decoder.ropeTheta,
    rope_scaling: ropeScaling && composeScaling(ropeScaling),
    rms_norm_eps: decoder.rmsNormEps,
    tie_word_embeddings: decoder.tieWordEmbeddings,
    ...(fixedBias[modelType] === undefined && { attention_bias: attentionBias }),
    ...(modelType === 'llama' && { mlp_bias: mlpBias }),
    ...(modelType.startsWith('qwen') && { use_sliding_window: false }),
    ...(modelType === 'mixtral' && composeMixtral(decoder)),
    ...(modelType === 'qwen3_moe' && composeQwen3Moe(decoder)),
    torch_dtype: dtypeNames[dtype],
  };
}

/** A config.json, of any architecture, whose weights are stored in `dtype`. */
export function withDtype(source: JsonObject, dtype: NativeFloatDType): Record<string, unknown> {
  const name = dtypeNames[dtype];
  const changed = Object.entries(source).map(([key, value]) => {
    if (key === 'dtype' || key === 'torch_dtype') return [key, name];
    // The parts of a model of several have configs of their own, most often without a dtype.
    const inner = key.endsWith('_config') && isObject(value) && ('dtype' in value || 'torch_dtype' in value);
    return [key, inner ? withDtype(value, dtype) : value];
  });
  const known = 'dtype' in source || 'torch_dtype' in source;
  return Object.fromEntries(known ? changed : [...changed, ['torch_dtype', name]]);
}

function composeScaling(scaling: RopeScaling): JsonObject {
  const { type, factor } = scaling;
  if (type === 'linear') return { rope_type: type, factor };
  return {
    rope_type: type,
    factor,
    low_freq_factor: scaling.lowFreqFactor,
    high_freq_factor: scaling.highFreqFactor,
    original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
  };
}
