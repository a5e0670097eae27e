import type { Weight } from '../autograd/functions.js';
import type { Decoder } from '../models/decoder.js';
import type { Parameter } from '../nn/parameter.js';
import type { FloatDType } from '../tensor/dtype.js';

/** The training engine's weights: the fp32 masters, rounded to the training dtype before each pass. */
export class TrainingWeights {
  readonly #model: Decoder;
  readonly #dtype: FloatDType;

  constructor(model: Decoder, dtype: FloatDType) {
    this.#model = model;
    this.#dtype = dtype;
    this.sync();
  }

  /** Takes over the masters as they are now. */
  sync(): void {
    for (const parameter of this.#model.parameters) parameter.castTo(this.#dtype);
  }

  of(parameter: Parameter): Weight {
    return { parameter, value: parameter.value };
  }
}
