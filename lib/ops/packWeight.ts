import type { Device } from '../device.js';
import { invalid } from '../errors.js';
import { addon, type VectorLevel, vectorLevels } from '../native.js';
import type { FloatDType } from '../tensor/dtype.js';
import { call, callOne, type Tensor } from '../tensor/tensor.js';

/**
 * The weight [rows, columns] of a linear layer, or those of a layer's experts, [experts, rows, columns], laid out once as
 * the products read them: {@link linear}, or {@link groupedLinear}, takes it in place of the tensor and gives the same
 * bits, sooner, most of all for few rows. It holds memory of its own: dispose of it.
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
  /** Of the weight. */
  readonly shape: readonly number[];

  /** Packs `weight`, [N, K] or [E, N, K]. @throws InvalidArgumentError for another shape, or int32 */
  constructor(weight: Tensor) {
    this.vectorLevel = addon.info().vectorLevel;
    this.tensor = callOne('packWeight', [weight.handle, 0]);
    this.shape = weight.shape;
    this.rows = weight.shape.at(-2)!;
    this.columns = weight.shape.at(-1)!;
    this.dtype = weight.dtype as FloatDType;
  }

  /**
   * Packs other values of the same shape and dtype in place, so that recorded ops go on reading them.
   *
   * @throws InvalidArgumentError if `weight` has another shape or dtype, or the vector level has changed
   */
  update(weight: Tensor): void {
    const wanted = this.shape.join(', ');
    if (weight.shape.join(', ') !== wanted)
      invalid('PackedWeight', `weight of shape [${wanted}]`, weight.shape);
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

/**
 * The elements that a weight [N, K], or [E, N, K], takes when packed: K in whole steps, N in whole panels
 * (`packedLayoutOf` of native/ops/pack_weight.h); on CUDA it is packed as it is.
 */
export function packedSize(
  shape: readonly number[],
  dtype: FloatDType,
  level: VectorLevel,
  device: Device,
): number {
  if (device === 'cuda') return shape.reduce((product, d) => product * d, 1);
  const [experts, rows, columns] = shape.length === 3 ? shape : [1, ...shape];
  const panel = vectorLevels.indexOf(level) >= vectorLevels.indexOf('avx512') ? 32 : 16;
  const halves = dtype === 'fp16' || dtype === 'bf16';
  const step = level === 'amx' && halves ? 32 : level === 'avx512bf16' && dtype === 'bf16' ? 2 : 1;
  return experts! * Math.ceil(rows! / panel) * panel * Math.ceil(columns! / step) * step;
}

/** @internal A weight as an op takes it: its handle, and what it is if it is packed. */
export function packedArguments(weight: Tensor | PackedWeight): [number, number, number, number] {
  if (!(weight instanceof PackedWeight)) return [weight.handle, -1, 0, 0];
  const { tensor, rows, columns, vectorLevel } = weight;
  return [tensor.handle, rows, columns, vectorLevels.indexOf(vectorLevel)];
}
