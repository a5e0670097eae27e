// Matrix products for other kernels: what GemmArgs promises, in the order of sums of a family.
#pragma once
#include "core/numerics.h"
#include "cuda/launcher.h"
#include "ops/gemm.h"

namespace isopolicy::cuda {

// One chain of sums an element, k from 0 to k - 1 (training/gemm.cu).
void trainingGemm(const GemmArgs& args, Launcher& gpu);
// Two chains, of the even and of the odd steps of k (rollout/gemm.cu).
void rolloutGemm(const GemmArgs& args, Launcher& gpu);

// The product in the order of that family. The scratch memory that it takes where k is split is free
// afterwards.
inline void launchGemm(const GemmArgs& args, Family family, Launcher& gpu) {
  const Launcher::ScratchScope scope(gpu);
  if (family == Family::rollout)
    rolloutGemm(args, gpu);
  else
    trainingGemm(args, gpu);
}

}  // namespace isopolicy::cuda
