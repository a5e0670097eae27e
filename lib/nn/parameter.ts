import { accumulate } from '../ops/elementwise.js';
import type { FloatDType } from '../tensor/dtype.js';
import { cast, fill, randomNormal, type Tensor, zeros } from '../tensor/tensor.js';

/** How the values of a parameter begin. */
export type Initialization = { readonly kind: 'normal'; readonly std: number } | { readonly kind: 'constant'; readonly value: number };

/**
 * A trainable array: an fp32 master, the gradient that backward passes add to (fp32), and the value that forward
 * passes read, which is the master rounded to the training dtype.
 */
export class Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** fp32. */
  readonly master: Tensor;
  #value: Tensor | undefined;
  #gradient: Tensor | undefined;

  constructor(name: string, shape: readonly number[], initialization: Initialization, seed: number, stream: number) {
    this.name = name;
    this.shape = shape;
    if (initialization.kind === 'normal') {
      this.master = randomNormal(shape, { seed, stream, std: initialization.std });
    } else {
      this.master = zeros(shape);
      if (initialization.value !== 0) fill(this.master, initialization.value);
    }
  }

  get size(): number {
    return this.master.size;
  }

  /** The rounded master, made by {@link castTo}. */
  get value(): Tensor {
    if (!this.#value) throw new Error(`parameter ${this.name} has no value yet: castTo(dtype) first`);
    return this.#value;
  }

  /** Rounds the master into {@link value}; in fp32 the value is the master itself. */
  castTo(dtype: FloatDType): void {
    if (dtype === 'fp32') {
      if (this.#value !== this.master) this.#value?.dispose();
      this.#value = this.master;
    } else if (this.#value && this.#value !== this.master && this.#value.dtype === dtype) {
      cast(this.master, dtype, this.#value);
    } else {
      this.#value = cast(this.master, dtype);
    }
  }

  /** fp32, what backward passes add to; zero after {@link zeroGradient}. */
  get gradient(): Tensor {
    this.#gradient ??= zeros(this.shape);
    return this.#gradient;
  }

  /** Adds to the gradient. */
  addGradient(gradient: Tensor): void {
    accumulate(this.gradient, gradient);
  }

  zeroGradient(): void {
    if (this.#gradient) fill(this.#gradient, 0);
  }

  dispose(): void {
    if (this.#value !== this.master) this.#value?.dispose();
    this.#gradient?.dispose();
    this.master.dispose();
  }
}
