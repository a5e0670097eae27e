import { type FloatDType, floatDtypes } from '../../lib/tensor/dtype.js';
import { type Tensor, tensor } from '../../lib/tensor/tensor.js';
import { normals } from './compare.js';

/** A matrix as a gemm reads it: op(X)[i][j] for a stored, perhaps transposed X. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  at(i: number, j: number): number;
}

/** The stored values of a tensor seen as op(X), X being [rows, columns], or [columns, rows] if transposed. */
export function matrix(
  values: ArrayLike<number>,
  rows: number,
  columns: number,
  transposed = false,
  offset = 0,
): Matrix {
  return {
    rows,
    columns,
    at: transposed ? (i, j) => values[offset + j * rows + i]! : (i, j) => values[offset + i * columns + j]!,
  };
}

/** a b in fp64. */
export function product64(a: Matrix, b: Matrix): Float64Array {
  const c = new Float64Array(a.rows * b.columns);
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.columns; j++) {
      let sum = 0;
      for (let k = 0; k < a.columns; k++) sum += a.at(i, k) * b.at(k, j);
      c[i * b.columns + j] = sum;
    }
  }
  return c;
}

/** How one element is summed. */
export type Order = 'chain' | 'pairs' | 'lanes';

/**
 * a b to the bit, for 16-bit inputs. The product of two of them is exact in fp64, and so is its sum with an fp32
 * accumulator of similar size, so one fround is the rounding of a fused multiply-add.
 *
 * `chain`: k in order. `pairs`: k + 1 before k, pair by pair. `lanes`: sixteen strided sums, joined by halves.
 */
export function productInOrder(a: Matrix, b: Matrix, order: Order, splitK = 0): Float32Array {
  const depth = a.columns;
  const chunk = splitK > 0 ? splitK : Math.max(depth, 1);
  const c = new Float32Array(a.rows * b.columns);
  const lanes = new Float32Array(16);
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.columns; j++) {
      let total = 0;
      for (let begin = 0; begin < depth; begin += chunk) {
        const end = Math.min(begin + chunk, depth);
        let sum = 0;
        if (order === 'chain') {
          for (let k = begin; k < end; k++) sum = Math.fround(sum + a.at(i, k) * b.at(k, j));
        } else if (order === 'pairs') {
          for (let k = begin; k < end; k += 2) {
            if (k + 1 < end) sum = Math.fround(sum + a.at(i, k + 1) * b.at(k + 1, j));
            sum = Math.fround(sum + a.at(i, k) * b.at(k, j));
          }
        } else {
          lanes.fill(0);
          for (let k = begin; k < end; k++) lanes[(k - begin) % 16]! += a.at(i, k) * b.at(k, j);
          for (let half = 8; half >= 1; half /= 2)
            for (let l = 0; l < half; l++) lanes[l]! += lanes[l + half]!;
          sum = lanes[0]!;
        }
        total = begin === 0 ? sum : Math.fround(total + sum);
      }
      c[i * b.columns + j] = total;
    }
  }
  return c;
}

/** Normal values in a tensor, from the generator of the tests. */
export function normalTensor(shape: readonly number[], dtype: FloatDType, seed: number): Tensor {
  return tensor(
    normals(
      shape.reduce((size, d) => size * d, 1),
      seed,
    ),
    shape,
    dtype,
  );
}

/** The dtypes a product of inputs of `dtype` may have. */
export function resultDtypes(dtype: FloatDType): readonly FloatDType[] {
  return floatDtypes.filter((out) => out === 'fp32' || out === dtype);
}
