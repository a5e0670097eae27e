import type { Parameter } from '../autograd/parameter.js';
import type { Tape } from '../autograd/tape.js';
import type { Weight } from '../autograd/weights.js';
import { gemmFamilyOf, type KernelFamily, type Numerics } from '../numerics.js';
import type { HeadOrder } from '../ops/headNorm.js';
import type { Tensor } from '../tensor/tensor.js';
import type { LoraAdapter } from './lora.js';

/** Where a pass can be watched, in the order in which a layer comes by. */
export const activationPoints = [
  'embedding',
  'attentionNorm',
  'qkv',
  'attention',
  'attentionOut',
  'residual',
  'mlpNorm',
  /** Of a mixture of experts; what follows has then a row for each expert of a token, sorted by expert. */
  'routerLogits',
  'gateUp',
  'gated',
  'mlpOut',
  'finalNorm',
] as const;
export type ActivationPoint = (typeof activationPoints)[number];

/** Sees an activation as soon as it is queued; what reads it has to be queued at once. `layer` is -1 outside of layers. */
export type Observer = (point: ActivationPoint, layer: number, t: Tensor) => void;

/** Who else has a say in, or looks at, which experts the tokens of a pass go to; `layer` counts all layers. */
export interface Routing {
  /** int32 [tokens, k]: the experts of a mixture, as another pass chose them; undefined leaves the choice to its router. */
  readonly given?: ((layer: number) => Tensor | undefined) | undefined;
  /**
   * Sees the logits [tokens, E] of a mixture's router and the ids [tokens, k] of the experts that are used, once for each
   * layer. Both go when the layer is done: what is made of them has to be kept (`keep`).
   */
  readonly seen?: ((layer: number, logits: Tensor, ids: Tensor) => void) | undefined;
}

/**
 * One pass through a model: what differs between the engines and between passes. Modules hold parameters and
 * shapes; everything else they ask of this.
 */
export interface Forward {
  /** Records for a backward pass, or null. */
  readonly tape: Tape | null;
  /** Whether the tape keeps each layer's inputs alone and the backward pass runs the layer again. */
  readonly recompute?: boolean;
  readonly numerics: Numerics;
  /** Choices of single layers that differ. */
  readonly layerNumerics?: ReadonlyMap<number, Numerics>;
  readonly observe?: Observer;
  /** int32 [tokens]. */
  readonly positions: Tensor;
  /** fp32 [positions, headDim / 2, 2]. */
  readonly ropeTable: Tensor;
  /** The order of the pass's heads, where query and key heads have norms of their own. */
  readonly headOrder?: HeadOrder | undefined;
  /** The adapter whose products are computed beside those of the weights; null where there is none, or it is in them. */
  readonly lora?: LoraAdapter | null;
  /** Where it is given every token goes through every mixture, those that nothing is predicted from, too. */
  readonly routing?: Routing | undefined;
  /** The tensor that stands for a parameter in this pass. */
  weight(parameter: Parameter): Weight;
  /** Causal attention of layer `layer`: [tokens, numHeads + 2 numKvHeads, headDim] -> [tokens, numHeads headDim]. */
  attend(layer: number, qkv: Tensor, tape: Tape | null): Tensor;
}

/** The options of `linear` for a projection whose rows come in these blocks. */
export function projection(
  pass: Forward,
  blocks: readonly number[],
): { family: KernelFamily; splitK: number; blocks: readonly number[] } {
  const total = blocks.reduce((sum, rows) => sum + rows, 0);
  return {
    family: gemmFamilyOf(pass.numerics),
    splitK: pass.numerics.gemmSplitK,
    blocks: pass.numerics.mergedProjections ? [total] : blocks,
  };
}
