import { call, callOne, handleOf, type Tensor } from '../tensor/tensor.js';

/**
 * silu(gate) * up with silu(g) = g / (1 + e^-g); gate is the first half of each row, up the second
 * (Shazeer, "GLU Variants Improve Transformer", arXiv 2002.05202).
 *
 * Arithmetic is in fp32 and overflows for no finite gate. An infinite gate of negative sign gives NaN, as the
 * formula does: an overflow further up stays visible.
 *
 * @param gateUp [..., 2F], any float dtype
 * @param roundings 1: round(silu * up); 2: round(round(silu) * up), to the dtype of gateUp
 * @returns [..., F] in the dtype of gateUp
 * @throws InvalidArgumentError where the last dimension is odd, or for int32
 */
export function swiglu(gateUp: Tensor, roundings: 1 | 2 = 1): Tensor {
  return callOne('swiglu', [gateUp.handle, roundings]);
}

/**
 * The gradient of {@link swiglu}: with s the sigmoid of the gate,
 * dGate = dOut * up * s * (1 + gate * (1 - s)) and dUp = dOut * gate * s, in fp32, each rounded once.
 *
 * @param dOut [..., F] in the dtype of gateUp
 * @param gateUp the input of the forward pass, [..., 2F]
 * @param out where to write the result instead of to a new tensor: like gateUp, or gateUp itself
 * @returns dGateUp, like gateUp, or `out`
 */
export function swigluBackward(dOut: Tensor, gateUp: Tensor, out?: Tensor): Tensor {
  const outputs = call('swigluBackward', [dOut.handle, gateUp.handle, handleOf(out)]);
  return out ?? outputs[0]!;
}
