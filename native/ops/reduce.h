#pragma once
#include "core/dtype.h"

namespace isopolicy {

enum class Reduction : uint8_t { sum = 0, mean = 1, max = 2 };

// out[r] = the reduction of x[r, 0..width).
struct ReduceArgs {
  const void* x;
  float* out;
  int64_t rows, width;
  DType dtype;
  Reduction kind;
};
// out[c] += the sum over rows of x[row, columnOffset + c].
struct ColumnSumArgs {
  const void* x;
  float* out;
  int64_t rows, width, columnOffset, count;
  DType dtype;
};

class OpCall;
void reduceOp(OpCall& call);
void columnSumOp(OpCall& call);

}  // namespace isopolicy
