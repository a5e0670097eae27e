#include "ops/pack_weight.h"

#include "ops/op.h"

namespace isopolicy {

static PackedLayout layoutOf(const OpCall& call, DType dtype) {
  return call.device() == Device::cuda ? kPlainLayout : packedLayoutOf(call.context.vectorLevel, dtype);
}

static Shape packedShape(PackedLayout layout, int64_t experts, int64_t n, int64_t k) {
  const auto [columns, stepLength] = layout;
  return {experts * ((n + columns - 1) / columns), (k + stepLength - 1) / stepLength * stepLength, columns};
}

// packWeight(weight [N, K] or [E, N, K], out?) -> the packed weight, in a new tensor or in `out`.
void packWeightOp(OpCall& call) {
  const Tensor weight = call.tensor("weight");
  const auto into = call.optionalTensor("out");
  call.expectFloat("weight", weight);
  call.expect(weight.shape.rank == 2 || weight.shape.rank == 3,
              "weight of 2 dimensions [N, K] or of 3, [E, N, K]", weight.shape.text());
  const int64_t experts = weight.shape.rank == 3 ? weight.shape[0] : 1;
  const int64_t n = weight.shape[-2], k = weight.shape[-1];
  const Shape shape = packedShape(layoutOf(call, weight.dtype), experts, n, k);
  if (into) {
    call.expectShape("out", *into, shape);
    call.expectDtype("out", *into, weight.dtype);
  }
  const Tensor out = into ? *into : call.output(weight.dtype, shape);
  call.enqueue(Family::shared, PackWeightArgs{weight.data(), out.data(), experts, n, k, weight.dtype},
               {&weight, &out});
}

void expectPacked(const OpCall& call, const char* name, const Tensor& packed, const PackedClaim& claim,
                  int64_t k, int64_t splitK, const std::string& wanted) {
  const VectorLevel now = call.context.vectorLevel;
  call.expect(claim.level == now,
              std::string(name) + " to be packed at the vector level in use, " + nameOf(now),
              nameOf(claim.level));
  call.expect(
      claim.k == k && packed.shape == packedShape(layoutOf(call, packed.dtype), claim.experts, claim.n, k),
      wanted, "a packed " + Shape{claim.n, claim.k}.text());
  const int64_t step = layoutOf(call, packed.dtype).stepLength;
  call.expect(splitK % step == 0,
              "splitK to be a multiple of " + std::to_string(step) + " with packed weights",
              std::to_string(splitK));
}

}  // namespace isopolicy
