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
  /** Makes what is copied where that is not the master. */
  readonly #make: (() => Tensor) | undefined;

  constructor(
    parameter: Parameter,
    dtype: FloatDType,
    as: { plain: boolean; packed: boolean },
    make: (() => Tensor) | undefined,
  ) {
    this.parameter = parameter;
    this.#dtype = dtype;
    this.#make = make;
    const value = this.#rounded();
    if (as.packed) this.packed = new PackedWeight(value);
    if (as.plain) this.#value = value;
    else value.dispose();
  }

  get value(): Tensor {
    if (!this.#value) throw new InternalError(`${this.parameter.name} is kept packed alone`);
    return this.#value;
  }

  sync(): void {
    if (this.#value) this.#rounded(this.#value);
    tidy(() => {
      this.packed?.update(this.#value ?? this.#rounded());
    });
  }

  #rounded(out?: Tensor): Tensor {
    if (!this.#make) return cast(this.parameter.master, this.#dtype, out);
    using made = this.#make();
    return cast(made, this.#dtype, out);
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
   * @param made parameters in whose place something else is rounded at each sync: an fp32 tensor of the same shape
   */
  constructor(
    parameters: readonly Parameter[],
    dtype: FloatDType,
    packed: readonly Parameter[] = [],
    both: readonly Parameter[] = [],
    made: ReadonlyMap<Parameter, () => Tensor> = new Map(),
  ) {
    for (const parameter of parameters) {
      const as = {
        packed: packed.includes(parameter),
        plain: !packed.includes(parameter) || both.includes(parameter),
      };
      this.#copies.set(parameter, new Copy(parameter, dtype, as, made.get(parameter)));
    }
  }

  /** Takes over the masters as they are now, of all parameters or of these. */
  sync(parameters: Iterable<Parameter> = this.#copies.keys()): void {
    for (const parameter of parameters) this.#copies.get(parameter)!.sync();
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
