import { join } from 'node:path';
import { attempt, checkInteger, invalid, throwTogether } from '../errors.js';
import { type CheckpointFiles, listNames, openCheckpoint } from '../io/checkpointFiles.js';
import { checkFolder, exists } from '../io/folder.js';
import { readJsonObject } from '../io/jsonFile.js';
import { gradientStats } from '../ops/gradStats.js';
import { cast, type Tensor, tensorFromBits } from '../tensor/tensor.js';
import type { ResolvedDecoderConfig } from './config.js';
import { Decoder } from './decoder.js';
import { type HuggingFaceConfig, parseHuggingFaceConfig } from './huggingFaceConfig.js';
import {
  CHUNK_BYTES,
  EMBEDDING,
  HEAD,
  masterRows,
  type PublishedTensor,
  publishedTensors,
  storedDtypeOf,
} from './huggingFaceTensors.js';

/** Buffers that old versions of transformers stored beside the weights; they follow from the config. */
export const DERIVED = /(^|\.)rotary_emb\.inv_freq$/;

/** A model as it was found in a folder. */
export interface LoadedModel {
  /** The caller's, to dispose of. */
  readonly model: Decoder;
  readonly config: HuggingFaceConfig;
}

export interface LoadOptions {
  /** Longest sequence that the model is to be used for, where that is less than its config says: tables get as long. */
  readonly maxLength?: number;
}

/**
 * Reads and checks the `config.json` of a model folder.
 *
 * @throws InvalidArgumentError where there is none, or for whatever it is that cannot be loaded
 */
export async function readHuggingFaceConfig(dir: string): Promise<HuggingFaceConfig> {
  await checkFolder('loadModel', 'the folder of a model', dir);
  const path = join(dir, 'config.json');
  if (!(await exists(path)) && (await exists(join(dir, 'adapter_config.json')))) {
    invalid('loadModel', `config.json in ${dir}`, 'an adapter alone (load its model, and it over that)');
  }
  return parseHuggingFaceConfig(await readJsonObject('config.json', path), path);
}

/**
 * Loads a Hugging Face checkpoint (Llama, Qwen2, Qwen3, Qwen3-MoE, Mixtral): `config.json`, and weights in F32, F16 or BF16 from
 * `model.safetensors` or its shards, as fp32 masters. Beyond these it takes a few megabytes of memory.
 *
 * Names, shapes and dtypes of all tensors are checked before any is read; values as they are read.
 *
 * @throws InvalidArgumentError that lists what is wrong: a config that cannot be loaded; tensors that are missing, or no
 *   part of the model, or of another shape (expected and found) or dtype; a tensor with NaN or infinite values
 */
export async function loadModel(dir: string, options: LoadOptions = {}): Promise<LoadedModel> {
  const config = await readHuggingFaceConfig(dir);
  const { maxPositionEmbeddings } = config.decoder;
  const maxLength = checkInteger(
    'loadModel',
    'maxLength',
    options.maxLength ?? maxPositionEmbeddings,
    1,
    maxPositionEmbeddings,
  );
  await using files = await openCheckedWeights(dir, config.decoder);
  const model = new Decoder({ ...config.decoder, maxPositionEmbeddings: maxLength }, { seed: null });
  try {
    await readWeights(files, model);
    return { model, config };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/**
 * Reads the weights of a checkpoint into a model that is there already; engines must sync theirs afterwards.
 *
 * @throws InvalidArgumentError as {@link loadModel} does; before anything is changed, unless a value is at fault
 */
export async function loadWeights(dir: string, model: Decoder): Promise<void> {
  await using files = await openCheckedWeights(dir, model.config);
  await readWeights(files, model);
}

/**
 * Checks names, shapes and dtypes of a checkpoint's weights, which headers tell; no value is read.
 *
 * @throws InvalidArgumentError as {@link loadModel} does
 */
export async function checkWeights(dir: string, decoder: ResolvedDecoderConfig): Promise<void> {
  await (await openCheckedWeights(dir, decoder)).close();
}

/** The files of a checkpoint whose headers are what a decoder needs. */
async function openCheckedWeights(dir: string, decoder: ResolvedDecoderConfig): Promise<CheckpointFiles> {
  const files = await openCheckpoint(dir);
  try {
    const tied = decoder.tieWordEmbeddings;
    checkTensors(files, publishedTensors(decoder), tied);
    if (tied && files.tensors.has(HEAD)) await checkTiedHead(files);
    return files;
  } catch (error) {
    await files.close();
    throw error;
  }
}

async function readWeights(files: CheckpointFiles, model: Decoder): Promise<void> {
  const masters = new Map(model.parameters.map(({ name, master }) => [name, master]));
  for (const tensor of publishedTensors(model.config)) {
    await readInto('loadModel', masters.get(tensor.parameter)!, tensor, files);
  }
}

/** Checks everything that the headers of a model tell. */
export function checkTensors(
  files: CheckpointFiles,
  expected: readonly PublishedTensor[],
  tied: boolean,
): void {
  expectTensors('loadModel', files, expected, (name) => DERIVED.test(name) || (tied && name === HEAD));
}

/** Files of tensors, of a model or of an adapter. */
type StoredTensors = Pick<CheckpointFiles, 'path' | 'tensors' | 'read'>;

/**
 * Checks that files have the tensors that are expected.
 *
 * @param ignored says which may be there beside these
 * @throws InvalidArgumentError listing tensors that are missing, not expected, misshapen or of another dtype
 */
export function expectTensors(
  where: string,
  files: StoredTensors,
  expected: readonly PublishedTensor[],
  ignored: (name: string) => boolean = () => false,
): void {
  const errors: unknown[] = [];
  const check = (what: string, problems: readonly string[], found = '') => {
    if (problems.length > 0) attempt(errors, () => invalid(where, what, found + listNames(problems)));
  };
  const known = new Set(expected.map(({ name }) => name));
  const missing = [...known].filter((name) => !files.tensors.has(name));
  check(`all tensors of the model in ${files.path}`, missing, 'no ');
  const extra = [...files.tensors.keys()].filter((name) => !known.has(name) && !ignored(name));
  check(`no tensors but the model's in ${files.path}`, extra);
  const misshapen: string[] = [];
  const mistyped: string[] = [];
  for (const { name, shape } of expected) {
    const info = files.tensors.get(name);
    if (!info) continue;
    const [wanted, found] = [shape, info.shape].map((dims) => `[${dims.join(', ')}]`);
    if (found !== wanted) misshapen.push(`${name} of ${found} in place of ${wanted}`);
    if (storedDtypeOf(info.dtype) === undefined) mistyped.push(`${name} in ${info.dtype}`);
  }
  check('tensors of the shapes that the config asks for', misshapen);
  check('tensors in F32, F16 or BF16', mistyped);
  throwTogether(where, errors);
}

/** A head beside the embedding that it is said to be has to be the embedding: tools differ in which of two they take. */
async function checkTiedHead(files: CheckpointFiles): Promise<void> {
  const [head, embedding] = [files.tensors.get(HEAD)!, files.tensors.get(EMBEDDING)!];
  let same = head.dtype === embedding.dtype && head.bytes === embedding.bytes;
  for (let begin = 0; same && begin < head.bytes; begin += CHUNK_BYTES) {
    const range = { begin, end: Math.min(begin + CHUNK_BYTES, head.bytes) };
    const [a, b] = [await files.read(HEAD, range), await files.read(EMBEDDING, range)];
    same = Buffer.from(a).equals(Buffer.from(b));
  }
  if (!same)
    invalid('loadModel', `${HEAD} to be ${EMBEDDING}, as tie_word_embeddings says`, 'another tensor');
}

/**
 * Reads a tensor into its rows of a master, piece by piece.
 *
 * @throws InvalidArgumentError naming a tensor with NaN or infinite values
 */
export async function readInto(
  where: string,
  master: Tensor,
  { name, shape: [rows = 0], row }: PublishedTensor,
  files: StoredTensors,
): Promise<void> {
  const info = files.tensors.get(name)!;
  const dtype = storedDtypeOf(info.dtype)!;
  const rowBytes = info.bytes / rows;
  const step = Math.max(1, Math.floor(CHUNK_BYTES / rowBytes));
  for (let begin = 0; begin < rows; begin += step) {
    const end = Math.min(begin + step, rows);
    const bytes = await files.read(name, { begin: begin * rowBytes, end: end * rowBytes });
    using part = masterRows(master, row + begin, row + end);
    if (dtype === 'fp32') {
      part.upload(new Float32Array(bytes));
    } else {
      using stored = tensorFromBits(new Uint16Array(bytes), part.shape, dtype);
      cast(stored, 'fp32', part);
    }
    // The wait for it also keeps no more than one piece on its way.
    const { nonFinite } = await gradientStats([[name, part]]);
    if (nonFinite > 0) invalid(where, `finite values in ${name}`, `${nonFinite} NaN or infinite`);
  }
}
