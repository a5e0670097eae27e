// The outputs of the experts of a token, weighted and added.
#pragma once
#include "core/dtype.h"

namespace isopolicy {

// out[t] = sum over the slots s, in their order, of weights[t, s] y[rows[t, s]], in fp32, rounded once. With
// three roundings the weights, the products and each sum are rounded to the dtype of y.
struct CombineExpertsArgs {
  const void* y;         // [tokens k, width]
  const float* weights;  // [tokens, k]
  const int32_t* rows;   // [tokens, k], a permutation of the rows of y
  void* out;             // [tokens, width]
  int64_t tokens, k, width;
  int roundings;
  DType dtype;
};

// dY[rows[t, s]] = weights[t, s] dOut[t], dWeights[t, s] = dOut[t] . y[rows[t, s]]
struct CombineExpertsBackwardArgs {
  const void* dOut;  // [tokens, width]
  const void* y;
  const float* weights;
  const int32_t* rows;
  void* dY;         // like y
  float* dWeights;  // [tokens, k]
  int64_t tokens, k, width;
  DType dtype;
};

class OpCall;
void combineExpertsOp(OpCall& call);
void combineExpertsBackwardOp(OpCall& call);

}  // namespace isopolicy
