// Every CPU kernel, in one visible table.
#include "cpu/kernels.h"

#include "core/registry.h"
#include "ops/memory.h"

namespace isopolicy {

// shared/
void registerCast(Registry&);

void registerCpuKernels(Registry& registry) {
  registerMemory(registry);
  registerCast(registry);
}

}  // namespace isopolicy
