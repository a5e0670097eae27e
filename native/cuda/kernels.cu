// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerCast(Registry&);
void registerColumns(Registry&);
void registerElementwise(Registry&);
void registerEmbedding(Registry&);
void registerEmbeddingBackward(Registry&);
void registerMemory(Registry&);
void registerRmsNorm(Registry&);
void registerRmsNormBackward(Registry&);
void registerRope(Registry&);
void registerSwiglu(Registry&);

// rollout/ and training/

void registerKernels(Registry& registry) {
  registerCast(registry);
  registerColumns(registry);
  registerElementwise(registry);
  registerEmbedding(registry);
  registerEmbeddingBackward(registry);
  registerMemory(registry);
  registerRmsNorm(registry);
  registerRmsNormBackward(registry);
  registerRope(registry);
  registerSwiglu(registry);
}

}  // namespace isopolicy::cuda
