// The language of kernels, for the emulated build: keywords, built-in variables, intrinsics.
#pragma once
#include <cmath>
#include <cstring>
#include <type_traits>

#include "executor.h"

#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) alignas(bytes)
// One kernel runs at a time, and its blocks one after the other: what is shared by a block is shared by all.
#define __shared__ static

#define threadIdx (::isopolicy::emulation::current->index)
#define blockIdx (::isopolicy::emulation::current->blockIndex)
#define blockDim (::isopolicy::emulation::blockSize)
#define gridDim (::isopolicy::emulation::gridSize)
constexpr int warpSize = 32;

// ---- barriers ----

inline void __syncthreads(isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  isopolicy::emulation::barrier("__syncthreads", 0, 0, true, where);
}
inline int __syncthreads_count(int predicate,
                               isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return isopolicy::emulation::barrierCount("__syncthreads_count", predicate != 0, where);
}
inline int __syncthreads_or(int predicate,
                            isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return isopolicy::emulation::barrierCount("__syncthreads_or", predicate != 0, where) != 0;
}
inline int __syncthreads_and(int predicate,
                             isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return isopolicy::emulation::barrierCount("__syncthreads_and", predicate == 0, where) == 0;
}
inline void __syncwarp(unsigned mask = 0xffffffffu,
                       isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  isopolicy::emulation::meetWarp("__syncwarp", mask, nullptr, nullptr, where);
}
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __threadfence_system() {}

// ---- exchanges within a warp ----

namespace isopolicy::emulation {

// Brings bits, gets bits: of the lane that `source` names. All that is exchanged is at most 64 bits wide.
struct Exchange {
  uint64_t brought, got;
  unsigned source;
};
uint64_t shuffle(const char* what, unsigned mask, uint64_t bits, unsigned source, const Where& where);
enum class Combine { ballot, sum, least, greatest, leastSigned, greatestSigned, bitAnd, bitOr, bitXor };
unsigned combine(const char* what, unsigned mask, unsigned bits, Combine by, const Where& where);
unsigned lanesWithSame(const char* what, unsigned mask, uint64_t bits, const Where& where);

template <class T>
uint64_t bitsFor(T value) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T valueOf(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T>
T shuffled(const char* what, unsigned mask, T value, unsigned source, const Where& where) {
  return valueOf<T>(shuffle(what, mask, bitsFor(value), source, where));
}

}  // namespace isopolicy::emulation

// Within segments of `width` lanes; where the source lies outside, a lane gets its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32,
              isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  const unsigned lane = isopolicy::emulation::current->lane;
  const unsigned from = (lane & ~unsigned(width - 1)) | (unsigned(source) & unsigned(width - 1));
  return isopolicy::emulation::shuffled("__shfl_sync", mask, value, from, where);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32,
                  isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  const unsigned lane = isopolicy::emulation::current->lane, from = lane ^ unsigned(lanes);
  const bool inside = from <= (lane | unsigned(width - 1));
  return isopolicy::emulation::shuffled("__shfl_xor_sync", mask, value, inside ? from : lane, where);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                   isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  const unsigned lane = isopolicy::emulation::current->lane, from = lane + lanes;
  const bool inside = from <= (lane | unsigned(width - 1));
  return isopolicy::emulation::shuffled("__shfl_down_sync", mask, value, inside ? from : lane, where);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32,
                 isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  const unsigned lane = isopolicy::emulation::current->lane;
  const bool inside = lane >= (lane & ~unsigned(width - 1)) + lanes;
  return isopolicy::emulation::shuffled("__shfl_up_sync", mask, value, inside ? lane - lanes : lane, where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return isopolicy::emulation::combine("__ballot_sync", mask, predicate != 0,
                                       isopolicy::emulation::Combine::ballot, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return __ballot_sync(mask, predicate, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return __ballot_sync(mask, predicate, where) == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value,
                          isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) {
  return isopolicy::emulation::lanesWithSame("__match_any_sync", mask, isopolicy::emulation::bitsFor(value),
                                             where);
}
#define EMULATION_REDUCE(name, Type, by)                                                         \
  inline Type name(unsigned mask, Type value,                                                    \
                   isopolicy::emulation::Where where = isopolicy::emulation::Where::current()) { \
    return Type(isopolicy::emulation::combine(#name, mask, unsigned(value),                      \
                                              isopolicy::emulation::Combine::by, where));        \
  }
EMULATION_REDUCE(__reduce_add_sync, unsigned, sum)
EMULATION_REDUCE(__reduce_add_sync, int, sum)
EMULATION_REDUCE(__reduce_min_sync, unsigned, least)
EMULATION_REDUCE(__reduce_min_sync, int, leastSigned)
EMULATION_REDUCE(__reduce_max_sync, unsigned, greatest)
EMULATION_REDUCE(__reduce_max_sync, int, greatestSigned)
EMULATION_REDUCE(__reduce_and_sync, unsigned, bitAnd)
EMULATION_REDUCE(__reduce_or_sync, unsigned, bitOr)
EMULATION_REDUCE(__reduce_xor_sync, unsigned, bitXor)
#undef EMULATION_REDUCE

// ---- atomics: one thread runs at a time ----

template <class T, class Body>
T emulatedAtomic(T* at, Body body) {
  static_assert(std::is_integral_v<T>, "float atomics would make results depend on the order of threads");
  const T old = *at;
  *at = T(body(old));
  return old;
}
template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return old + value; });
}
template <class T>
T atomicSub(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return old - value; });
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return value < old ? value : old; });
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return value > old ? value : old; });
}
template <class T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return old & value; });
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return old | value; });
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T) { return value; });
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  return emulatedAtomic(at, [=](T old) { return old == compare ? value : old; });
}
inline unsigned atomicInc(unsigned* at, unsigned limit) {
  return emulatedAtomic(at, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}

// ---- loads, bits, numbers ----

template <class T>
T __ldg(const T* from) {
  return *from;
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; i++) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned __float_as_uint(float x) {
  return isopolicy::emulation::valueOf<unsigned>(isopolicy::emulation::bitsFor(x));
}
inline int __float_as_int(float x) { return int(__float_as_uint(x)); }
inline float __uint_as_float(unsigned x) { return isopolicy::emulation::valueOf<float>(x); }
inline float __int_as_float(int x) { return __uint_as_float(unsigned(x)); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline float __int2float_rn(int x) { return float(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
// Fast versions, which on a GPU are less exact than these.
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return float(1.0 / std::sqrt(double(x))); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

// As CUDA's: of integers of one type or, where one is unsigned, as unsigned ones; of floats the one that is
// no NaN.
template <class A, class B>
constexpr auto min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return T(std::fmin(T(a), T(b)));
  } else {
    return T(a) < T(b) ? T(a) : T(b);
  }
}
template <class A, class B>
constexpr auto max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) {
    return T(std::fmax(T(a), T(b)));
  } else {
    return T(a) > T(b) ? T(a) : T(b);
  }
}
