import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { Parameter } from '../autograd/parameter.js';
import { checkChoice, invalid } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { exists, makeFolder } from '../io/folder.js';
import { readJsonObject } from '../io/jsonFile.js';
import { openSafetensors, type SafetensorsFile, writeSafetensors } from '../io/safetensors.js';
import { type LoraAdapter, type LoraConfig, resolveLoraConfig } from '../nn/lora.js';
import { floatDtypes, type NativeFloatDType } from '../tensor/dtype.js';
import type { ResolvedDecoderConfig } from './config.js';
import type { Decoder } from './decoder.js';
import { type PublishedTensor, storedDtypes } from './huggingFaceTensors.js';
import { expectTensors, readInto } from './loadModel.js';
import { addLora, loraTensors, modelTargets, removeLora } from './lora.js';
import { composePeftConfig, parsePeftConfig } from './peftConfig.js';
import { pieces } from './saveModel.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
/** Weights that were saved as Python objects, which would have to be executed to be read. */
const PICKLE = 'adapter_model.bin';

/**
 * Gives a model the adapter that a folder holds as the PEFT library writes it: `adapter_config.json`, and A and B in F32,
 * F16 or BF16 in `adapter_model.safetensors`. See addLora for what becomes of the model.
 *
 * @throws InvalidArgumentError that lists what is wrong, the model unchanged: a file that is missing or broken; a setting
 *   that is not supported; tensors that are missing, or no part of the adapter, or of another shape (expected and found)
 *   or dtype; a tensor with NaN or infinite values; a model with an adapter
 */
export async function loadAdapter(dir: string, model: Decoder): Promise<LoraAdapter> {
  const where = 'loadAdapter';
  await using stored = await openAdapter(where, dir);
  const adapter = addLora(model, stored.config, { seed: null });
  try {
    await readAdapter(where, stored.file, adapter);
    return adapter;
  } catch (error) {
    removeLora(model);
    throw error;
  }
}

/**
 * Reads A and B of a folder that {@link saveAdapter} wrote into the adapter that a model has, such as to go on training it;
 * engines must sync their weights afterwards.
 *
 * @throws InvalidArgumentError as for {@link loadAdapter}, for a model without an adapter, and where the folder's has other
 *   settings; nothing has changed then, unless it is for values that are not finite
 */
export async function loadAdapterWeights(dir: string, model: Decoder): Promise<void> {
  const where = 'loadAdapterWeights';
  const { lora } = model;
  if (!lora) invalid(where, 'a model with an adapter', 'one without');
  await using stored = await openAdapter(where, dir);
  const found = resolveLoraConfig(where, { targets: modelTargets(model.config), ...stored.config });
  for (const [name, value] of Object.entries(lora.config)) {
    const other: unknown = found[name as keyof LoraConfig];
    if (!isDeepStrictEqual(other, value)) {
      invalid(where, `${join(dir, CONFIG)} to have the adapter's ${name} = ${value}`, other);
    }
  }
  await readAdapter(where, stored.file, lora);
}

/**
 * Checks an adapter's folder against the model that it is for, before that is loaded: settings, and names, shapes and
 * dtypes of tensors.
 *
 * @throws InvalidArgumentError as {@link loadAdapter} does, but for values
 */
export async function checkAdapter(dir: string, model: ResolvedDecoderConfig): Promise<void> {
  const where = 'loadAdapter';
  await using stored = await openAdapter(where, dir);
  expectTensors(where, stored.file, storedTensors(loraTensors(where, model, stored.config)));
}

interface StoredAdapter extends AsyncDisposable {
  readonly config: LoraConfig;
  readonly file: SafetensorsFile;
}

async function openAdapter(where: string, dir: string): Promise<StoredAdapter> {
  const path = join(dir, CONFIG);
  const config = parsePeftConfig(await readJsonObject(where, path), path);
  if (!(await exists(join(dir, WEIGHTS))) && (await exists(join(dir, PICKLE)))) {
    invalid(where, `${WEIGHTS} in ${dir}`, `${PICKLE} alone (save the adapter as safetensors)`);
  }
  const file = await openSafetensors(join(dir, WEIGHTS));
  return { config, file, [Symbol.asyncDispose]: () => file.close() };
}

async function readAdapter(where: string, file: SafetensorsFile, adapter: LoraAdapter): Promise<void> {
  const tensors = storedTensors(adapter.parameters);
  expectTensors(where, file, tensors);
  for (const [i, tensor] of tensors.entries()) {
    await readInto(where, adapter.parameters[i]!.master, tensor, file);
  }
}

export interface SaveAdapterOptions {
  /** What A and B are rounded to (to nearest even) and stored in; default fp32, which keeps their bits. */
  readonly dtype?: NativeFloatDType;
  /** Name or folder of the model that the adapter is of, for other tools to find it; default null. */
  readonly baseModel?: string | null;
}

/**
 * Writes a model's adapter as the PEFT library does, for {@link loadAdapter} and other tools; the folder is made where it is
 * missing.
 *
 * @throws InvalidArgumentError for a model without an adapter, where the folder has an adapter already, or a value is too
 *   large for the dtype, naming its tensor
 */
export async function saveAdapter(
  dir: string,
  model: Decoder,
  options: SaveAdapterOptions = {},
): Promise<void> {
  const where = 'saveAdapter';
  const { baseModel = null } = options;
  const dtype = checkChoice(where, 'dtype', options.dtype ?? 'fp32', floatDtypes);
  const { lora } = model;
  if (!lora) invalid(where, 'a model with an adapter', 'one without');
  if (await exists(join(dir, WEIGHTS))) invalid(where, `a folder without ${WEIGHTS}`, dir);
  await makeFolder(dir);
  const config = composePeftConfig(lora.config, baseModel);
  await atomicWriteFile(join(dir, CONFIG), `${JSON.stringify(config, null, 2)}\n`);
  const entries = storedTensors(lora.parameters).map((tensor, i) => ({
    name: tensor.name,
    dtype: storedDtypes[dtype],
    shape: tensor.shape,
    data: () => pieces(where, lora.parameters[i]!.master, tensor, dtype),
  }));
  await writeSafetensors(join(dir, WEIGHTS), entries, { format: 'pt' });
}

/** An adapter's parameters as they are called in files. */
function storedTensors(parameters: readonly Pick<Parameter, 'name' | 'shape'>[]): PublishedTensor[] {
  return parameters.map(({ name, shape }) => ({
    name: `base_model.model.${name}`,
    shape,
    parameter: name,
    row: 0,
  }));
}
