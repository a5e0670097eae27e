/**
 * The state of a training run in a folder that is also a model's, in the layout of Hugging Face: what loads models loads
 * it.
 *
 * ```
 * config.json, model.safetensors (or shards)   the fp32 masters, under the names that other tools know; or of a model with
 * adapter_config.json, adapter_model.safetensors   an adapter that alone, as the PEFT library has it
 * tokenizer.json, generation_config.json, ...  of the model that the run began with
 * optimizer.safetensors                        AdamW's moments: `<parameter>.first` and `.second`
 * training.json                                optimizer step, loss scaler
 * ```
 */
import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { readJsonObject } from '../io/jsonFile.js';
import { openSafetensors, type SafetensorsEntry, writeSafetensors } from '../io/safetensors.js';
import { loadAdapterWeights, saveAdapter } from '../models/adapterFiles.js';

import { type CompanionFiles, writeCompanionFiles } from '../models/companionFiles.js';

import type { Decoder } from '../models/decoder.js';
import type { HuggingFaceConfig } from '../models/huggingFaceConfig.js';
import { loadWeights } from '../models/loadModel.js';
import { saveModel } from '../models/saveModel.js';
import type { Tensor } from '../tensor/tensor.js';
import type { TrainingEngine } from './engine.js';

const OPTIMIZER = 'optimizer.safetensors';
const STATE = 'training.json';

type NamedTensor = readonly [name: string, tensor: Tensor];

/** What the model of a checkpoint takes over from the one that a run began with. */
export interface CheckpointSource {
  readonly config?: HuggingFaceConfig;
  readonly files?: CompanionFiles;
  /** Its name or folder, which an adapter says it is of. */
  readonly path?: string;
}

/** Writes everything a training engine needs to go on to the same bits: masters, moments, steps, loss scaler. */
export async function saveCheckpoint(
  dir: string,
  model: Decoder,
  engine: TrainingEngine,
  { config, files, path }: CheckpointSource = {},
): Promise<void> {
  if (model.lora) await saveAdapter(dir, model, { baseModel: path ?? null });
  else await saveModel(dir, model, { dtype: 'fp32', ...(config && { config }) });
  if (files) await writeCompanionFiles(dir, files);
  const entries = moments(engine).map(
    ([name, t]): SafetensorsEntry => ({ name, dtype: 'F32', shape: t.shape, data: () => t.floats() }),
  );
  await writeSafetensors(join(dir, OPTIMIZER), entries);
  const state = { optimizerStep: engine.optimizer.step, lossScaler: engine.scaler.state() };
  await atomicWriteFile(join(dir, STATE), `${JSON.stringify(state, null, 2)}\n`);
}

/**
 * Restores what {@link saveCheckpoint} wrote, and brings the engine's weights up to date. A model with an adapter gets that
 * back; its own weights have to be those that it had.
 *
 * @throws InvalidArgumentError where the folder lacks a part, or has the state of another model
 */
export async function loadCheckpoint(dir: string, model: Decoder, engine: TrainingEngine): Promise<void> {
  const { optimizerStep, lossScaler } = await readJsonObject('loadCheckpoint', join(dir, STATE));
  await (model.lora ? loadAdapterWeights : loadWeights)(dir, model);
  await loadTensors(join(dir, OPTIMIZER), moments(engine));
  engine.optimizer.resume(optimizerStep as number);
  engine.scaler.load(lossScaler);
  engine.syncWeights();
}

function moments(engine: TrainingEngine): NamedTensor[] {
  return engine.optimizer.parameters.flatMap((p) => {
    const { first, second } = engine.optimizer.moments(p);
    return [
      [`${p.name}.first`, first],
      [`${p.name}.second`, second],
    ] as NamedTensor[];
  });
}

async function loadTensors(path: string, tensors: readonly NamedTensor[]): Promise<void> {
  const file = await openSafetensors(path);
  try {
    for (const [name, t] of tensors) {
      const info = file.tensors.get(name);
      const found = info ? `${info.dtype} [${info.shape.join(', ')}]` : 'no such tensor';
      const wanted = `F32 [${t.shape.join(', ')}]`;
      if (found !== wanted) {
        throw new InvalidArgumentError(
          `[loadCheckpoint] expected ${name} to be ${wanted} in ${path}, got ${found}`,
        );
      }
    }
    const known = new Set(tensors.map(([name]) => name));
    for (const name of file.tensors.keys()) {
      if (!known.has(name))
        throw new InvalidArgumentError(
          `[loadCheckpoint] expected only the optimizer's tensors in ${path}, got ${name}`,
        );
    }
    for (const [name, t] of tensors) t.upload(new Float32Array(await file.read(name)));
  } finally {
    await file.close();
  }
}
