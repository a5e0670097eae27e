// Reading neighbours of a row of any length and alignment. Who reads which columns depends on the columns
// alone, so that sums do not change with the alignment.
#pragma once
#include "cuda/shared/number.cuh"

namespace isopolicy::cuda {

// kCount neighbours as fp32, of which `left` exist and the others are `fill`. `aligned`: to 16 bytes.
template <int kCount, class T>
__device__ __forceinline__ void loadGroup(const T* from, int64_t left, bool aligned, float fill,
                                          float (&values)[kCount]) {
  if (aligned && left >= kCount) {
    loadWide<kCount>(from, values);
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; i++) values[i] = i < left ? widen(from[i]) : fill;
}

// Groups of neighbours, kStride elements apart: all of them asked for before the first is looked at.
template <int kStride, int kGroups, int kCount, class T>
__device__ __forceinline__ void loadGroups(const T* from, int64_t left, bool aligned, float fill,
                                           float (&values)[kGroups][kCount]) {
  if (aligned && left >= (kGroups - 1) * kStride + kCount) {
#pragma unroll
    for (int k = 0; k < kGroups; k++) loadWide(from + k * kStride, values[k]);
    return;
  }
#pragma unroll
  for (int k = 0; k < kGroups; k++)
    loadGroup(from + k * kStride, left - k * kStride, aligned, fill, values[k]);
}

}  // namespace isopolicy::cuda
