import type { Parameter } from '../autograd/parameter.js';
import type { Decoder } from '../models/decoder.js';
import { MoeMlp } from '../nn/moeMlp.js';
import type { Numerics } from '../numerics.js';

/** Packed weights come in whole steps of k at every level: a split of k has to end where a step does. */
const longestPackedStep = 32;

/**
 * The weights that products of the rollout engine read whole, pass after pass: these are packed once for each sync.
 * Projections that are not merged read blocks of rows instead.
 */
export function packableParameters(
  { layers, head }: Decoder,
  numerics: Numerics,
  layerNumerics: ReadonlyMap<number, Numerics> = new Map(),
): Parameter[] {
  const whole = ({ gemmSplitK }: Numerics) => gemmSplitK % longestPackedStep === 0;
  return [
    ...(whole(numerics) ? [head] : []),
    ...layers.flatMap(({ attention, mlp }, i) => {
      const own = layerNumerics.get(i) ?? numerics;
      if (!whole(own)) return [];
      const merged = own.mergedProjections ? [attention.qkvWeight] : [];
      if (mlp instanceof MoeMlp) {
        return [...merged, attention.outWeight, mlp.routerWeight, mlp.gateUpWeight, mlp.downWeight];
      }
      if (own.mergedProjections) merged.push(mlp.gateUpWeight);
      return [...merged, attention.outWeight, mlp.downWeight];
    }),
  ];
}
