import { fill, randomNormal, type Tensor, zeros } from '../tensor/tensor.js';

/** How the values of a parameter begin. */
export type Initialization =
  | { readonly kind: 'normal'; readonly std: number }
  | { readonly kind: 'constant'; readonly value: number };

/**
 * A trainable array: an fp32 master and the fp32 gradient that backward passes add to. Forward passes read the
 * rounded copies that an engine keeps ({@link Weights}).
 */
export class Parameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** fp32. */
  readonly master: Tensor;
  #gradient: Tensor | undefined;

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
      this.master = randomNormal(shape, { seed, stream, std: initialization.std });
    } else {
      this.master = zeros(shape);
      if (initialization.value !== 0) fill(this.master, initialization.value);
    }
  }

  get size(): number {
    return this.master.size;
  }

  /** fp32, what backward passes add to; zero after {@link zeroGradient}. */
  get gradient(): Tensor {
    this.#gradient ??= zeros(this.shape);
    return this.#gradient;
  }

  zeroGradient(): void {
    if (this.#gradient) fill(this.#gradient, 0);
  }

  dispose(): void {
    this.#gradient?.dispose();
    this.master.dispose();
  }
}
