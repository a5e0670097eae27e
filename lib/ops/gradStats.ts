import { call, empty, type Tensor } from '../tensor/tensor.js';

export interface TensorGradStats {
  /** Euclidean norm, non-finite elements left out. */
  readonly norm: number;
  /** Elements that are infinite or NaN; rounded to 24 bits above 2^24. */
  readonly nonFinite: number;
}

export interface GradientStats {
  /** Euclidean norm of all tensors together, non-finite elements left out. */
  readonly norm: number;
  /** Elements that are infinite or NaN, over all tensors. */
  readonly nonFinite: number;
  /** The first tensor, in the order given, that has such an element. */
  readonly firstNonFinite?: string;
  readonly perTensor: ReadonlyMap<string, TensorGradStats>;
}

/**
 * Norm and overflow of gradients, with one pass over each and one wait for all.
 *
 * Squares are added in fp64, so that values up to the largest fp32 do not overflow; the result has the same bits
 * at every thread count. The norm of a scaled gradient is scaled too: divide it by the loss scale.
 *
 * @param named [name, gradient] pairs, any float type.
 */
export async function gradientStats(named: Iterable<readonly [string, Tensor]>): Promise<GradientStats> {
  const list = [...named];
  const stats = empty([list.length, 2]);
  let values: Float32Array;
  try {
    list.forEach(([, x], index) => {
      call('gradStats', [x.handle, stats.handle, index]);
    });
    values = await stats.floats();
  } finally {
    stats.dispose();
  }
  const perTensor = new Map<string, TensorGradStats>();
  let squares = 0;
  let nonFinite = 0;
  let firstNonFinite: string | undefined;
  list.forEach(([name, x], index) => {
    // The addon gives the root mean square, which fits fp32 where the norm may not.
    const norm = values[2 * index]! * Math.sqrt(x.size);
    const bad = values[2 * index + 1]!;
    perTensor.set(name, { norm, nonFinite: bad });
    squares += norm * norm;
    nonFinite += bad;
    if (bad > 0) firstNonFinite ??= name;
  });
  const result = { norm: Math.sqrt(squares), nonFinite, perTensor };
  return firstNonFinite === undefined ? result : { ...result, firstNonFinite };
}
