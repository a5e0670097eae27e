/** The log-probs of a run's steps on disk, for corrections to be tried on without spending a run. */
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { InvalidArgumentError } from '../errors.js';
import { openSafetensors, writeSafetensors } from '../io/safetensors.js';
import type { StepLogprobs } from './trainer.js';

const FOLDER = 'logprobs';
const NAME = /^step-(\d{6,})\.safetensors$/;

/** What was recorded of one step. */
export interface StepRecording extends StepLogprobs {
  readonly step: number;
  /** [sequences] */
  readonly rewards: Float64Array;
}

/** Writes `logprobs/step-NNNNNN.safetensors` in a run's folder; the same step again replaces it. */
export async function writeRecording(
  directory: string,
  step: number,
  logprobs: StepLogprobs,
  rewards: readonly number[],
): Promise<void> {
  const folder = join(directory, FOLDER);
  await mkdir(folder, { recursive: true });
  const { offsets, rollout, old, current, mask, update, advantages } = logprobs;
  const entry = (
    name: string,
    dtype: 'F32' | 'F64' | 'I32' | 'U8',
    values: Float64Array | Int32Array | Uint8Array,
  ) => ({
    name,
    dtype,
    shape: [values.length],
    // The engines' log-probs are fp32 numbers: nothing is lost.
    data: async () => (dtype === 'F32' ? Float32Array.from(values) : values),
  });
  await writeSafetensors(join(folder, `step-${String(step).padStart(6, '0')}.safetensors`), [
    entry('offsets', 'I32', offsets),
    entry('rollout_logprobs', 'F32', rollout),
    entry('old_logprobs', 'F32', old),
    entry('logprobs', 'F32', current),
    entry('mask', 'U8', mask),
    entry('update', 'I32', update),
    entry('advantages', 'F64', advantages),
    entry('rewards', 'F64', Float64Array.from(rewards)),
  ]);
}

/** The steps that a run has recorded, in order. */
export async function recordedSteps(directory: string): Promise<number[]> {
  let names: string[];
  try {
    names = await readdir(join(directory, FOLDER));
  } catch {
    return [];
  }
  return names
    .flatMap((name) => NAME.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

/** @throws InvalidArgumentError on a file that is missing or damaged */
export async function readRecording(directory: string, step: number): Promise<StepRecording> {
  const path = join(directory, FOLDER, `step-${String(step).padStart(6, '0')}.safetensors`);
  const file = await openSafetensors(path);
  try {
    const raw = async (name: string, dtype: string): Promise<ArrayBuffer> => {
      const info = file.tensors.get(name);
      if (info?.dtype !== dtype) {
        throw new InvalidArgumentError(
          `[recording] expected ${name} of ${dtype} in ${path}, got ${info?.dtype}`,
        );
      }
      return file.read(name);
    };
    const floats = async (name: string) => Float64Array.from(new Float32Array(await raw(name, 'F32')));
    return {
      step,
      offsets: new Int32Array(await raw('offsets', 'I32')),
      rollout: await floats('rollout_logprobs'),
      old: await floats('old_logprobs'),
      current: await floats('logprobs'),
      mask: new Uint8Array(await raw('mask', 'U8')),
      update: new Int32Array(await raw('update', 'I32')),
      advantages: new Float64Array(await raw('advantages', 'F64')),
      rewards: new Float64Array(await raw('rewards', 'F64')),
    };
  } finally {
    await file.close();
  }
}
