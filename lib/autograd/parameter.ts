import { keep } from '../tensor/scope.js';
import { empty, fill, randomNormal, randomUniform, type Tensor } from '../tensor/tensor.js';

/**
 * How the values of a parameter begin; `none` leaves them undefined, for a loader that writes them all: there is no memory
 * for them until it asks for the master.
 */
export type Initialization =
  | { readonly kind: 'normal'; readonly std: number }
  /** Between -bound and bound. */
  | { readonly kind: 'uniform'; readonly bound: number }
  | { readonly kind: 'constant'; readonly value: number }
  | { readonly kind: 'none' };

/**
 * A trainable array: an fp32 master and the fp32 gradient that backward passes add to. Forward passes read the
 * rounded copies that an engine keeps ({@link Weights}).
 */
export class Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  #master: Tensor | undefined;
  #frozen = false;
  #gradient: Tensor | undefined;
  /** Whether the gradient is zero without its memory saying so: whoever adds to it first may write instead. */
  #cleared = true;

  constructor(
    name: string,
    shape: readonly number[],
    initialization: Initialization,
    seed: number,
    stream: number,
  ) {
    this.name = name;
    this.shape = shape;
    if (initialization.kind === 'normal') {
      this.#master = randomNormal(shape, { seed, stream, std: initialization.std });
    } else if (initialization.kind === 'uniform') {
      this.#master = randomUniform(shape, { seed, stream, bound: initialization.bound });
    } else if (initialization.kind === 'constant') {
      this.#master = empty(shape);
      fill(this.#master, initialization.value);
    }
  }

  /** fp32. */
  get master(): Tensor {
    // Whoever is the first to ask does not own it.
    this.#master ??= keep(empty(this.shape));
    return this.#master;
  }

  get size(): number {
    return this.shape.reduce((product, d) => product * d, 1);
  }

  /** Whether it stays as it is: backward passes then leave it out, and no memory is taken for its gradient. */
  get frozen(): boolean {
    return this.#frozen;
  }

  set frozen(frozen: boolean) {
    this.#frozen = frozen;
    if (!frozen) return;
    this.#gradient?.dispose();
    this.#gradient = undefined;
    this.#cleared = true;
  }

  /** fp32, what backward passes add to; zero after {@link zeroGradient}. */
  get gradient(): Tensor {
    const gradient = this.#memory();
    if (this.#cleared) fill(gradient, 0);
    this.#cleared = false;
    return gradient;
  }

  /** For an op that can also do without: none where it is frozen. */
  get gradientUnlessFrozen(): Tensor | null {
    return this.#frozen ? null : this.gradient;
  }

  /**
   * For an op that can also write the gradient: `accumulate` is whether it has to add to what is there. Of a frozen one
   * nothing is computed.
   */
  addGradient(op: (gradient: Tensor, accumulate: boolean) => void): void {
    if (this.#frozen) return;
    op(this.#memory(), !this.#cleared);
    this.#cleared = false;
  }

  zeroGradient(): void {
    this.#cleared = true;
  }

  #memory(): Tensor {
    this.#gradient ??= empty(this.shape);
    return this.#gradient;
  }

  dispose(): void {
    this.#gradient?.dispose();
    this.#master?.dispose();
  }
}
