// The weight of a linear layer in the layout that the products read: packed once, used by many calls.
//
// [N, K] becomes panels of some columns of the product by all of k, k padded to whole steps. The layout is
// the vector level's own and no promise: only linear reads it, at the level that packed it.
#pragma once
#include "core/dtype.h"
#include "core/registry.h"
#include "core/shape.h"

namespace isopolicy {

struct PackedLayout {
  int64_t columns, stepLength;  // of a panel; k of a step
};

constexpr PackedLayout packedLayoutOf(VectorLevel level, DType dtype) {
  const int64_t columns = level >= VectorLevel::avx512 ? 32 : 16;
  const bool halves = dtype == DType::float16 || dtype == DType::bfloat16;
  if (level == VectorLevel::amx && halves) return {columns, 32};
  if (level == VectorLevel::avx512bf16 && dtype == DType::bfloat16) return {columns, 2};
  return {columns, 1};
}

struct PackWeightArgs {
  const void* weight;  // [n, k]
  void* packed;        // [panels][k in whole steps][columns]
  int64_t n, k;
  DType dtype;
};

class OpCall;
void packWeightOp(OpCall& call);
// The shape of an [n, k] weight once packed.
Shape packedShape(VectorLevel level, DType dtype, int64_t n, int64_t k);

}  // namespace isopolicy
