#include "ops/pack_weight.h"

#include "ops/op.h"

namespace isopolicy {

Shape packedShape(VectorLevel level, DType dtype, int64_t n, int64_t k) {
  const auto [columns, stepLength] = packedLayoutOf(level, dtype);
  return {(n + columns - 1) / columns, (k + stepLength - 1) / stepLength * stepLength, columns};
}

// packWeight(weight [N, K], out?) -> the packed weight, in a new tensor or in `out`.
void packWeightOp(OpCall& call) {
  const Tensor weight = call.tensor("weight");
  const auto into = call.optionalTensor("out");
  call.expectFloat("weight", weight);
  call.expectRank("weight", weight, 2, "[N, K]");
  const int64_t n = weight.shape[0], k = weight.shape[1];
  const Shape shape = packedShape(call.context.vectorLevel, weight.dtype, n, k);
  if (into) {
    call.expectShape("out", *into, shape);
    call.expectDtype("out", *into, weight.dtype);
  }
  const Tensor out = into ? *into : call.output(weight.dtype, shape);
  call.enqueue(Family::shared, PackWeightArgs{weight.data(), out.data(), n, k, weight.dtype},
               {&weight, &out});
}

}  // namespace isopolicy
