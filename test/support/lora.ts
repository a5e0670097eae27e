import type { DecoderConfig } from '../../lib/models/config.js';
import type { Decoder } from '../../lib/models/decoder.js';
import { addLora } from '../../lib/models/lora.js';
import type { LoraConfig } from '../../lib/nn/lora.js';
import { normals } from './compare.js';
import { oddModel } from './models.js';

/** A scale of 8 / 3, which no power of two is. */
export const oddLora: LoraConfig = { rank: 3, alpha: 8 };

/** A small model with an adapter whose B is not zero, so that it changes what is computed. */
export function adaptedModel(
  overrides: Partial<DecoderConfig> = {},
  config: Partial<LoraConfig> = {},
): Decoder {
  const model = oddModel(overrides);
  randomizeB(model, addLora(model, { ...oddLora, ...config }, { seed: 11 }).branches.length);
  return model;
}

/** Gives every B of a model's adapter random values. */
export function randomizeB(model: Decoder, seed: number, std = 0.03): void {
  for (const [i, { b }] of model.lora!.branches.entries()) b.master.upload(normals(b.size, seed + i, std));
}
