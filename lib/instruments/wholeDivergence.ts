import { setImmediate } from 'node:timers/promises';
import { type Divergence, MeanDivergence } from '../mismatch/divergence.js';
import type { Decoder } from '../models/decoder.js';
import type { TokenSequence } from '../models/sequences.js';
import { RolloutEngine } from '../rollout/engine.js';
import type { FloatDType } from '../tensor/dtype.js';
import type { TrainingEngine } from '../training/engine.js';

/** Most numbers of each engine that are read at a time, and in all: some seconds of arithmetic. */
const AT_ONCE = 2 ** 25;
const MOST = 2 ** 27;
/** Numbers that are summed before the event loop has its turn. */
const SUMMED = 2 ** 20;

/**
 * The divergence of both engines over whole distributions, {@link MeanDivergence}, of as many tokens as can be read: of a
 * vocabulary of 150,000 the first 900. Of a response that alone is too long the beginning counts.
 *
 * @returns with `tokens` where these are fewer than all
 */
export async function divergenceOf(
  model: Decoder,
  rolloutPrecision: FloatDType,
  training: TrainingEngine,
  sequences: readonly TokenSequence[],
  limits: { readonly atOnce: number; readonly most: number } = { atOnce: AT_ONCE, most: MOST },
): Promise<Divergence & { readonly tokens?: number }> {
  const { vocabSize } = model.config;
  const [atOnce, most] = [limits.atOnce, limits.most].map((numbers) =>
    Math.max(1, Math.floor(numbers / vocabSize)),
  ) as [number, number];
  const mean = new MeanDivergence(vocabSize);
  using rollout = new RolloutEngine(model, { precision: rolloutPrecision });
  let tokens = 0;
  let next = 0;
  while (next < sequences.length && tokens < most) {
    const part: TokenSequence[] = [];
    let inPart = 0;
    while (next < sequences.length && tokens + inPart < most) {
      const { prompt, response } = sequences[next]!;
      if (part.length > 0 && inPart + response.length > atOnce) break;
      const kept = Math.min(response.length, atOnce, most - tokens - inPart);
      part.push({ prompt, response: Array.from({ length: kept }, (_, i) => response[i]!) });
      inPart += kept;
      next++;
    }
    const mu = await rollout.distributions(part);
    const pi = await training.distributions(part);
    const step = vocabSize * Math.max(1, Math.floor(SUMMED / vocabSize));
    for (const [s, muOf] of mu.entries()) {
      for (let at = 0; at < muOf.length; at += step) {
        mean.add([muOf.subarray(at, at + step)], [pi[s]!.subarray(at, at + step)]);
        await setImmediate();
      }
    }
    tokens += inPart;
  }
  const all = sequences.reduce((sum, { response }) => sum + response.length, 0);
  return { ...mean.value(), ...(tokens < all && { tokens }) };
}
