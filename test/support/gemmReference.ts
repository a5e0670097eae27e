import { floatDtypes, type NativeFloatDType } from '../../lib/tensor/dtype.js';
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

/**
 * How one element is summed: by which step of k, in how many chains (step s goes to chain s mod `chains`, the chains are
 * added at the end).
 *
 * `single`: one k. `pairs`: k + 1 before k. `tiles`: 32 k, the even and the odd ones each a chain from zero, joined and
 * added. `splitTiles`: each number as bf16 hi + lo, four products of 32 k: hi hi, hi lo, lo lo, lo hi.
 */
export interface Order {
  readonly step: 'single' | 'pairs' | 'tiles' | 'splitTiles';
  readonly chains: 1 | 2;
}

const stepLengths = { single: 1, pairs: 2, tiles: 32, splitTiles: 32 } as const;

const bits = new Uint32Array(1);
const floats = new Float32Array(bits.buffer);
/** The upper 8 bits of a number's significand, which bf16 holds. */
function hi(x: number): number {
  floats[0] = x;
  bits[0]! &= 0xffff0000;
  return floats[0]!;
}
const lo = (x: number) => x - hi(x);
const whole = (x: number) => x;

/**
 * a b to the bit, for 16-bit inputs. The product of two of them is exact in fp64, and so is its sum with an fp32
 * accumulator of similar size, so one fround is the rounding of a fused multiply-add.
 */
export function productInOrder(a: Matrix, b: Matrix, order: Order, splitK = 0): Float32Array {
  const depth = a.columns;
  const chunk = splitK > 0 ? splitK : Math.max(depth, 1);
  const length = stepLengths[order.step];
  const c = new Float32Array(a.rows * b.columns);
  const sums = new Float32Array(2);
  for (let i = 0; i < a.rows; i++) {
    for (let j = 0; j < b.columns; j++) {
      const tile = (sum: number, begin: number, end: number, partA = whole, partB = whole) => {
        const lanes = [0, 0];
        for (let k = begin; k < end; k++)
          lanes[(k - begin) % 2] = Math.fround(
            lanes[(k - begin) % 2]! + partA(a.at(i, k)) * partB(b.at(k, j)),
          );
        return Math.fround(sum + Math.fround(lanes[0]! + lanes[1]!));
      };
      const apply = {
        single: (sum: number, k: number) => Math.fround(sum + a.at(i, k) * b.at(k, j)),
        pairs: (sum: number, k: number, end: number) => {
          const first = k + 1 < end ? Math.fround(sum + a.at(i, k + 1) * b.at(k + 1, j)) : sum;
          return Math.fround(first + a.at(i, k) * b.at(k, j));
        },
        tiles: tile,
        splitTiles: (sum: number, k: number, end: number) =>
          [[hi, hi] as const, [hi, lo] as const, [lo, lo] as const, [lo, hi] as const].reduce(
            (before, [partA, partB]) => tile(before, k, end, partA, partB),
            sum,
          ),
      }[order.step];
      let total = 0;
      for (let begin = 0; begin < depth; begin += chunk) {
        const end = Math.min(begin + chunk, depth);
        sums.fill(0);
        for (let k = begin; k < end; k += length) {
          const chain = ((k - begin) / length) % order.chains;
          sums[chain] = apply(sums[chain]!, k, Math.min(k + length, end));
        }
        const sum = order.chains === 2 ? Math.fround(sums[0]! + sums[1]!) : sums[0]!;
        total = begin === 0 ? sum : Math.fround(total + sum);
      }
      c[i * b.columns + j] = total;
    }
  }
  return c;
}

/** Normal values in a tensor, from the generator of the tests. */
export function normalTensor(shape: readonly number[], dtype: NativeFloatDType, seed: number): Tensor {
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
export function resultDtypes(dtype: NativeFloatDType): readonly NativeFloatDType[] {
  return floatDtypes.filter((out) => out === 'fp32' || out === dtype);
}
