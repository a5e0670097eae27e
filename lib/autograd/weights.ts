import { InternalError } from '../errors.js';
import { PackedWeight } from '../ops/packWeight.js';
import type { FloatDType } from '../tensor/dtype.js';
import { tidy } from '../tensor/scope.js';
import { cast, type Tensor } from '../tensor/tensor.js';
import type { Parameter } from './parameter.js';

/** A parameter and what stands for it in a pass: an engine's rounded copy of the master. */
export interface Weight {
  readonly parameter: Parameter;
  /** The copy as a tensor; an engine that needs it packed alone has none. */
  readonly value: Tensor;
  /** The copy in the layout of products, where the engine keeps one. */
  readonly packed?: PackedWeight;
}

class Copy implements Weight {
  readonly parameter: Parameter;
  readonly packed?: PackedWeight;
  readonly #dtype: FloatDType;
  readonly #value: Tensor | undefined;

  constructor(parameter: Parameter, dtype: FloatDType, as: { plain: boolean; packed: boolean }) {
    this.parameter = parameter;
    this.#dtype = dtype;
    const value = cast(parameter.master, dtype);
    if (as.packed) this.packed = new PackedWeight(value);
    if (as.plain) this.#value = value;
    else value.dispose();
  }

  get value(): Tensor {
    if (!this.#value) throw new InternalError(`${this.parameter.name} is kept packed alone`);
    return this.#value;
  }

  sync(): void {
    const { master } = this.parameter;
    if (this.#value) cast(master, this.#dtype, this.#value);
    tidy(() => {
      this.packed?.update(this.#value ?? cast(master, this.#dtype));
    });
  }

  dispose(): void {
    this.#value?.dispose();
    this.packed?.dispose();
  }
}

/**
 * One engine's weights: the fp32 masters rounded to its dtype. They change only in {@link sync}, in place, so that
 * recorded ops go on reading them.
 */
export class Weights implements Disposable {
  readonly #copies = new Map<Parameter, Copy>();

  /**
   * @param packed parameters to keep packed, for `linear` and `groupedLinear` (at the vector level that is in use now)
   * @param both of these, those to keep as tensors, too
   */
  constructor(
    parameters: readonly Parameter[],
    dtype: FloatDType,
    packed: readonly Parameter[] = [],
    both: readonly Parameter[] = [],
  ) {
    for (const parameter of parameters) {
      const as = {
        packed: packed.includes(parameter),
        plain: !packed.includes(parameter) || both.includes(parameter),
      };
      this.#copies.set(parameter, new Copy(parameter, dtype, as));
    }
  }

  /** Takes over the masters as they are now. */
  sync(): void {
    for (const copy of this.#copies.values()) copy.sync();
  }

  of(parameter: Parameter): Weight {
    return this.#copies.get(parameter)!;
  }

  /** Gives the copies back. */
  dispose(): void {
    for (const copy of this.#copies.values()) copy.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
