#include "ops/combine_experts.h"

#include "ops/op.h"

namespace isopolicy {

namespace {

struct Operands {
  Tensor y, weights, rows;
};

Operands readOperands(OpCall& call) {
  const Tensor y = call.tensor("y");
  const Tensor weights = call.tensor("weights");
  const Tensor rows = call.tensor("rows");
  call.expectDtype("weights", weights, DType::float32);
  call.expectRank("weights", weights, 2, "[tokens, k]");
  call.expectDtype("rows", rows, DType::int32);
  call.expectShape("rows", rows, weights.shape, "[tokens, k]");
  call.expectFloat("y", y);
  call.expectRank("y", y, 2, "[tokens k, H]");
  call.expect(y.shape[0] == rows.elements(),
              "y of shape [tokens k, H] with tokens k = " + std::to_string(rows.elements()), y.shape.text());
  return {y, weights, rows};
}

}  // namespace

// combineExperts(y [tokens k, H], weights fp32 [tokens, k], rows int32 [tokens, k], roundings) -> [tokens,
// H].
void combineExpertsOp(OpCall& call) {
  const auto [y, weights, rows] = readOperands(call);
  const int roundings = int(call.integer("roundings", 1, 3));
  call.expect(roundings != 2, "roundings to be 1 or 3", "2");
  const Tensor out = call.output(y.dtype, {rows.shape[0], y.shape[1]});
  call.enqueue(Family::shared,
               CombineExpertsArgs{y.data(), weights.as<float>(), rows.as<int32_t>(), out.data(),
                                  rows.shape[0], rows.shape[1], y.shape[1], roundings, y.dtype},
               {&y, &weights, &rows});
}

// combineExpertsBackward(dOut [tokens, H], y, weights, rows) -> dY like y, dWeights fp32 [tokens, k].
void combineExpertsBackwardOp(OpCall& call) {
  const Tensor dOut = call.tensor("dOut");
  const auto [y, weights, rows] = readOperands(call);
  call.expectDtype("dOut", dOut, y.dtype);
  call.expectShape("dOut", dOut, {rows.shape[0], y.shape[1]}, "[tokens, H]");
  const Tensor dY = call.output(y.dtype, y.shape);
  const Tensor dWeights = call.output(DType::float32, weights.shape);
  call.enqueue(
      Family::shared,
      CombineExpertsBackwardArgs{dOut.data(), y.data(), weights.as<float>(), rows.as<int32_t>(), dY.data(),
                                 dWeights.as<float>(), rows.shape[0], rows.shape[1], y.shape[1], y.dtype},
      {&dOut, &y, &weights, &rows});
}

}  // namespace isopolicy
