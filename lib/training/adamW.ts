import type { Parameter } from '../autograd/parameter.js';
import { checkInteger, checkNumber, invalid } from '../errors.js';
import { adamw } from '../ops/adamw.js';
import { keep } from '../tensor/scope.js';
import { type Tensor, zeros } from '../tensor/tensor.js';

export interface AdamWOptions {
  /** Default [0.9, 0.95], the paper's. */
  readonly betas?: readonly [number, number];
  /** Default 1e-8. */
  readonly eps?: number;
  /** Decoupled weight decay; default 0. */
  readonly weightDecay?: number;
}

interface Moments {
  readonly first: Tensor;
  readonly second: Tensor;
}

/**
 * AdamW (Loshchilov and Hutter, arXiv 1711.05101) on fp32 masters, with fp32 moments. These take memory from when they are
 * first needed: an engine that only scores has none.
 */
export class AdamW {
  readonly parameters: readonly Parameter[];
  readonly options: Required<AdamWOptions>;
  readonly #moments = new Map<Parameter, Moments>();
  #step = 0;

  constructor(parameters: readonly Parameter[], options: AdamWOptions = {}) {
    const [beta1, beta2] = options.betas ?? [0.9, 0.95];
    for (const [name, beta] of Object.entries({ 'betas[0]': beta1, 'betas[1]': beta2 })) {
      checkNumber('AdamW', name, beta, 0);
      if (beta >= 1) invalid('AdamW', `${name} below 1`, beta);
    }
    this.options = {
      betas: [beta1, beta2],
      eps: checkNumber('AdamW', 'eps', options.eps ?? 1e-8, 0),
      weightDecay: checkNumber('AdamW', 'weightDecay', options.weightDecay ?? 0, 0),
    };
    this.parameters = parameters;
  }

  /** Steps taken so far. */
  get step(): number {
    return this.#step;
  }

  /** Sets the number of steps taken, when a checkpoint is loaded. */
  resume(step: number): void {
    this.#step = checkInteger('AdamW', 'step', step, 0);
  }

  moments(parameter: Parameter): Moments {
    let moments = this.#moments.get(parameter);
    if (!moments) {
      moments = { first: keep(zeros(parameter.shape)), second: keep(zeros(parameter.shape)) };
      this.#moments.set(parameter, moments);
    }
    return moments;
  }

  /**
   * One step from the parameters' gradients, each multiplied by `gradientScale` first (unscaling and clipping in
   * one pass). Masters change; values are cast anew before the next pass.
   */
  update(learningRate: number, gradientScale: number): void {
    this.#step++;
    const [beta1, beta2] = this.options.betas;
    for (const parameter of this.parameters) {
      const { first, second } = this.moments(parameter);
      adamw(parameter.master, parameter.gradient, first, second, {
        lr: learningRate,
        beta1,
        beta2,
        eps: this.options.eps,
        weightDecay: this.options.weightDecay,
        step: this.#step,
        gradScale: gradientScale,
      });
    }
  }

  dispose(): void {
    for (const { first, second } of this.#moments.values()) {
      first.dispose();
      second.dispose();
    }
  }
}
