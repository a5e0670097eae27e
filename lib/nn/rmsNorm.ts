import { addRmsNorm, rmsNorm } from '../autograd/functions.js';
import type { Parameter } from '../autograd/parameter.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Forward } from './forward.js';

/** The residual stream between two norms: its value, and what a block has yet to add to it. */
export interface Residual {
  /** [tokens, hiddenSize]. */
  readonly x: Tensor;
  readonly delta: Tensor | null;
}

/**
 * Adds the pending output of the block before, then normalises (Zhang and Sennrich 2019, arXiv 1910.07467):
 *
 *     x   = x + delta
 *     out = x / sqrt(mean(x^2) + eps) * weight
 *
 * Where the sum is rounded is a knob: `residualFused` norms the fp32 sum, else the rounded one.
 */
export class RmsNorm {
  constructor(
    /** [hiddenSize]. */
    readonly weight: Parameter,
    readonly eps: number,
  ) {}

  forward(pass: Forward, { x, delta }: Residual): { x: Tensor; out: Tensor } {
    const { tape, numerics } = pass;
    const weight = pass.weight(this.weight);
    const options = { eps: this.eps, roundings: numerics.rmsNormRoundings };
    if (delta === null) return { x, out: rmsNorm(tape, x, weight, options) };
    const roundedSum = numerics.residualFused === 0;
    const { sum, out } = addRmsNorm(tape, x, delta, weight, { ...options, roundedSum });
    return { x: sum, out };
  }
}
