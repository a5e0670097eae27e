// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerCast(Registry&);
void registerMemory(Registry&);
void registerPackWeight(Registry&);

// rollout/ and training/
void registerRolloutGemm(Registry&);
void registerTrainingGemm(Registry&);

void registerKernels(Registry& registry) {
  registerCast(registry);
  registerMemory(registry);
  registerPackWeight(registry);
  registerRolloutGemm(registry);
  registerTrainingGemm(registry);
}

}  // namespace isopolicy::cuda
