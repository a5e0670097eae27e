// Products of 16-bit numbers on capability 90 (gemm_hopper.cu).
#pragma once
#include "cuda/launcher.h"
#include "ops/gemm.h"

namespace isopolicy::cuda {

// Whether products of this kind go that way. It must not depend on m, n, the batch or where operands lie: the
// tensor cores add in another order there than for mma.sync.
bool hopperTakes(const GemmArgs& args, const Launcher& gpu);
// The product, in one chain of sums (the training family's) or two (the rollout family's).
void hopperGemm(const GemmArgs& args, int chains, Launcher& gpu);

}  // namespace isopolicy::cuda
