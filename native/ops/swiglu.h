#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct SwigluArgs {
  const void* gateUp;  // [rows, 2 * width]: gate, then up
  void* y;             // [rows, width]
  int64_t rows, width;
  int roundings;
  DType dtype;
};

struct SwigluBackwardArgs {
  const void* dOut;
  const void* gateUp;
  void* dGateUp;  // may be gateUp
  int64_t rows, width;
  DType dtype;
};

class OpCall;
void swigluOp(OpCall& call);
void swigluBackwardOp(OpCall& call);

}  // namespace isopolicy
