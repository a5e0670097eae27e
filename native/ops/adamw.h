#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct AdamWArgs {
  float* master;
  const float* grad;
  float *m, *v;
  void* compute;  // the rounded master; null for none
  int64_t count;
  float gradScale;
  float decay;                 // 1 - lr * weightDecay
  float beta1, oneMinusBeta1;  // of the first moment
  float beta2, oneMinusBeta2;  // of the second
  float stepSize;              // lr / (1 - beta1^step)
  float secondCorrection;      // sqrt(1 - beta2^step)
  float eps;
  DType computeType;
};

class OpCall;
void adamwOp(OpCall& call);

}  // namespace isopolicy
