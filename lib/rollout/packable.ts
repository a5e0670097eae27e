import type { Parameter } from '../autograd/parameter.js';
import type { Decoder } from '../models/decoder.js';
import type { LoraAdapter } from '../nn/lora.js';
import { MoeMlp } from '../nn/moeMlp.js';
import type { Numerics } from '../numerics.js';

/** Packed weights come in whole steps of k at every level: a split of k has to end where a step does. */
const longestPackedStep = 32;

/**
 * The weights that products of the rollout engine read whole, pass after pass: these are packed once for each sync.
 * Projections that are not merged read blocks of rows instead. `lora` is the adapter that is computed with beside them.
 */
export function packableParameters(
  { layers, head }: Decoder,
  lora: LoraAdapter | null,
  numerics: Numerics,
  layerNumerics: ReadonlyMap<number, Numerics> = new Map(),
): Parameter[] {
  const whole = ({ gemmSplitK }: Numerics) => gemmSplitK % longestPackedStep === 0;
  return [
    ...(whole(numerics) ? [head] : []),
    ...layers.flatMap(({ attention, mlp }, i) => {
      const own = layerNumerics.get(i) ?? numerics;
      if (!whole(own)) return [];
      const bases = [attention.qkvWeight, attention.outWeight, mlp.gateUpWeight, mlp.downWeight];
      const packed = bases.flatMap((base) => lora?.of(base) ?? []).flatMap(({ a, b }) => [a, b]);
      packed.push(attention.outWeight, mlp.downWeight);
      if (own.mergedProjections) packed.push(attention.qkvWeight);
      if (mlp instanceof MoeMlp) packed.push(mlp.routerWeight);
      if (own.mergedProjections || mlp instanceof MoeMlp) packed.push(mlp.gateUpWeight);
      return packed;
    }),
  ];
}
