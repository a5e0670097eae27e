import type { FloatDType } from '../tensor/dtype.js';
import { cast, type Tensor } from '../tensor/tensor.js';
import type { Parameter } from './parameter.js';

/** A parameter and the tensor that stands for it in a pass: an engine's rounded copy of the master. */
export interface Weight {
  readonly parameter: Parameter;
  readonly value: Tensor;
}

/**
 * One engine's weights: the fp32 masters rounded to its dtype. They change only in {@link sync}, in place, so that
 * recorded ops go on reading them.
 */
export class Weights implements Disposable {
  readonly #weights = new Map<Parameter, Weight>();
  readonly #dtype: FloatDType;

  constructor(parameters: readonly Parameter[], dtype: FloatDType) {
    this.#dtype = dtype;
    for (const parameter of parameters) {
      this.#weights.set(parameter, { parameter, value: cast(parameter.master, dtype) });
    }
  }

  /** Takes over the masters as they are now. */
  sync(): void {
    for (const { parameter, value } of this.#weights.values()) cast(parameter.master, this.#dtype, value);
  }

  of(parameter: Parameter): Weight {
    return this.#weights.get(parameter)!;
  }

  /** Gives the copies back. */
  dispose(): void {
    for (const { value } of this.#weights.values()) value.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
