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
// pragma and with ISA_PASS naming the namespace (portable, avx2, avx512, avx512bf16); simd.h gives the vector
// type of that level. Functions compiled for a level live in that level's namespace alone, so no copy of an
// AVX-512 function can end up in portable code. Standard headers must be included before, never inside a
// pass.
//
// Level amx adds tiles of bf16 to avx512bf16. A kernel with products in it defines ISA_TILES before it
// includes this header and is compiled for amx, too; all others run at that level what they have for
// avx512bf16.
#ifndef ISA_PASS

#define ISA_PASS portable
#define ISA_LEVEL 0
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL

#if defined(__x86_64__)

#if defined(__clang__)
#define ISA_PUSH(features) \
  _Pragma(ISA_TEXT(clang attribute push(__attribute__((target(features))), apply_to = function)))
#define ISA_POP _Pragma("clang attribute pop")
#else
#define ISA_PUSH(features) _Pragma("GCC push_options") _Pragma(ISA_TEXT(GCC target(features)))
#define ISA_POP _Pragma("GCC pop_options")
#endif
#define ISA_TEXT(x) #x

ISA_PUSH("avx2,fma,f16c")
#define ISA_PASS avx2
#define ISA_LEVEL 1
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP

ISA_PUSH("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#define ISA_PASS avx512
#define ISA_LEVEL 2
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP

ISA_PUSH("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
#define ISA_PASS avx512bf16
#define ISA_LEVEL 3
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP

#if defined(ISA_TILES) && !defined(ISOPOLICY_NO_AMX)
ISA_PUSH("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")
#define ISA_PASS amx
#define ISA_LEVEL 4
#include "cpu/shared/simd.h"
#include ISA_KERNELS
#undef ISA_PASS
#undef ISA_LEVEL
ISA_POP
#define ISA_VARIANTS(f) \
  { portable::f, avx2::f, avx512::f, avx512bf16::f, amx::f }
#else
#define ISA_VARIANTS(f) \
  { portable::f, avx2::f, avx512::f, avx512bf16::f, avx512bf16::f }
#endif

#else
#define ISA_VARIANTS(f) \
  { portable::f, portable::f, portable::f, portable::f, portable::f }
#endif

#endif
