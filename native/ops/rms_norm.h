#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct RmsNormArgs {
  const void* x;
  const void* delta;  // null: no residual to add
  const void* weight;
  void* sum;  // x + delta, rounded; null without delta
  void* y;
  int64_t rows, width;
  float eps;
  int roundings;
  bool roundedSum;  // the norm is that of the rounded sum
  DType dtype;
};

struct RmsNormBackwardArgs {
  const void* dSum;  // null: the input has no gradient but the norm's
  const void* dy;
  const void* x;
  const void* delta;  // null: x is the input, and the norm's gradient is rounded before dSum is added
  const void* weight;
  float* gradWeight;  // null: not wanted
  void* dx;
  int64_t rows, width;
  float eps;
  DType dtype;
};

class OpCall;
void rmsNormOp(OpCall& call);
void addRmsNormOp(OpCall& call);
void rmsNormBackwardOp(OpCall& call);
void addRmsNormBackwardOp(OpCall& call);

}  // namespace isopolicy
