#pragma once
#include "core/dtype.h"
#include "core/numerics.h"

namespace isopolicy {

// The product that makes logits, and what is done to them: the same on the way back as on the way there.
struct LogitsOf {
  const void* hidden;  // [rows, width] of dtype
  const void* weight;  // [columns, width] of dtype
  const int32_t* targets;
  int64_t rows, columns, width;
  float temperature;
  bool logits16;  // logits are rounded to dtype
  DType dtype;
  Family gemmFamily;
  int64_t gemmSplitK;
};

struct LinearLogprobArgs {
  LogitsOf product;
  int64_t chunk;
  float* logprobs;  // [rows]
  float* lse;       // [rows]
  float* entropy;   // [rows]
};

struct LinearLogprobBackwardArgs {
  LogitsOf product;
  const float* dLogprobs;  // [rows]
  const float* lse;        // [rows]
  float* gradWeight;       // [columns, width], added to, or null
  void* dHidden;           // [rows, width] of dtype
};

class OpCall;
void linearLogprobOp(OpCall& call);
void linearLogprobBackwardOp(OpCall& call);

}  // namespace isopolicy
