import {
  combineExperts,
  gatherRows,
  groupByExpert,
  groupedLinear,
  linear,
  route,
  swiglu,
} from '../autograd/functions.js';
import type { Parameter } from '../autograd/parameter.js';
import type { Tensor } from '../tensor/tensor.js';
import { type Forward, projection } from './forward.js';

/** How a router chooses. */
export interface RouterOptions {
  readonly expertsPerToken: number;
  /** Whether the weights of a token's experts sum to 1. */
  readonly normalize: boolean;
}

/**
 * The sparse feed-forward block of Mixtral (arXiv 2401.04088) and Qwen3-MoE (arXiv 2505.09388): E gated blocks, of which
 * each token goes to the k that its router prefers:
 *
 *     p   = softmax(x Wr^T)                                            E probabilities, in fp32
 *     out = sum over the k experts e of largest p of w_e (silu(x Wg_e^T) * (x Wu_e^T)) Wd_e^T
 *
 * with w_e = p_e, or with `normalize` p_e over the sum of the k. The logits of the router are rounded to the activations'
 * dtype, as Hugging Face has them. The gradient reaches the router through w alone.
 *
 * Rows are sorted by expert between the projections, [tokens k, ...]; gate and up are one product under either choice of
 * `mergedProjections`, which has no effect on bits.
 */
export class MoeMlp {
  constructor(
    readonly router: RouterOptions,
    /** [E, hiddenSize]. */
    readonly routerWeight: Parameter,
    /** [E, 2 moeIntermediateSize, hiddenSize]: of each expert gate rows, then up rows. */
    readonly gateUpWeight: Parameter,
    /** [E, hiddenSize, moeIntermediateSize]. */
    readonly downWeight: Parameter,
    readonly layer: number,
  ) {}

  /** [tokens, hiddenSize] -> [tokens, hiddenSize]. */
  forward(pass: Forward, x: Tensor): Tensor {
    const { tape, numerics, routing } = pass;
    const experts = this.routerWeight.shape[0]!;
    const product = projection(pass, [experts]);
    const logits = linear(tape, x, pass.weight(this.routerWeight), null, product);
    pass.observe?.('routerLogits', this.layer, logits);
    const { expertsPerToken: k, normalize } = this.router;
    const { ids, weights } = route(tape, logits, { k, normalize, ids: routing?.given?.(this.layer) });
    routing?.seen?.(this.layer, logits, ids);
    const { rows, tokens, offsets } = groupByExpert(tape, ids, experts);
    const sorted = gatherRows(tape, x, tokens);
    const gateUp = groupedLinear(tape, sorted, pass.weight(this.gateUpWeight), offsets, product);
    pass.observe?.('gateUp', this.layer, gateUp);
    const gated = swiglu(tape, gateUp, { roundings: numerics.swigluRoundings, onlyReader: true });
    pass.observe?.('gated', this.layer, gated);
    const down = groupedLinear(tape, gated, pass.weight(this.downWeight), offsets, product);
    const out = combineExperts(tape, down, weights, rows, { roundings: numerics.combineRoundings });
    pass.observe?.('mlpOut', this.layer, out);
    return out;
  }
}
