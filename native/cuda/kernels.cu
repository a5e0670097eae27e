// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerMemory(Registry&);

// rollout/ and training/

void registerKernels(Registry& registry) { registerMemory(registry); }

}  // namespace isopolicy::cuda
