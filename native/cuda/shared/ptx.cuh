// What kernels use of PTX from capability 80 on: matrix fragments, products of a warp, asynchronous copies,
// barriers, conversions. Each function has two bodies, the instruction and the emulator's.
//
// "Lane" is the thread's number in its warp; g = lane / 4, t = lane % 4. A register holds two 16-bit
// elements, the lower one first.
#pragma once
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "core/dtype.h"

#if defined(ISOPOLICY_EMULATED)
#include "cuda/emulation/warp_matrix.h"
#define PTX_WHERE , emulation::Where where = emulation::Where::current()
#define PTX_WHERE_ONLY emulation::Where where = emulation::Where::current()
#else
#define PTX_WHERE
#define PTX_WHERE_ONLY
#endif

namespace isopolicy::cuda {

// ---- shared memory ----

// Dynamic shared memory of the block: 1024-byte aligned, as long as the launch said.
__device__ __forceinline__ unsigned char* dynamicShared() {
#if defined(ISOPOLICY_EMULATED)
  return emulation::current->sharedMemory;
#else
  extern __shared__ __align__(1024) unsigned char isopolicyDynamicShared[];
  return isopolicyDynamicShared;
#endif
}

// The address that instructions on shared memory take. The emulator's begins at 1024 and is of dynamic memory
// only.
__device__ __forceinline__ uint32_t smemAddress(const void* shared) {
#if defined(ISOPOLICY_EMULATED)
  return emulation::sharedAddress(shared);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
#endif
}

// ---- matrix fragments (ldmatrix, stmatrix) ----

// Loads N (1, 2 or 4) matrices of 8 x 8 16-bit elements from shared memory. Lane 8i + r brings the address of
// row r of matrix i (16-byte aligned; lanes from 8N on are not looked at) and gets, in register i, elements
// (g, 2t) and (g, 2t + 1) of matrix i; where kTransposed, elements (2t, g) and (2t + 1, g).
template <bool kTransposed = false, int N>
__device__ __forceinline__ void ldmatrix(uint32_t (&to)[N], const void* row PTX_WHERE) {
  static_assert(N == 1 || N == 2 || N == 4);
#if defined(ISOPOLICY_EMULATED)
  emulation::loadMatrices(to, N, kTransposed, row, where);
#else
  const uint32_t at = smemAddress(row);
  if constexpr (N == 1 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(at) : "memory");
  } else if constexpr (N == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(to[0])
                 : "r"(at)
                 : "memory");
  } else if constexpr (N == 2 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(at)
                 : "memory");
  } else if constexpr (N == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(at)
                 : "memory");
  } else if constexpr (!kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  }
#endif
}

// ---- products of a warp ----

// d += a b with a of 16 x 16 (row-major fragment), b of 16 x 8 (K x N), d of 16 x 8 in fp32; T is Half or
// BFloat16.
//   a[0] (g, 2t..)  a[1] (g + 8, 2t..)  a[2] (g, 2t + 8..)  a[3] (g + 8, 2t + 8..)   as four matrices of
//   ldmatrix b0   k = 2t.., n = g   b1   k = 2t + 8.., n = g    (ldmatrix of a K-contiguous [N, K] tile;
//   transposed of [K, N]) d[0] (g, 2t)  d[1] (g, 2t + 1)  d[2] (g + 8, 2t)  d[3] (g + 8, 2t + 1)
// Products are exact. The emulator adds them in ascending k in fp32; tensor cores add them aligned to the
// largest and cut off, so that the last bits differ from device to device.
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                    uint32_t b1 PTX_WHERE) {
  static_assert(sizeof(T) == 2);
#if defined(ISOPOLICY_EMULATED)
  emulation::multiplyInWarp<T>(d, a, b0, b1, where);
#else
  if constexpr (std::is_same_v<T, Half>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

// ---- asynchronous copies (cp.async) ----

// Begins a copy of kBytes (16, 8 or 4, and both addresses aligned to them) from global to shared memory;
// bytes from `sourceBytes` on are zeros, and with 0 of them `from` is not read. 16 bytes pass the L1 cache
// by. The copy is there after copyWait and then, for other threads, a barrier.
template <int kBytes>
__device__ __forceinline__ void copyAsync(void* to, const void* from, int sourceBytes = kBytes PTX_WHERE) {
  static_assert(kBytes == 16 || kBytes == 8 || kBytes == 4);
#if defined(ISOPOLICY_EMULATED)
  emulation::copyAsync({to, from, kBytes, unsigned(sourceBytes)}, where);
#else
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(smemAddress(to)), "l"(from),
                 "r"(sourceBytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(smemAddress(to)), "l"(from),
                 "n"(kBytes), "r"(sourceBytes)
                 : "memory");
  }
#endif
}
// Ends a group of this thread's copies.
__device__ __forceinline__ void copyCommit() {
#if defined(ISOPOLICY_EMULATED)
  emulation::copyCommit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most kPending of this thread's latest groups are unfinished.
template <int kPending>
__device__ __forceinline__ void copyWait() {
#if defined(ISOPOLICY_EMULATED)
  emulation::copyWait(kPending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}
// Waits for all of this thread's copies, committed or not.
__device__ __forceinline__ void copyWaitAll() {
#if defined(ISOPOLICY_EMULATED)
  emulation::copyWaitAll();
#else
  asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

// ---- named barriers ----

// Barriers 1 to 15 of a part of the block (0 is that of __syncthreads); `threads` is a multiple of 32, those
// that wait and those that only arrive together, and whole warps do either.
__device__ __forceinline__ void barrierSync(int id, int threads PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::barrier("barrierSync", unsigned(id), unsigned(threads), true, where);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}
__device__ __forceinline__ void barrierArrive(int id, int threads PTX_WHERE) {
#if defined(ISOPOLICY_EMULATED)
  emulation::barrier("barrierArrive", unsigned(id), unsigned(threads), false, where);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// ---- global memory ----

// Loads of read-only data that is used once: it does not stay in the L1 cache.
__device__ __forceinline__ uint4 loadOnce(const uint4* from) {
#if defined(ISOPOLICY_EMULATED)
  return *from;
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from));
  return v;
#endif
}
__device__ __forceinline__ uint2 loadOnce(const uint2* from) {
#if defined(ISOPOLICY_EMULATED)
  return *from;
#else
  uint2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(from));
  return v;
#endif
}
__device__ __forceinline__ uint32_t loadOnce(const uint32_t* from) {
#if defined(ISOPOLICY_EMULATED)
  return *from;
#else
  uint32_t v;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(from));
  return v;
#endif
}
// Stores of data that is not read soon: it is the first to leave the caches.
__device__ __forceinline__ void storeStreaming(uint4* to, uint4 v) {
#if defined(ISOPOLICY_EMULATED)
  *to = v;
#else
  asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
#endif
}
__device__ __forceinline__ void storeStreaming(uint2* to, uint2 v) {
#if defined(ISOPOLICY_EMULATED)
  *to = v;
#else
  asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(v.x), "r"(v.y) : "memory");
#endif
}
__device__ __forceinline__ void storeStreaming(uint32_t* to, uint32_t v) {
#if defined(ISOPOLICY_EMULATED)
  *to = v;
#else
  asm volatile("st.global.cs.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
#endif
}

// ---- arithmetic ----

// Within 2 ulp of the function; subnormal results are zeros in the first (the emulator's are not).
__device__ __forceinline__ float exp2Approx(float x) {
#if defined(ISOPOLICY_EMULATED)
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}
__device__ __forceinline__ float reciprocalApprox(float x) {
#if defined(ISOPOLICY_EMULATED)
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// Roundings of fp32 to nearest even; NaN stays NaN (the one NaN of the hardware: 0x7fff), infinities stay.
template <class T>
__device__ __forceinline__ uint16_t roundTo16(float x) {
  static_assert(sizeof(T) == 2);
#if defined(ISOPOLICY_EMULATED)
  return roundTo<T>(x).bits;
#else
  uint16_t bits;
  if constexpr (std::is_same_v<T, Half>) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  } else {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  }
  return bits;
#endif
}
// Two at once: `low` into the lower half of the register.
template <class T>
__device__ __forceinline__ uint32_t roundTo16x2(float low, float high) {
  static_assert(sizeof(T) == 2);
#if defined(ISOPOLICY_EMULATED)
  return roundTo<T>(low).bits | uint32_t(roundTo<T>(high).bits) << 16;
#else
  uint32_t bits;
  if constexpr (std::is_same_v<T, Half>) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  }
  return bits;
#endif
}
__device__ __forceinline__ float halfToFloat(uint16_t bits) {
#if defined(ISOPOLICY_EMULATED)
  return toFloat(Half{bits});
#else
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#endif
}

}  // namespace isopolicy::cuda
