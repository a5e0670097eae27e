// What the two passes of RMSNorm share, so that both find the same bits for a row's root mean square.
#pragma once
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {

// The sums of both values over a group of rows.cuh: pairs of lanes, then warps in order. All threads of the
// block take part; a group of more than a warp is the whole block.
__device__ __forceinline__ float2 groupSums(float2 value, int group) {
  for (int lanes = min(group, 32) / 2; lanes > 0; lanes /= 2) {
    value.x = __fadd_rn(value.x, __shfl_xor_sync(0xffffffffu, value.x, lanes));
    value.y = __fadd_rn(value.y, __shfl_xor_sync(0xffffffffu, value.y, lanes));
  }
  if (group <= 32) return value;
  __shared__ float2 ofWarps[kLargestGroup / 32];
  __syncthreads();  // the sums before have been read
  if (threadIdx.x % 32 == 0) ofWarps[threadIdx.x / 32] = value;
  __syncthreads();
  value = ofWarps[0];
  for (int warp = 1; warp < group / 32; warp++) {
    value.x = __fadd_rn(value.x, ofWarps[warp].x);
    value.y = __fadd_rn(value.y, ofWarps[warp].y);
  }
  return value;
}

// Not fused: the square of a number is the same in every sum.
__device__ __forceinline__ float plusProduct(float sum, float a, float b) {
  return __fadd_rn(sum, __fmul_rn(a, b));
}

__device__ __forceinline__ float inverseRms(float squares, int64_t width, float eps) {
  const float mean = __fdiv_rn(squares, float(width));
  return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(mean, eps)));
}

}  // namespace isopolicy::cuda
