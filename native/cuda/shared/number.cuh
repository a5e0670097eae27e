// Numbers in kernels: arithmetic is in fp32; Half and BFloat16 are how they lie in memory.
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"
#include "cuda/shared/ptx.cuh"

namespace isopolicy::cuda {

__host__ __device__ __forceinline__ bool isAligned16(const void* at) {
  return reinterpret_cast<uintptr_t>(at) % 16 == 0;
}

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(Half x) { return halfToFloat(x.bits); }
__device__ __forceinline__ float widen(BFloat16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }

// To nearest even; NaN stays NaN, infinities and subnormals are kept.
template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return T{roundTo16<T>(x)};
  }
}

// The two elements of a register, the lower one first.
template <class T>
__device__ __forceinline__ uint32_t narrow2(float low, float high) {
  return roundTo16x2<T>(low, high);
}
template <class T>
__device__ __forceinline__ float2 widen2(uint32_t bits) {
  return make_float2(widen(T{uint16_t(bits)}), widen(T{uint16_t(bits >> 16)}));
}

// 16 bytes of elements, which are loaded and stored at once: 8 of 16 bits or 4 of fp32.
template <class T>
struct Pack {
  static constexpr int kSize = 16 / sizeof(T);
  uint4 bits;

  // `at` is 16-byte aligned.
  static __device__ __forceinline__ Pack load(const T* at) { return {*reinterpret_cast<const uint4*>(at)}; }
  static __device__ __forceinline__ Pack loadOnce(const T* at) {
    return {cuda::loadOnce(reinterpret_cast<const uint4*>(at))};
  }
  __device__ __forceinline__ void store(T* at) const { *reinterpret_cast<uint4*>(at) = bits; }
  __device__ __forceinline__ void storeStreaming(T* at) const {
    cuda::storeStreaming(reinterpret_cast<uint4*>(at), bits);
  }

  __device__ __forceinline__ void widen(float (&to)[kSize]) const {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (sizeof(T) == 4) {
        to[i] = __uint_as_float(words[i]);
      } else {
        const float2 pair = widen2<T>(words[i]);
        to[2 * i] = pair.x;
        to[2 * i + 1] = pair.y;
      }
    }
  }
  static __device__ __forceinline__ Pack narrow(const float (&from)[kSize]) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (sizeof(T) == 4) {
        words[i] = __float_as_uint(from[i]);
      } else {
        words[i] = narrow2<T>(from[2 * i], from[2 * i + 1]);
      }
    }
    return {make_uint4(words[0], words[1], words[2], words[3])};
  }
};

// kCount neighbours as fp32, kCount a multiple of a pack's size; `from` and `to` are 16-byte aligned.
template <int kCount, class T>
__device__ __forceinline__ void loadWide(const T* from, float (&values)[kCount]) {
  constexpr int kSize = Pack<T>::kSize;
  static_assert(kCount % kSize == 0);
#pragma unroll
  for (int i = 0; i < kCount; i += kSize) {
    float part[kSize];
    Pack<T>::load(from + i).widen(part);
#pragma unroll
    for (int j = 0; j < kSize; j++) values[i + j] = part[j];
  }
}
template <int kCount, class T>
__device__ __forceinline__ void storeNarrow(T* to, const float (&values)[kCount]) {
  constexpr int kSize = Pack<T>::kSize;
  static_assert(kCount % kSize == 0);
#pragma unroll
  for (int i = 0; i < kCount; i += kSize) {
    float part[kSize];
#pragma unroll
    for (int j = 0; j < kSize; j++) part[j] = values[i + j];
    Pack<T>::narrow(part).store(to + i);
  }
}

}  // namespace isopolicy::cuda
