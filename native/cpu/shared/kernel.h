// What every CPU kernel file includes first: the argument structs, the registry, the workers, and the
// standard headers that the passes of each_isa.h may use.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/dtype.h"
#include "core/registry.h"
#include "core/workers.h"

// Vector helpers must be inlined: a vector type has no calling convention of its own at the portable level.
#define ISA_INLINE inline __attribute__((always_inline))

// For the function around a loop: all that it calls is inlined, so that constants stay in registers.
#define ISA_FLATTEN __attribute__((flatten))
