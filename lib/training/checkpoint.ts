import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { atomicWriteFile } from '../io/atomicWrite.js';
import { openSafetensors, type SafetensorsEntry, writeSafetensors } from '../io/safetensors.js';
import { loadAdapterWeights, saveAdapter } from '../models/adapterFiles.js';
import type { Decoder } from '../models/decoder.js';
import type { Tensor } from '../tensor/tensor.js';
import type { TrainingEngine } from './engine.js';

const WEIGHTS = 'model.safetensors';
const OPTIMIZER = 'optimizer.safetensors';
const STATE = 'training.json';

type NamedTensor = readonly [name: string, tensor: Tensor];

/** The fp32 masters of a model, by name. */
function masters(model: Decoder): NamedTensor[] {
  return model.parameters.map((p) => [p.name, p.master]);
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

/** Writes the fp32 masters to one safetensors file, atomically. */
export async function saveWeights(path: string, model: Decoder): Promise<void> {
  await saveTensors(path, masters(model));
}

/**
 * Reads masters back; engines must sync their weights afterwards.
 *
 * @throws InvalidArgumentError on a missing, extra or misshapen tensor, before anything is changed
 */
export async function loadWeights(path: string, model: Decoder): Promise<void> {
  await loadTensors(path, masters(model));
}

/**
 * Writes everything a training engine needs to go on to the same bits: masters (of a model with an adapter, that alone, as
 * {@link saveAdapter} does), moments, steps, loss scaler.
 */
export async function saveCheckpoint(dir: string, model: Decoder, engine: TrainingEngine): Promise<void> {
  if (model.lora) await saveAdapter(dir, model);
  else await saveTensors(join(dir, WEIGHTS), masters(model));
  await saveTensors(join(dir, OPTIMIZER), moments(engine));
  const state = { optimizerStep: engine.optimizer.step, lossScaler: engine.scaler.state() };
  await atomicWriteFile(join(dir, STATE), `${JSON.stringify(state, null, 2)}\n`);
}

/** Restores what {@link saveCheckpoint} wrote, and brings the engine's weights up to date. */
export async function loadCheckpoint(dir: string, model: Decoder, engine: TrainingEngine): Promise<void> {
  const path = join(dir, STATE);
  let state: { optimizerStep: number; lossScaler: unknown };
  try {
    state = JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    throw new InvalidArgumentError(`[loadCheckpoint] expected ${path} to be readable JSON`, { cause });
  }
  if (model.lora) await loadAdapterWeights(dir, model);
  else await loadTensors(join(dir, WEIGHTS), masters(model));
  await loadTensors(join(dir, OPTIMIZER), moments(engine));
  engine.optimizer.resume(state.optimizerStep);
  engine.scaler.load(state.lossScaler);
  engine.syncWeights();
}

async function saveTensors(path: string, tensors: readonly NamedTensor[]): Promise<void> {
  const entries = tensors.map(
    ([name, t]): SafetensorsEntry => ({ name, dtype: 'F32', shape: t.shape, data: () => t.floats() }),
  );
  await writeSafetensors(path, entries);
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
          `[loadWeights] expected ${name} to be ${wanted} in ${path}, got ${found}`,
        );
      }
    }
    const known = new Set(tensors.map(([name]) => name));
    for (const name of file.tensors.keys()) {
      if (!known.has(name))
        throw new InvalidArgumentError(
          `[loadWeights] expected only the model's tensors in ${path}, got ${name}`,
        );
    }
    for (const [name, t] of tensors) t.upload(new Float32Array(await file.read(name)));
  } finally {
    await file.close();
  }
}
