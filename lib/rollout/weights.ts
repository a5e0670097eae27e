import type { Weight } from '../autograd/functions.js';
import type { Decoder } from '../models/decoder.js';
import type { Parameter } from '../nn/parameter.js';
import type { FloatDType } from '../tensor/dtype.js';
import { cast, type Tensor } from '../tensor/tensor.js';

/**
 * The rollout engine's weights: a snapshot of the fp32 masters, rounded to the rollout dtype. It changes only in
 * {@link sync}, in place, so that recorded decode steps keep reading it.
 */
export class RolloutWeights implements Disposable {
  readonly #values = new Map<Parameter, Tensor>();
  readonly #model: Decoder;
  readonly #dtype: FloatDType;

  constructor(model: Decoder, dtype: FloatDType) {
    this.#model = model;
    this.#dtype = dtype;
    for (const parameter of model.parameters) this.#values.set(parameter, cast(parameter.master, dtype));
  }

  /** Takes over the masters as they are now. */
  sync(): void {
    for (const parameter of this.#model.parameters) {
      cast(parameter.master, this.#dtype, this.#values.get(parameter)!);
    }
  }

  of(parameter: Parameter): Weight {
    return { parameter, value: this.#values.get(parameter)! };
  }

  [Symbol.dispose](): void {
    for (const value of this.#values.values()) value.dispose();
  }
}
