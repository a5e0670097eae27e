// Compiles the including file's kernels once for every vector level.
//
// A kernel file is written like this (see cpu/shared/cast.cc):
//
//     #include "cpu/shared/kernel.h"            // ordinary headers, before anything else
//     #define ISA_KERNELS "cpu/shared/cast.cc"  // its own path
//     #include "cpu/shared/each_isa.h"
//     #ifdef ISA_PASS
//     namespace isopolicy::ISA_PASS { void cast(const CastArgs& args, Workers& workers) { ... } }
//     #else
//     namespace isopolicy { void registerCast(Registry& r) { r.add<CastArgs>(..., ISA_VARIANTS(cast)); } }
//     #endif
//
// On the first inclusion this header includes the file again, once a level, inside the compiler's target
// pragma and with ISA_PASS naming the namespace (portable, avx2, avx512); simd.h gives the vector type of
// that level. Functions compiled for a level live in that level's namespace alone, so no copy of an AVX-512
// function can end up in portable code. Standard headers must be included before, never inside a pass.
//
// Levels avx512bf16 and amx add products of 16-bit numbers to avx512, and nothing else. A kernel with
// products in it defines ISA_PRODUCTS before it includes this header and is compiled for them, too; all
// others run what they have for avx512. Even there only some types are multiplied in another way
// (ownsProducts in simd.h): a kernel gives the others to the level below by ISA_BELOW_UNLESS_OWN and has no
// code for them.
//
// A build may leave levels out (ISOPOLICY_LEVELS in core/registry.h): the level below then stands for them.
#ifndef ISA_PASS

#define ISA_BELOW_UNLESS_OWN(dtype, call) static_cast<void>(0)

#define ISA_PASS portable
#define ISA_LEVEL 0
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
#define ISA_AT_PORTABLE(f) portable::f

#if defined(__clang__)
#define ISA_PUSH(features) \
  _Pragma(ISA_TEXT(clang attribute push(__attribute__((target(features))), apply_to = function)))
#define ISA_POP _Pragma("clang attribute pop")
#else
#define ISA_PUSH(features) _Pragma("GCC push_options") _Pragma(ISA_TEXT(GCC target(features)))
#define ISA_POP _Pragma("GCC pop_options")
#endif
#define ISA_TEXT(x) #x

#if ISOPOLICY_LEVELS & 2
ISA_PUSH("avx2,fma,f16c")
#define ISA_PASS avx2
#define ISA_LEVEL 1
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP
#define ISA_AT_AVX2(f) avx2::f
#else
#define ISA_AT_AVX2(f) ISA_AT_PORTABLE(f)
#endif

#if ISOPOLICY_LEVELS & 4
ISA_PUSH("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#define ISA_PASS avx512
#define ISA_LEVEL 2
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP
#define ISA_AT_AVX512(f) avx512::f
#else
#define ISA_AT_AVX512(f) ISA_AT_AVX2(f)
#endif

#undef ISA_BELOW_UNLESS_OWN
#define ISA_BELOW_UNLESS_OWN(dtype, call) \
  if (!ownsProducts(dtype)) return ISA_BELOW::call

#if defined(ISA_PRODUCTS) && (ISOPOLICY_LEVELS & 8)
ISA_PUSH("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#define ISA_BELOW avx512
#define ISA_PASS avx512bf16
#define ISA_LEVEL 3
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_BELOW
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP
#define ISA_AT_AVX512BF16(f) avx512bf16::f
#else
#define ISA_AT_AVX512BF16(f) ISA_AT_AVX512(f)
#endif

#if defined(ISA_PRODUCTS) && (ISOPOLICY_LEVELS & 16)
ISA_PUSH("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
#define ISA_BELOW avx512bf16
#define ISA_PASS amx
#define ISA_LEVEL 4
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_BELOW
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP
#define ISA_AT_AMX(f) amx::f
#else
#define ISA_AT_AMX(f) ISA_AT_AVX512BF16(f)
#endif

#define ISA_VARIANTS(f) \
  { ISA_AT_PORTABLE(f), ISA_AT_AVX2(f), ISA_AT_AVX512(f), ISA_AT_AVX512BF16(f), ISA_AT_AMX(f) }

#endif
