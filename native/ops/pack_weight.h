// The weight of a linear layer in the layout that the products read: packed once, used by many calls.
//
// [N, K] becomes panels of some columns of the product by all of k, k padded to whole steps. The layout is
// the vector level's own and no promise: only linear and groupedLinear read it, at the level that packed it.
// On CUDA it is the weight's own, [N, K].
// Of weights [E, N, K] each is packed on its own, one behind the other.
#pragma once
#include <string>

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

// Of a weight on CUDA.
inline constexpr PackedLayout kPlainLayout = {1, 1};

struct PackWeightArgs {
  const void* weight;  // [experts, n, k]
  void* packed;        // [experts][panels][k in whole steps][columns]
  int64_t experts, n, k;
  DType dtype;
};

// What a packed weight is said to be.
struct PackedClaim {
  int64_t n, k;
  VectorLevel level;
  int64_t experts = 1;
};

struct Tensor;
class OpCall;
void packWeightOp(OpCall& call);
// Checks that a tensor is what it is said to be and that a product over k can read it; `wanted` is what the
// message expects of its shape.
void expectPacked(const OpCall& call, const char* name, const Tensor& packed, const PackedClaim& claim,
                  int64_t k, int64_t splitK, const std::string& wanted);

}  // namespace isopolicy
