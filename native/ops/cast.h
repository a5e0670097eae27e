#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct CastArgs {
  const void* from;
  void* to;
  int64_t count;
  DType fromType, toType;
};

class OpCall;
void castOp(OpCall& call);

}  // namespace isopolicy
