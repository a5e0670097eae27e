// The router of a mixture-of-experts layer: which experts a token goes to, and with which weights.
#pragma once
#include "core/dtype.h"

namespace isopolicy {

// With p the softmax of a token's logits over all experts: the k experts of the largest logits, of equals the
// lower ids, in that order, or those that are given; the weight of each is its p, or, normalised, its share
// of the p of the k.
struct RouteArgs {
  const void* logits;    // [tokens, experts]
  const int32_t* given;  // [tokens, k] or null
  int32_t* ids;          // [tokens, k], null where they are given
  float* weights;        // [tokens, k]
  int64_t tokens, experts, k;
  bool normalize;
  bool strict;  // a token whose experts have no weights is an error; else these are NaN
  DType dtype;
};

struct RouterBackwardArgs {
  const float* dWeights;  // [tokens, k]
  const void* logits;     // [tokens, experts]
  const int32_t* ids;     // [tokens, k]
  void* dLogits;          // [tokens, experts]
  int64_t tokens, experts, k;
  bool normalize;
  DType dtype;
};

// How often each expert was chosen, and the sum of p over the tokens.
struct RouterLoadArgs {
  const void* logits;  // [tokens, experts]
  const int32_t* ids;  // [tokens, k]
  int32_t* counts;     // [experts]
  float* sums;         // [experts]
  int64_t tokens, experts, k;
  DType dtype;
};

// Throws a DeviceError for the first id that is no expert's.
void checkExpertIds(const int32_t* ids, int64_t count, int64_t experts);

class OpCall;
void routeOp(OpCall& call);
void routerWeightsOp(OpCall& call);
void routerWeightsBackwardOp(OpCall& call);
void routerLoadOp(OpCall& call);

}  // namespace isopolicy
