// Reductions over a warp and over a block, in fixed order: every thread gets the same bits, every run too.
#pragma once
#include <cmath>

#include "cuda/shared/ptx.cuh"

namespace isopolicy::cuda {

struct Sum {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
// Of floats, the one that is no NaN.
struct Max {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return max(a, b);
  }
};

// By pairs of lanes (an xor butterfly): all lanes compute the same sums of the same pairs. All 32 lanes take
// part; with kLanes less than 32 each group of so many neighbours reduces its own.
template <int kLanes = 32, class T, class By>
__device__ __forceinline__ T warpReduce(T value, By by) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2)
    value = by(value, __shfl_xor_sync(0xffffffffu, value, lanes));
  return value;
}
template <int kLanes = 32, class T>
__device__ __forceinline__ T warpSum(T value) {
  return warpReduce<kLanes>(value, Sum{});
}
template <int kLanes = 32, class T>
__device__ __forceinline__ T warpMax(T value) {
  return warpReduce<kLanes>(value, Max{});
}

// The warps' values, in order of the warps. All threads of a block of kWarps warps (one-dimensional) take
// part and get the result.
template <int kWarps, class T, class By>
__device__ __forceinline__ T blockReduce(T value, By by) {
  value = warpReduce(value, by);
  if constexpr (kWarps > 1) {
    __shared__ T ofWarps[kWarps];
    __syncthreads();  // the values of the reduction before have been read
    if (threadIdx.x % 32 == 0) ofWarps[threadIdx.x / 32] = value;
    __syncthreads();
    value = ofWarps[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; warp++) value = by(value, ofWarps[warp]);
  }
  return value;
}
template <int kWarps, class T>
__device__ __forceinline__ T blockSum(T value) {
  return blockReduce<kWarps>(value, Sum{});
}
template <int kWarps, class T>
__device__ __forceinline__ T blockMax(T value) {
  return blockReduce<kWarps>(value, Max{});
}

}  // namespace isopolicy::cuda
