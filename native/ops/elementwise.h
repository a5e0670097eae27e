#pragma once
#include "core/dtype.h"

namespace isopolicy {

enum class ElementwiseKind : uint8_t { add, multiply, scale };

struct ElementwiseArgs {
  const void* a;
  const void* b;  // null for scale
  void* out;
  int64_t count;
  float factor;  // of scale
  ElementwiseKind kind;
  DType dtype;
};

struct AccumulateArgs {
  float* target;
  const void* x;
  int64_t count;
  DType dtype;  // of x
};

class OpCall;
void addOp(OpCall& call);
void multiplyOp(OpCall& call);
void scaleOp(OpCall& call);
void accumulateOp(OpCall& call);

}  // namespace isopolicy
