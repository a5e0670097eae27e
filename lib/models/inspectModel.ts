/** What the folder of a model holds, from its small files and the headers of its weights: no weight is read. */
import { stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { checkIndex, INDEX, openCheckpoint, WHOLE } from '../io/checkpointFiles.js';
import { checkFolder, exists } from '../io/folder.js';
import { isObject, readJsonObject, readJsonObjectIfThere } from '../io/jsonFile.js';
import { lfsPointerSize } from '../io/regularFile.js';
import { loadChatTemplate } from '../text/chatTemplate.js';
import { readTokenizerConfig } from '../text/specialTokens.js';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.js';
import { type HuggingFaceConfig, parseHuggingFaceConfig } from './huggingFaceConfig.js';
import { EMBEDDING, HEAD, publishedTensors } from './huggingFaceTensors.js';
import { checkVocabulary } from './languageModel.js';
import { checkTensors, DERIVED } from './loadModel.js';

/** Numbers that are not told are null, throughout. */
export interface ModelInfo {
  readonly path: string;
  readonly modelType: string | null;
  readonly architecture: string | null;
  /** What config.json says weights are stored in. */
  readonly dtype: string | null;
  readonly sizes: ModelSizes;
  readonly ropeTheta: number | null;
  /** As config.json has it. */
  readonly ropeScaling: Readonly<Record<string, unknown>> | null;
  readonly tieWordEmbeddings: boolean;
  readonly parameters: ParameterCounts | null;
  readonly weights: StoredWeights;
  readonly memory: MemoryNeeds | null;
  readonly tokenizer: TokenizerInfo | null;
  /** The file of the chat template. */
  readonly chatTemplate: string | null;
  /** Why loadModel would not load it; empty where nothing speaks against that. Values are looked at as they are loaded. */
  readonly modelProblems: readonly string[];
  /** Why text would not go in and out. */
  readonly textProblems: readonly string[];
}

export interface ModelSizes {
  readonly numLayers: number | null;
  readonly hiddenSize: number | null;
  readonly intermediateSize: number | null;
  readonly numHeads: number | null;
  readonly numKvHeads: number | null;
  readonly headDim: number | null;
  readonly vocabSize: number | null;
  readonly maxPositionEmbeddings: number | null;
  /** Of a mixture of experts. */
  readonly numExperts: number | null;
  readonly numExpertsPerToken: number | null;
}

export interface ParameterCounts {
  readonly total: number;
  /** Of the embedding, and of a head that is not the embedding. */
  readonly embedding: number;
  /** Those that a token meets: all, but for a mixture of experts. */
  readonly active: number;
  /** Whether the weights' headers say so, or config.json alone. */
  readonly from: 'weights' | 'config';
}

export interface StoredWeights {
  readonly files: readonly WeightFile[];
  /** Bytes of all files; of a Git LFS pointer those of the file that it stands for. */
  readonly bytes: number;
  /** Values by stored dtype, where the headers could be read. */
  readonly dtypes: Readonly<Record<string, number>>;
}

export interface WeightFile {
  readonly name: string;
  readonly bytes: number;
  readonly state: 'present' | 'Git LFS pointer' | 'missing';
}

/** Bytes. */
export interface MemoryNeeds {
  /** fp32 masters. */
  readonly masters: number;
  /** A copy of all weights in 16 bits. */
  readonly snapshot: number;
  /** KV cache of one token in 16 bits. */
  readonly cachePerToken: number | null;
}

export interface TokenizerInfo {
  readonly kind: string;
  readonly vocabSize: number;
  readonly specialTokens: number;
  readonly bos: string | null;
  readonly pad: string | null;
  /** Ids that end a response, with their tokens. */
  readonly eos: readonly { readonly id: number; readonly token: string | null }[];
}

type JsonObject = Readonly<Record<string, unknown>>;

/** A tensor of the model, stored or expected. */
interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype?: string;
}

/**
 * Describes the folder of a model, as far as it can be read, and lists everything that keeps it from being loaded.
 *
 * @throws InvalidArgumentError where there is no such folder
 */
export async function inspectModel(dir: string): Promise<ModelInfo> {
  await checkFolder('inspectModel', 'the folder of a model', dir);
  const modelProblems: string[] = [];
  const textProblems: string[] = [];
  const configPath = join(dir, 'config.json');
  const source = (await attemptAsync(modelProblems, () => readJsonObject('config.json', configPath))) ?? {};
  const config =
    modelProblems.length === 0
      ? await attemptAsync(modelProblems, () => parseHuggingFaceConfig(source, configPath))
      : undefined;
  const { stored, weights } = await inspectWeights(dir, config, modelProblems);

  const field = fieldsOf(source);
  const tied = config?.decoder.tieWordEmbeddings ?? field('tie_word_embeddings') === true;
  const expected = config && publishedTensors(config.decoder);
  const sizes = sizesOf(field, config);
  const parameters =
    countParameters(stored, 'weights', tied, sizes) ?? countParameters(expected, 'config', tied, sizes);
  const tokenizer = await attemptAsync(textProblems, () => loadTokenizer(dir));
  if (config && tokenizer) await attemptAsync(textProblems, () => checkVocabulary(dir, config, tokenizer));
  const { ropeTheta, ropeScaling } = ropeOf(field);
  const { architectures } = source;
  return {
    path: dir,
    modelType: textOf(source.model_type),
    architecture: textOf(Array.isArray(architectures) ? architectures[0] : undefined),
    dtype: textOf(field('dtype') ?? field('torch_dtype')),
    sizes,
    ropeTheta,
    ropeScaling,
    tieWordEmbeddings: tied,
    parameters,
    weights,
    memory: parameters && memoryOf(parameters.total, sizes),
    tokenizer: tokenizer ? tokenizerInfo(tokenizer) : null,
    chatTemplate: (await attemptAsync(textProblems, () => chatTemplateOf(dir))) ?? null,
    modelProblems,
    // A file that is read twice is no worse for it.
    textProblems: [...new Set(textProblems)],
  };
}

/** What `body` returns; what is wrong with a file is added to `problems`, one by one. */
export async function attemptAsync<T>(
  problems: string[],
  body: () => T | Promise<T>,
): Promise<T | undefined> {
  try {
    return await body();
  } catch (error) {
    if (!(error instanceof InvalidArgumentError)) throw error;
    const parts = Array.isArray(error.cause) ? error.cause : [error];
    problems.push(...parts.map((part: Error) => part.message.replace(/^\[[^\]]*\] expected /, 'expected ')));
    return undefined;
  }
}

/** Fields of config.json; a model of several parts has those of the decoder in text_config. */
function fieldsOf(source: JsonObject): (name: string) => unknown {
  const inner = isObject(source.text_config) ? source.text_config : {};
  return (name) => source[name] ?? inner[name];
}

function numberOf(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}

function sizesOf(field: (name: string) => unknown, config: HuggingFaceConfig | undefined): ModelSizes {
  const number = (...names: string[]) => numberOf(names.map(field).find((value) => value !== undefined));
  const [hiddenSize, numHeads] = [number('hidden_size'), number('num_attention_heads')];
  return {
    numLayers: number('num_hidden_layers'),
    hiddenSize,
    intermediateSize: number('moe_intermediate_size', 'intermediate_size'),
    numHeads,
    numKvHeads: config?.decoder.numKvHeads ?? number('num_key_value_heads') ?? numHeads,
    headDim:
      config?.decoder.headDim ??
      number('head_dim') ??
      (hiddenSize !== null && numHeads !== null ? hiddenSize / numHeads : null),
    vocabSize: number('vocab_size'),
    maxPositionEmbeddings: number('max_position_embeddings'),
    numExperts: number('num_experts', 'num_local_experts', 'n_routed_experts'),
    numExpertsPerToken: number('num_experts_per_tok'),
  };
}

function ropeOf(field: (name: string) => unknown): Pick<ModelInfo, 'ropeTheta' | 'ropeScaling'> {
  const settings = field('rope_parameters') ?? field('rope_scaling');
  const { rope_theta: theta, ...scaling } = isObject(settings) ? settings : {};
  const type = scaling.rope_type ?? scaling.type ?? 'default';
  return {
    ropeTheta: numberOf(theta ?? field('rope_theta')),
    ropeScaling: type === 'default' ? null : scaling,
  };
}

async function inspectWeights(
  dir: string,
  config: HuggingFaceConfig | undefined,
  problems: string[],
): Promise<{ stored: NamedShape[] | undefined; weights: StoredWeights }> {
  const files = await weightFiles(dir);
  const weights = { files, bytes: files.reduce((sum, { bytes }) => sum + bytes, 0) };
  const opened = await attemptAsync(problems, () => openCheckpoint(dir));
  if (opened === undefined) return { stored: undefined, weights: { ...weights, dtypes: {} } };
  await using checkpoint = opened;
  if (config) {
    const { decoder } = config;
    await attemptAsync(problems, () =>
      checkTensors(checkpoint, publishedTensors(decoder), decoder.tieWordEmbeddings),
    );
  }
  const stored = [...checkpoint.tensors].map(([name, { shape, dtype }]) => ({ name, shape, dtype }));
  const dtypes: Record<string, number> = {};
  for (const { dtype, shape } of stored) dtypes[dtype] = (dtypes[dtype] ?? 0) + elements(shape);
  return { stored, weights: { ...weights, dtypes } };
}

/** The files of the weights, whatever is in them. */
async function weightFiles(dir: string): Promise<WeightFile[]> {
  const names = (await exists(join(dir, WHOLE))) ? [WHOLE] : await shardNames(join(dir, INDEX));
  return Promise.all(
    names.map(async (name): Promise<WeightFile> => {
      const path = join(dir, name);
      const entry = await stat(path).catch(() => undefined);
      if (!entry?.isFile()) return { name, bytes: 0, state: 'missing' };
      // That it cannot be read is openCheckpoint's to tell.
      const pointed = await lfsPointerSize(path).catch(() => undefined);
      if (pointed !== undefined) return { name, bytes: pointed, state: 'Git LFS pointer' };
      return { name, bytes: entry.size, state: 'present' };
    }),
  );
}

/** The files that an index names; none where it is missing or broken, which openCheckpoint tells. */
async function shardNames(index: string): Promise<string[]> {
  const problems: string[] = [];
  const object = await attemptAsync(problems, () => readJsonObjectIfThere('checkpoint', index));
  const shards = object && (await attemptAsync(problems, () => checkIndex(object, index)));
  return shards ? [...shards.keys()] : [];
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1);
}

function countParameters(
  tensors: readonly NamedShape[] | undefined,
  from: ParameterCounts['from'],
  tied: boolean,
  { numExperts, numExpertsPerToken }: ModelSizes,
): ParameterCounts | null {
  if (tensors === undefined) return null;
  let [total, embedding, experts] = [0, 0, 0];
  for (const { name, shape, dtype = 'F32' } of tensors) {
    // Buffers are no parameters, nor is a head that is the embedding one more.
    if (!/F\d/.test(dtype) || DERIVED.test(name) || (tied && name === HEAD)) continue;
    const count = elements(shape);
    total += count;
    if (name === EMBEDDING || name === HEAD) embedding += count;
    if (/\.experts\./.test(name)) experts += count;
  }
  const share = numExperts && numExpertsPerToken ? numExpertsPerToken / numExperts : 1;
  return { total, embedding, active: Math.round(total - experts * (1 - share)), from };
}

function memoryOf(parameters: number, { numLayers, numKvHeads, headDim }: ModelSizes): MemoryNeeds {
  const known = numLayers !== null && numKvHeads !== null && headDim !== null;
  return {
    masters: 4 * parameters,
    snapshot: 2 * parameters,
    // Keys and values of two bytes each.
    cachePerToken: known ? 2 * 2 * numLayers * numKvHeads * headDim : null,
  };
}

function tokenizerInfo(tokenizer: Tokenizer): TokenizerInfo {
  return {
    kind: 'BPE',
    vocabSize: tokenizer.vocabSize,
    specialTokens: [...tokenizer.addedTokens.values()].filter(({ special }) => special).length,
    bos: tokenizer.named.bos ?? null,
    pad: tokenizer.named.pad ?? null,
    eos: tokenizer.eosIds.map((id) => ({ id, token: tokenizer.idToToken(id) ?? null })),
  };
}

/** The file of a model's chat template; null where it has none. */
async function chatTemplateOf(dir: string): Promise<string | null> {
  const named = (await readTokenizerConfig(dir)).chat_template ?? null;
  const files = ['chat_template.jinja', 'chat_template.json'];
  const found = await Promise.all(files.map((name) => exists(join(dir, name))));
  if (named === null && !found.includes(true)) return null;
  return basename((await loadChatTemplate(dir)).path);
}
