import { checkInteger } from '../errors.js';
import { familyNumber, type KernelFamily } from '../numerics.js';
import { checkFloatDtype, dtypeNumber, type FloatDType } from '../tensor/dtype.js';
import { call, handleOf, type Tensor } from '../tensor/tensor.js';

/** @internal The dtype of a product: the one asked for, else that of `like`. */
export function resultDtype(
  where: string,
  name: string,
  dtype: FloatDType | undefined,
  like: Tensor,
): number {
  return dtypeNumber(dtype === undefined ? like.dtype : checkFloatDtype(where, name, dtype));
}

/** Settings of {@link gemm}. */
export interface GemmOptions {
  /** a is stored [K, M] (or [B, K, M]). Default false. */
  transposeA?: boolean;
  /** b is stored [N, K] (or [B, N, K]), as a linear layer's weight is. Default false. */
  transposeB?: boolean;
  /** [N], of the dtype of a; added before the result is rounded. */
  bias?: Tensor | null;
  /** Where to write the result instead of to a new tensor; may not overlap an input. */
  out?: Tensor;
  /** Add the product to `out`, which must be fp32. Default false. */
  accumulate?: boolean;
  /** fp32 or the dtype of a. Default: that of `out`, else that of a. */
  outDtype?: FloatDType;
  family?: KernelFamily;
  /** Length of K that is summed before the partial sums are added in order; 0 (default): no split. */
  splitK?: number;
}

/**
 * Matrix product `a b (+ bias) (+ out)` with fp32 sums and one rounding at the end.
 *
 * a is [M, K] or [B, M, K]; b is [K, N], or [B, K, N] where a has a batch, and of the dtype of a; the result is
 * [M, N] or [B, M, N]. A b without a batch serves every matrix of a.
 *
 * The order in which an element is summed depends on K and `splitK` alone, so a row of the result does not
 * depend on the other rows, and its bits do not depend on the number of threads:
 * - `training` (default): one chain of fused multiply-adds, k from 0 to K - 1. bf16 on processors with
 *   AVX512-BF16 takes pairs of k with `vdpbf16ps`, which treats subnormal numbers as zero.
 * - `rollout`: two such chains, of the even and of the odd steps of k, added at the end.
 *
 * A step is one k, or a pair with vdpbf16ps. At level `amx` a step is 32 k of bf16 on tiles: the even k and the odd k are
 * a chain each, their sum is added; subnormals are zero. fp16 takes the same steps on two bf16 parts of each number, which
 * are exactly the number; an infinite input then gives NaN.
 *
 * @throws InvalidArgumentError if shapes or dtypes do not fit, or `out` overlaps an input
 */
export function gemm(a: Tensor, b: Tensor, options: GemmOptions = {}): Tensor {
  const { transposeA = false, transposeB = false, bias, out, accumulate = false } = options;
  const { family = 'training', splitK = 0 } = options;
  const outputs = call('gemm', [
    a.handle,
    b.handle,
    handleOf(bias),
    handleOf(out),
    familyNumber('gemm', 'family', family),
    checkInteger('gemm', 'splitK', splitK, 0, 2 ** 30),
    Number(transposeA),
    Number(transposeB),
    resultDtype('gemm', 'outDtype', options.outDtype, out ?? a),
    Number(accumulate),
  ]);
  return out ?? outputs[0]!;
}
