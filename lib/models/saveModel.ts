import { join } from 'node:path';
import { checkChoice, invalid } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { checkNoModel, writeCheckpoint } from '../io/checkpointFiles.js';
import { makeFolder } from '../io/folder.js';
import { gradientStats } from '../ops/gradStats.js';
import { bytesPerElement, floatDtypes, type NativeFloatDType } from '../tensor/dtype.js';
import { cast, type Tensor } from '../tensor/tensor.js';
import type { Decoder } from './decoder.js';
import { composeHuggingFaceConfig, type HuggingFaceConfig } from './huggingFaceConfig.js';
import {
  CHUNK_BYTES,
  masterRows,
  type PublishedTensor,
  publishedTensors,
  storedDtypes,
} from './huggingFaceTensors.js';

export interface SaveOptions {
  /** What the fp32 masters are rounded to (to nearest even) and stored in. */
  readonly dtype: NativeFloatDType;
  /** Of the model that this one was loaded as: what it says beside the architecture is carried over. */
  readonly config?: HuggingFaceConfig;
  /** Most bytes of tensors in one file; default 5 GB. */
  readonly maxShardBytes?: number;
}

/**
 * Writes a model as a Hugging Face checkpoint: `config.json`, and `model.safetensors` or shards and their index, with the
 * names and shapes that {@link loadModel} and other tools read. The folder (made where it is missing) has a model only
 * once all of it is there. In fp32 what is loaded again has the same bits.
 *
 * @throws InvalidArgumentError where the model has an adapter or the folder a model already, the config is another model's, or a weight is too
 *   large for the dtype, naming its tensor
 */
export async function saveModel(dir: string, model: Decoder, options: SaveOptions): Promise<void> {
  const { config, maxShardBytes } = options;
  if (model.lora)
    invalid('saveModel', 'a model without an adapter (mergeLora it, or saveAdapter)', 'one with an adapter');
  const dtype = checkChoice('saveModel', 'dtype', options.dtype, floatDtypes);
  const described = composeHuggingFaceConfig(model.config, dtype, config?.source);
  const masters = new Map(model.parameters.map(({ name, master }) => [name, master]));
  const entries = publishedTensors(model.config).map((tensor) => ({
    name: tensor.name,
    dtype: storedDtypes[dtype],
    shape: tensor.shape,
    data: () => pieces('saveModel', masters.get(tensor.parameter)!, tensor, dtype),
  }));
  await checkNoModel('saveModel', dir);
  await makeFolder(dir);
  await atomicWriteFile(join(dir, 'config.json'), `${JSON.stringify(described, null, 2)}\n`);
  await writeCheckpoint(dir, entries, maxShardBytes === undefined ? {} : { maxShardBytes });
}

/**
 * The stored bits of a tensor's rows of a master.
 *
 * @throws InvalidArgumentError naming a tensor with values that the dtype has no finite number for
 */
export async function* pieces(
  where: string,
  master: Tensor,
  { name, shape: [rows = 0, columns = 1], row }: PublishedTensor,
  dtype: NativeFloatDType,
): AsyncGenerator<ArrayBufferView> {
  const step = Math.max(1, Math.floor(CHUNK_BYTES / (columns * bytesPerElement(dtype))));
  for (let begin = 0; begin < rows; begin += step) {
    using part = masterRows(master, row + begin, row + Math.min(begin + step, rows));
    using rounded = cast(part, dtype);
    const { nonFinite } = await gradientStats([[name, rounded]]);
    if (nonFinite > 0)
      invalid(where, `${name} to have finite values in ${dtype}`, `${nonFinite} NaN or infinite`);
    yield await rounded.bits();
  }
}
