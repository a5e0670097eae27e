// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerCast(Registry&);
void registerMemory(Registry&);
void registerPackWeight(Registry&);
void registerRoute(Registry&);
void registerGroupByExpert(Registry&);
void registerGroupedLinear(Registry&);
void registerCombineExperts(Registry&);

// rollout/ and training/
void registerRolloutGemm(Registry&);
void registerTrainingGemm(Registry&);

void registerKernels(Registry& registry) {
  registerCast(registry);
  registerMemory(registry);
  registerPackWeight(registry);
  registerRoute(registry);
  registerGroupByExpert(registry);
  registerGroupedLinear(registry);
  registerCombineExperts(registry);
  registerRolloutGemm(registry);
  registerTrainingGemm(registry);
}

}  // namespace isopolicy::cuda
