/** What a pass of the rollout engine takes and draws. */
import type { Tensor } from '../tensor/tensor.js';

/** The inputs of one pass, one entry a token row. */
export interface RolloutRows {
  readonly ids: Tensor;
  readonly positions: Tensor;
  readonly slots: Tensor;
}

/**
 * Drawn tokens, one a row: ids and their log-probs. Where routes are recorded, also the experts of the tokens that went in,
 * int32 [mixtures, tokens, k].
 */
export type Draws = readonly [ids: Tensor, logprobs: Tensor, routes?: Tensor];

/** The tensors of draws. */
export function drawnTensors([ids, logprobs, routes]: Draws): Tensor[] {
  return routes ? [ids, logprobs, routes] : [ids, logprobs];
}
