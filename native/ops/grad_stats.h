#pragma once
#include "core/dtype.h"

namespace isopolicy {

// stats[0] = root mean square of x, its non-finite elements taken as 0; stats[1] = how many those are.
struct GradStatsArgs {
  const void* x;
  float* stats;
  int64_t count;
  DType dtype;
};

class OpCall;
void gradStatsOp(OpCall& call);

}  // namespace isopolicy
