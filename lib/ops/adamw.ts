import { call, handleOf, type Tensor } from '../tensor/tensor.js';

export interface AdamWOptions {
  readonly lr: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** Decoupled: the weight shrinks by the factor 1 - lr * weightDecay before the update. */
  readonly weightDecay: number;
  /** Number of this step, from 1. */
  readonly step: number;
  /** Multiplies the gradient before use: 1 / loss scale times the clipping factor. Default 1. */
  readonly gradScale?: number;
  /** Receives the new weights, rounded to its dtype, in the same pass. Same shape as master. */
  readonly compute?: Tensor;
}

/**
 * One step of AdamW (arXiv 1711.05101, algorithm 2, in the form of torch.optim.AdamW), in place:
 *
 *     g      = gradScale * grad
 *     master = (1 - lr * weightDecay) * master
 *     m      = beta1 * m + (1 - beta1) * g
 *     v      = beta2 * v + (1 - beta2) * g^2
 *     master = master - lr / (1 - beta1^step) * m / (sqrt(v) / sqrt(1 - beta2^step) + eps)
 *
 * Arithmetic is fp32, bias corrections fp64; the same bits at every thread count and vector level. A non-finite
 * gradient makes non-finite weights: test with `gradientStats` before.
 *
 * @param master fp32 weights, any shape.
 * @param grad fp32, shape of master.
 * @param m fp32 first moment, shape of master; zeros before the first step.
 * @param v fp32 second moment, shape of master; zeros before the first step.
 */
export function adamw(master: Tensor, grad: Tensor, m: Tensor, v: Tensor, options: AdamWOptions): void {
  const { lr, beta1, beta2, eps, weightDecay, step, gradScale = 1, compute } = options;
  call('adamw', [
    master.handle,
    grad.handle,
    m.handle,
    v.handle,
    handleOf(compute),
    lr,
    beta1,
    beta2,
    eps,
    weightDecay,
    step,
    gradScale,
  ]);
}
