#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct RopeArgs {
  const void* x;
  const float* table;  // [positionCount, headDim / 2, (cos, sin)]
  const int32_t* positions;
  void* y;  // may be x
  int64_t tokens, heads, headDim, rotatedHeads, positionCount;
  int roundings;
  bool table16, inverse;
  DType dtype;
};

class OpCall;
void ropeOp(OpCall& call);
void ropeBackwardOp(OpCall& call);

}  // namespace isopolicy
