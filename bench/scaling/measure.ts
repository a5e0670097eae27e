/** Times and memory of the engines, as the scaling run asks for them. */
import { DecodeStep } from '../../lib/rollout/decodeStep.js';
import { memory, trimMemory } from '../../lib/runtime.js';
import type { NativeFloatDType } from '../../lib/tensor/dtype.js';
import { statistics } from '../measure.js';
import {
  crossEntropy,
  generator,
  type ModelSize,
  randomPrompts,
  randomSequences,
  trainee,
} from '../model.js';
import { replaysOf } from '../replays.js';

async function milliseconds(body: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await body();
  return performance.now() - start;
}

/** Tokens that a timed generation decodes, in two lots. */
export const newTokens = 2 * DecodeStep.maxSteps;
const repeats = 3;
/** Longer prompts are run once, and warm up as they go. */
const longPrompt = 4096;

/** Tokens a second of the pass over the prompts, and of the decode steps behind it. */
export async function generationRates(
  size: ModelSize,
  dtype: NativeFloatDType,
  batch: number,
  promptLength: number,
): Promise<{ prefill: number; decode: number }> {
  using owner = generator(size, dtype, batch, promptLength + newTokens + 1);
  const requests = randomPrompts(size, batch, promptLength);
  const prefills: number[] = [];
  const decodes: number[] = [];
  for (let i = 0; i < (promptLength > longPrompt ? 1 : repeats); i++) {
    const start = performance.now();
    const replays = await replaysOf(() =>
      owner.engine.generate(requests, { seed: 1, maxNewTokens: newTokens + 1 }),
    );
    // The second lot of steps is queued as soon as the pass over the prompts is done.
    const prefilled = replays[DecodeStep.maxSteps]!.at;
    prefills.push(prefilled - start);
    decodes.push(performance.now() - prefilled);
  }
  return {
    prefill: (1e3 * batch * promptLength) / statistics(prefills).minMs,
    decode: (1e3 * batch * newTokens) / statistics(decodes).medianMs,
  };
}

/** Tokens a second of optimizer steps. */
export async function trainingRateOf(
  size: ModelSize,
  dtype: NativeFloatDType,
  batch: number,
  length: number,
): Promise<number> {
  using owner = trainee(size, dtype, length + 1, batch * length);
  const sequences = randomSequences(size, batch, length);
  const step = () => milliseconds(() => owner.engine.step(sequences, crossEntropy(batch * length)));
  await step();
  const times: number[] = [];
  for (let i = 0; i < repeats; i++) times.push(await step());
  return (1e3 * batch * length) / statistics(times).medianMs;
}

/** Bytes of cache a token, from two engines whose caches differ. */
export function kvBytesMeasured(size: ModelSize, dtype: NativeFloatDType): number {
  const bytes = [256, 4096].map((length) => {
    using _owner = generator(size, dtype, 1, length);
    return memory().bytes;
  });
  // Rotary tables (fp32, a cosine and a sine a pair) and block tables (int32 a page) grow with the length, too.
  const tables = 4 * (size.hidden / size.heads) + 4 / 16;
  return (bytes[1]! - bytes[0]!) / (4096 - 256) - tables;
}

/** Bytes that a token of a micro-batch takes at the peak of a step, from two steps of different lengths. */
export async function trainingBytesMeasured(size: ModelSize, dtype: NativeFloatDType): Promise<number> {
  const length = 128;
  const peaks: number[] = [];
  for (const batch of [8, 16, 32]) {
    using owner = trainee(size, dtype, length + 1, batch * length);
    await owner.engine.step(randomSequences(size, batch, length), crossEntropy(batch * length));
    peaks.push(memory().peakBytes);
    trimMemory();
  }
  return (peaks[2]! - peaks[1]!) / (16 * length);
}
