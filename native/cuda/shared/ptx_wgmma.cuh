// Products of a warpgroup (wgmma, capability 90a). See ptx_hopper.cuh, which includes this.
//
// The order of a product: wgmmaFence(), any number of wgmma() that add to the same or other accumulators,
// wgmmaCommit(); and wgmmaWait<n>() before the accumulators are read, the registers of A are written or the
// shared memory of A and B is. Shared memory that threads themselves wrote needs fenceAsyncProxy() and a
// barrier before.
#pragma once
#include <cstdint>

#include "cuda/shared/ptx.cuh"

#if defined(ISOPOLICY_EMULATED)
#include "cuda/emulation/wgmma.h"
#endif

// Whether the code that is being compiled may use what this file and ptx_hopper.cuh declare: what is around
// the body of a kernel for capability 90. Without it their functions trap.
#if defined(ISOPOLICY_EMULATED) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define ISOPOLICY_HOPPER 1
#else
#define ISOPOLICY_HOPPER 0
#endif

namespace isopolicy::cuda {

// How the 16-byte chunks of rows of 128, 64 or 32 bytes are permuted: chunk c of the row at address a (of a
// tile that is 1024-byte aligned) lies at chunk c ^ (a / 128 % 8), c ^ (a / 128 % 4), c ^ (a / 128 % 2). The
// values are those of descriptors.
enum class Swizzle : int { none = 0, bytes128 = 1, bytes64 = 2, bytes32 = 3 };

// The descriptor of A or B in shared memory for one product of depth 16. With a swizzle of S bytes (S / 2
// elements):
//   K-major (a row of the tile has S / 2 of K, rows follow each other at S bytes): `strideBytes` from 8 rows
//   to the next
//     8 (8 S where tiles are dense); `leadingBytes` is not used. The next 16 of K in the row: the address
//     plus 32 bytes.
//   MN-major (a row of the tile has S / 2 of M or N, K numbers the rows): `strideBytes` from 8 of K to the
//   next 8 (8 S),
//     `leadingBytes` from S / 2 of M or N to the next S / 2. The next 16 of K: the address plus 16 S bytes.
// Without a swizzle 8 x 8 elements are 128 contiguous bytes, and for K-major leading is along K, stride along
// M or N; for MN-major as well. The tile is aligned to 8 S bytes.
__device__ __forceinline__ uint64_t wgmmaDescriptor(uint32_t sharedAddress, uint32_t leadingBytes,
                                                    uint32_t strideBytes, Swizzle swizzle) {
  return uint64_t((sharedAddress & 0x3ffffu) >> 4) | uint64_t((leadingBytes & 0x3ffffu) >> 4) << 16 |
         uint64_t((strideBytes & 0x3ffffu) >> 4) << 32 | uint64_t(swizzle) << 62;
}
// The descriptor of memory `bytes` (a multiple of 16) further on.
__device__ __forceinline__ uint64_t wgmmaAdvance(uint64_t descriptor, uint32_t bytes) {
  return descriptor + (bytes >> 4);
}

// Before the first product, and before each that follows a write to its registers.
__device__ __forceinline__ void wgmmaFence(PTX_WHERE_ONLY) {
#if defined(ISOPOLICY_EMULATED)
  emulation::wgmmaFence(where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}
__device__ __forceinline__ void wgmmaCommit(PTX_WHERE_ONLY) {
#if defined(ISOPOLICY_EMULATED)
  emulation::wgmmaCommit(where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#else
  __trap();
#endif
}
// Waits until at most kPending of the latest groups are unfinished.
template <int kPending>
__device__ __forceinline__ void wgmmaWait(PTX_WHERE_ONLY) {
#if defined(ISOPOLICY_EMULATED)
  emulation::wgmmaWait(kPending, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#else
  __trap();
#endif
}

// Behind wgmmaWait, for accumulators that are then read: the compiler, which does not know what the wait is
// for, reads them no earlier.
template <int N>
__device__ __forceinline__ void wgmmaDone(float (&d)[N]) {
#if !defined(ISOPOLICY_EMULATED)
#pragma unroll
  for (int i = 0; i < N; i++) asm volatile("" : "+f"(d[i])::"memory");
#endif
}

// The operands of the instructions: their names and the registers, 4 to 128 of them.
// clang-format off
#define WGMMA_NAMES_4 "%0, %1, %2, %3"
#define WGMMA_NAMES_8 WGMMA_NAMES_4 ", %4, %5, %6, %7"
#define WGMMA_NAMES_12 WGMMA_NAMES_8 ", %8, %9, %10, %11"
#define WGMMA_NAMES_16 WGMMA_NAMES_12 ", %12, %13, %14, %15"
#define WGMMA_NAMES_24 WGMMA_NAMES_16 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define WGMMA_NAMES_32 WGMMA_NAMES_24 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_NAMES_40 WGMMA_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define WGMMA_NAMES_48 WGMMA_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_NAMES_56 WGMMA_NAMES_48 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define WGMMA_NAMES_64 WGMMA_NAMES_56 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_NAMES_80 WGMMA_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define WGMMA_NAMES_96 WGMMA_NAMES_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_NAMES_112 WGMMA_NAMES_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define WGMMA_NAMES_128 WGMMA_NAMES_112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_FOUR(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_REGISTERS_4 WGMMA_FOUR(0)
#define WGMMA_REGISTERS_8 WGMMA_REGISTERS_4, WGMMA_FOUR(4)
#define WGMMA_REGISTERS_12 WGMMA_REGISTERS_8, WGMMA_FOUR(8)
#define WGMMA_REGISTERS_16 WGMMA_REGISTERS_12, WGMMA_FOUR(12)
#define WGMMA_REGISTERS_24 WGMMA_REGISTERS_16, WGMMA_FOUR(16), WGMMA_FOUR(20)
#define WGMMA_REGISTERS_32 WGMMA_REGISTERS_24, WGMMA_FOUR(24), WGMMA_FOUR(28)
#define WGMMA_REGISTERS_40 WGMMA_REGISTERS_32, WGMMA_FOUR(32), WGMMA_FOUR(36)
#define WGMMA_REGISTERS_48 WGMMA_REGISTERS_40, WGMMA_FOUR(40), WGMMA_FOUR(44)
#define WGMMA_REGISTERS_56 WGMMA_REGISTERS_48, WGMMA_FOUR(48), WGMMA_FOUR(52)
#define WGMMA_REGISTERS_64 WGMMA_REGISTERS_56, WGMMA_FOUR(56), WGMMA_FOUR(60)
#define WGMMA_REGISTERS_80 WGMMA_REGISTERS_64, WGMMA_FOUR(64), WGMMA_FOUR(68), WGMMA_FOUR(72), WGMMA_FOUR(76)
#define WGMMA_REGISTERS_96 WGMMA_REGISTERS_80, WGMMA_FOUR(80), WGMMA_FOUR(84), WGMMA_FOUR(88), WGMMA_FOUR(92)
#define WGMMA_REGISTERS_112 WGMMA_REGISTERS_96, WGMMA_FOUR(96), WGMMA_FOUR(100), WGMMA_FOUR(104), WGMMA_FOUR(108)
#define WGMMA_REGISTERS_128 WGMMA_REGISTERS_112, WGMMA_FOUR(112), WGMMA_FOUR(116), WGMMA_FOUR(120), WGMMA_FOUR(124)
// One instruction for N columns with `count` accumulators; further operands are numbered from there.
#define WGMMA_SHARED(columns, count, type, a_, b_, accumulate_, ta_, tb_)                                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate_ ", 0;\n"                                         \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" WGMMA_NAMES_##count "}, " \
               "%" #a_ ", %" #b_ ", p, 1, 1, %" #ta_ ", %" #tb_ ";\n}"                                              \
               : WGMMA_REGISTERS_##count                                                                           \
               : "l"(a), "l"(b), "r"(int(accumulate)), "n"(int(kTransposeA)), "n"(int(kTransposeB)))
#define WGMMA_FROM_REGISTERS(columns, count, type, a0_, a1_, a2_, a3_, b_, accumulate_, tb_)                        \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #accumulate_ ", 0;\n"                                         \
               "wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." type "." type " {" WGMMA_NAMES_##count "}, " \
               "{%" #a0_ ", %" #a1_ ", %" #a2_ ", %" #a3_ "}, %" #b_ ", p, 1, 1, %" #tb_ ";\n}"                     \
               : WGMMA_REGISTERS_##count                                                                           \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(kTransposeB)))
#define WGMMA_EACH_SHARED(type) \
  if constexpr (N == 8) WGMMA_SHARED(8, 4, type, 4, 5, 6, 7, 8); \
  if constexpr (N == 16) WGMMA_SHARED(16, 8, type, 8, 9, 10, 11, 12); \
  if constexpr (N == 24) WGMMA_SHARED(24, 12, type, 12, 13, 14, 15, 16); \
  if constexpr (N == 32) WGMMA_SHARED(32, 16, type, 16, 17, 18, 19, 20); \
  if constexpr (N == 48) WGMMA_SHARED(48, 24, type, 24, 25, 26, 27, 28); \
  if constexpr (N == 64) WGMMA_SHARED(64, 32, type, 32, 33, 34, 35, 36); \
  if constexpr (N == 80) WGMMA_SHARED(80, 40, type, 40, 41, 42, 43, 44); \
  if constexpr (N == 96) WGMMA_SHARED(96, 48, type, 48, 49, 50, 51, 52); \
  if constexpr (N == 112) WGMMA_SHARED(112, 56, type, 56, 57, 58, 59, 60); \
  if constexpr (N == 128) WGMMA_SHARED(128, 64, type, 64, 65, 66, 67, 68); \
  if constexpr (N == 160) WGMMA_SHARED(160, 80, type, 80, 81, 82, 83, 84); \
  if constexpr (N == 192) WGMMA_SHARED(192, 96, type, 96, 97, 98, 99, 100); \
  if constexpr (N == 224) WGMMA_SHARED(224, 112, type, 112, 113, 114, 115, 116); \
  if constexpr (N == 256) WGMMA_SHARED(256, 128, type, 128, 129, 130, 131, 132);
#define WGMMA_EACH_FROM_REGISTERS(type) \
  if constexpr (N == 8) WGMMA_FROM_REGISTERS(8, 4, type, 4, 5, 6, 7, 8, 9, 10); \
  if constexpr (N == 16) WGMMA_FROM_REGISTERS(16, 8, type, 8, 9, 10, 11, 12, 13, 14); \
  if constexpr (N == 24) WGMMA_FROM_REGISTERS(24, 12, type, 12, 13, 14, 15, 16, 17, 18); \
  if constexpr (N == 32) WGMMA_FROM_REGISTERS(32, 16, type, 16, 17, 18, 19, 20, 21, 22); \
  if constexpr (N == 48) WGMMA_FROM_REGISTERS(48, 24, type, 24, 25, 26, 27, 28, 29, 30); \
  if constexpr (N == 64) WGMMA_FROM_REGISTERS(64, 32, type, 32, 33, 34, 35, 36, 37, 38); \
  if constexpr (N == 80) WGMMA_FROM_REGISTERS(80, 40, type, 40, 41, 42, 43, 44, 45, 46); \
  if constexpr (N == 96) WGMMA_FROM_REGISTERS(96, 48, type, 48, 49, 50, 51, 52, 53, 54); \
  if constexpr (N == 112) WGMMA_FROM_REGISTERS(112, 56, type, 56, 57, 58, 59, 60, 61, 62); \
  if constexpr (N == 128) WGMMA_FROM_REGISTERS(128, 64, type, 64, 65, 66, 67, 68, 69, 70); \
  if constexpr (N == 160) WGMMA_FROM_REGISTERS(160, 80, type, 80, 81, 82, 83, 84, 85, 86); \
  if constexpr (N == 192) WGMMA_FROM_REGISTERS(192, 96, type, 96, 97, 98, 99, 100, 101, 102); \
  if constexpr (N == 224) WGMMA_FROM_REGISTERS(224, 112, type, 112, 113, 114, 115, 116, 117, 118); \
  if constexpr (N == 256) WGMMA_FROM_REGISTERS(256, 128, type, 128, 129, 130, 131, 132, 133, 134);
// clang-format on

template <int N>
inline constexpr bool kIsWgmmaColumns =
    N % 8 == 0 && (N == 8 || N == 24 || (N <= 128 && N % 16 == 0) || (N <= 256 && N % 32 == 0));

// d (+)= a b of a warpgroup: a of 64 x 16, b of 16 x N, both in shared memory, d in fp32; T is Half or
// BFloat16. Without `accumulate` d is only written. kTransposeA: a is M-major; kTransposeB: b is N-major
// (K-major means that neighbours in memory are neighbours in K). All four warps call it with the same
// arguments. Warp w of the group has rows 16 w to 16 w + 15: d[4 j + 2 h + i] is element (16 w + g + 8 h, 8 j
// + 2 t + i), with g = lane / 4 and t = lane % 4, as the d of mma() for each 8 columns.
template <class T, int N, bool kTransposeA = false, bool kTransposeB = false>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate PTX_WHERE) {
  static_assert(sizeof(T) == 2 && kIsWgmmaColumns<N>);
#if defined(ISOPOLICY_EMULATED)
  emulation::wgmma({d, N, DTypeOf<T>::value, nullptr, a, b, kTransposeA, kTransposeB, accumulate}, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (std::is_same_v<T, Half>) {
    WGMMA_EACH_SHARED("f16")
  } else {
    WGMMA_EACH_SHARED("bf16")
  }
#else
  __trap();
#endif
}

// The same with a in registers, as the a of mma() for the warp's 16 rows.
template <class T, int N, bool kTransposeB = false>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,
                                      bool accumulate PTX_WHERE) {
  static_assert(sizeof(T) == 2 && kIsWgmmaColumns<N>);
#if defined(ISOPOLICY_EMULATED)
  emulation::wgmma({d, N, DTypeOf<T>::value, a, 0, b, false, kTransposeB, accumulate}, where);
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (std::is_same_v<T, Half>) {
    WGMMA_EACH_FROM_REGISTERS("f16")
  } else {
    WGMMA_EACH_FROM_REGISTERS("bf16")
  }
#else
  __trap();
#endif
}

}  // namespace isopolicy::cuda
