// Products of a warpgroup for the emulated build.
#pragma once
#include "cuda/emulation/tma.h"

namespace isopolicy::emulation {

// d (64 x n, this thread's part) += a b. A comes from registers where `a` is not null, else from shared
// memory.
struct WgmmaOperands {
  float* d;
  int n;
  DType dtype;
  const uint32_t* a;
  uint64_t descriptorA, descriptorB;
  bool transposeA, transposeB, accumulate;
};
void wgmma(WgmmaOperands operands, const Where& where);
void wgmmaFence(const Where& where);
void wgmmaCommit(const Where& where);
void wgmmaWait(size_t pendingGroups, const Where& where);
void setRegisters(const Where& where);

}  // namespace isopolicy::emulation
