// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerCast(Registry&);
void registerMemory(Registry&);

// rollout/ and training/
void registerRolloutAttention(Registry&);
void registerRolloutKvCache(Registry&);

void registerKernels(Registry& registry) {
  registerCast(registry);
  registerMemory(registry);
  registerRolloutAttention(registry);
  registerRolloutKvCache(registry);
}

}  // namespace isopolicy::cuda
