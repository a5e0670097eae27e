#pragma once
#include "core/dtype.h"

namespace isopolicy {

// A block of `width` columns of rows that lie `stride` elements apart, scaled: out = round(x * factor), or
// with a target there: target = round(target + round(x * factor)).
struct ColumnsArgs {
  const void* x;
  int64_t xStride;
  void* out;
  int64_t outStride;
  int64_t rows, width;
  float factor;
  bool add;
  DType dtype;
};

class OpCall;
void scaleColumnsOp(OpCall& call);
void addToColumnsOp(OpCall& call);

}  // namespace isopolicy
