// Every CPU kernel, in one visible table.
#include "cpu/kernels.h"

#include "core/registry.h"
#include "ops/memory.h"

namespace isopolicy {

// shared/
void registerCast(Registry&);
void registerReduce(Registry&);
void registerGradStats(Registry&);
void registerEmbeddingBackward(Registry&);
void registerEmbedding(Registry&);
void registerAdamW(Registry&);

void registerCpuKernels(Registry& registry) {
  registerMemory(registry);
  registerCast(registry);
  registerReduce(registry);
  registerGradStats(registry);
  registerEmbeddingBackward(registry);
  registerEmbedding(registry);
  registerAdamW(registry);
}

}  // namespace isopolicy
