import { invalid } from '../errors.js';
import { addon, type VectorLevel } from '../native.js';
import type { FloatDType } from '../tensor/dtype.js';
import { call, callOne, type Tensor } from '../tensor/tensor.js';

/**
 * The weight [rows, columns] of a linear layer, laid out once as the products read it: {@link linear} takes it in place
 * of the tensor and gives the same bits, sooner, most of all for few rows. It holds memory of its own: dispose of it.
 */
export class PackedWeight implements Disposable {
  /** N of [N, K]: the columns of the product. */
  readonly rows: number;
  /** K of [N, K]. */
  readonly columns: number;
  readonly dtype: FloatDType;
  /** The level whose layout this is; at another one it has to be packed again. */
  readonly vectorLevel: VectorLevel;
  /** The layout is the level's own: [panels, K in whole steps, columns of a panel]. */
  readonly tensor: Tensor;

  /** Packs `weight`, [N, K]. @throws InvalidArgumentError if it is not a matrix of a floating-point type */
  constructor(weight: Tensor) {
    this.vectorLevel = addon.info().vectorLevel;
    this.tensor = callOne('packWeight', [weight.handle, 0]);
    this.rows = weight.shape[0]!;
    this.columns = weight.shape[1]!;
    this.dtype = weight.dtype as FloatDType;
  }

  /**
   * Packs other values of the same shape and dtype in place, so that recorded ops go on reading them.
   *
   * @throws InvalidArgumentError if `weight` has another shape or dtype, or the vector level has changed
   */
  update(weight: Tensor): void {
    if (weight.shape[0] !== this.rows || weight.shape[1] !== this.columns)
      invalid('PackedWeight', `weight of shape [${this.rows}, ${this.columns}]`, weight.shape);
    const level = addon.info().vectorLevel;
    if (level !== this.vectorLevel)
      invalid('PackedWeight', `vector level ${this.vectorLevel}, as when packed`, level);
    call('packWeight', [weight.handle, this.tensor.handle]);
  }

  dispose(): void {
    this.tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
