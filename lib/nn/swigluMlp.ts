import { swiglu } from '../autograd/functions.js';
import type { Parameter } from '../autograd/parameter.js';
import type { Tensor } from '../tensor/tensor.js';
import type { Forward } from './forward.js';
import { project } from './project.js';

/**
 * The gated feed-forward block of Llama and Qwen (Shazeer 2020, arXiv 2002.05202):
 *
 *     out = (silu(x Wg^T + bg) * (x Wu^T + bu)) Wd^T + bd
 *
 * Wg and Wu are the row blocks of one parameter, bg and bu of another; most models have no biases.
 */
export class SwigluMlp {
  constructor(
    /** [2 intermediateSize, hiddenSize]: gate rows, then up rows. */
    readonly gateUpWeight: Parameter,
    /** [hiddenSize, intermediateSize]. */
    readonly downWeight: Parameter,
    readonly layer: number,
    /** [2 intermediateSize], or null. */
    readonly gateUpBias: Parameter | null = null,
    /** [hiddenSize], or null. */
    readonly downBias: Parameter | null = null,
  ) {}

  /** [tokens, hiddenSize] -> [tokens, hiddenSize]. */
  forward(pass: Forward, x: Tensor): Tensor {
    const { tape, numerics } = pass;
    const half = this.gateUpWeight.shape[0]! / 2;
    const gateUp = project(pass, x, this.gateUpWeight, this.gateUpBias, [half, half]);
    pass.observe?.('gateUp', this.layer, gateUp);
    const gated = swiglu(tape, gateUp, { roundings: numerics.swigluRoundings, onlyReader: true });
    pass.observe?.('gated', this.layer, gated);
    const out = project(pass, gated, this.downWeight, this.downBias, [this.downWeight.shape[0]!]);
    pass.observe?.('mlpOut', this.layer, out);
    return out;
  }
}
