// One linear layer an expert, on rows sorted by expert.
#pragma once
#include "core/dtype.h"

namespace isopolicy {

// With e the expert of row r, offsets[e] <= r < offsets[e + 1]: y[r] = weight[e] x[r]. The sum of an element
// is that of gemm in the same family.
struct GroupedLinearArgs {
  const void* x;           // [rows, k]
  const void* weight;      // [experts, n, k], or packed (ops/pack_weight.h)
  const int32_t* offsets;  // [experts + 1]
  void* y;                 // [rows, n]
  int64_t rows, k, n, experts;
  int64_t weightBytes;  // of an expert
  bool packed;
  int splitK;
  DType dtype;
};

// dx[r] = dy[r] weight[e]
struct GroupedLinearInputGradientArgs {
  const void* dy;          // [rows, n]
  const void* weight;      // [experts, n, k]
  const int32_t* offsets;  // [experts + 1]
  void* dx;                // [rows, k]
  int64_t rows, k, n, experts;
  DType dtype;
};

// grad[e] = or += sum over the rows r of e of dy[r]^T x[r]
struct GroupedLinearWeightGradientArgs {
  const void* dy;          // [rows, n]
  const void* x;           // [rows, k]
  const int32_t* offsets;  // [experts + 1]
  float* grad;             // [experts, n, k]
  int64_t rows, k, n, experts;
  bool accumulate;
  DType dtype;
};

class OpCall;
void groupedLinearOp(OpCall& call);
void groupedLinearInputGradientOp(OpCall& call);
void groupedLinearWeightGradientOp(OpCall& call);

}  // namespace isopolicy
