// The CPU's memory, which its allocator and the scratch of kernels are cut from.
#pragma once
#include "core/allocator.h"

namespace isopolicy {

// Blocks of all sizes side by side on huge pages, where the system has them. On pages of 4 KiB a pass over
// the parameters of a model waits for the TLB and for the processor's own prefetching, which stops at the end
// of each, and tensors of less than 2 MiB have no other pages of their own.
MemorySource& hostMemory();

}  // namespace isopolicy
