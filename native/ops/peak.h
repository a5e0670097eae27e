#pragma once
#include <cstdint>

namespace isopolicy {

enum class PeakKind : uint8_t { fma = 0, bf16 = 1, read = 2, copy = 3, amx = 4 };

// One pass of the arithmetic kinds, known to lib/ops/peak.ts, is worth kPeakSteps operations on each of
// kPeakAccumulators vectors of 16 lanes, however many of them a kernel has in flight.
inline constexpr int64_t kPeakSteps = 4096;
inline constexpr int kPeakAccumulators = 12;
// Of kind amx: so many steps of 16 x 16 x 32 multiply-adds on each of so many tiles.
inline constexpr int64_t kPeakTileSteps = 1024;
inline constexpr int kPeakTiles = 4;

struct PeakArgs {
  PeakKind kind;
  int64_t passes;
  float factor, addend;  // arguments, so that the compiler cannot compute the result itself
  float* memory;         // of `read` and `copy`
  int64_t count;         // fp32 elements of memory
  float* out;            // one element
};

class OpCall;
void peakOp(OpCall& call);

}  // namespace isopolicy
