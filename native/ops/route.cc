#include "ops/route.h"

#include "ops/op.h"

namespace isopolicy {

void checkExpertIds(const int32_t* ids, int64_t count, int64_t experts) {
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] >= 0 && ids[i] < experts) continue;
    throw DeviceError("expected expert ids from 0 to E - 1 = " + std::to_string(experts - 1) + ", got " +
                      std::to_string(ids[i]) + " at position " + std::to_string(i));
  }
}

namespace {

Tensor readLogits(OpCall& call) {
  const Tensor logits = call.tensor("logits");
  call.expectFloat("logits", logits);
  call.expectRank("logits", logits, 2, "[tokens, E]");
  call.expect(logits.shape[1] > 0, "logits of shape [tokens, E] with E of at least 1", logits.shape.text());
  return logits;
}

// [tokens, k] for the tokens of the logits.
Tensor readIds(OpCall& call, const Tensor& logits) {
  const Tensor ids = call.tensor("ids");
  call.expectDtype("ids", ids, DType::int32);
  call.expectRank("ids", ids, 2, "[tokens, k]");
  call.expect(
      ids.shape[0] == logits.shape[0] && ids.shape[1] > 0,
      "ids of shape [tokens, k] with tokens = " + std::to_string(logits.shape[0]) + " and k of at least 1",
      ids.shape.text());
  return ids;
}

}  // namespace

// route(logits [tokens, E], k, normalize, strict) -> ids int32 [tokens, k], weights fp32 [tokens, k].
void routeOp(OpCall& call) {
  const Tensor logits = readLogits(call);
  const int64_t k = call.integer("k", 1, logits.shape[1]);
  const bool normalize = call.flag("normalize");
  const bool strict = call.flag("strict");
  const Shape shape{logits.shape[0], k};
  const Tensor ids = call.output(DType::int32, shape);
  const Tensor weights = call.output(DType::float32, shape);
  call.enqueue(Family::shared,
               RouteArgs{logits.data(), nullptr, ids.as<int32_t>(), weights.as<float>(), logits.shape[0],
                         logits.shape[1], k, normalize, strict, logits.dtype},
               {&logits});
}

// routerWeights(logits [tokens, E], ids int32 [tokens, k], normalize, strict) -> weights fp32 [tokens, k].
void routerWeightsOp(OpCall& call) {
  const Tensor logits = readLogits(call);
  const Tensor ids = readIds(call, logits);
  const bool normalize = call.flag("normalize");
  const bool strict = call.flag("strict");
  const Tensor weights = call.output(DType::float32, ids.shape);
  call.enqueue(Family::shared,
               RouteArgs{logits.data(), ids.as<int32_t>(), nullptr, weights.as<float>(), logits.shape[0],
                         logits.shape[1], ids.shape[1], normalize, strict, logits.dtype},
               {&logits, &ids});
}

// routerWeightsBackward(dWeights fp32 [tokens, k], logits, ids, normalize) -> dLogits like logits.
void routerWeightsBackwardOp(OpCall& call) {
  const Tensor dWeights = call.tensor("dWeights");
  const Tensor logits = readLogits(call);
  const Tensor ids = readIds(call, logits);
  const bool normalize = call.flag("normalize");
  call.expectDtype("dWeights", dWeights, DType::float32);
  call.expectShape("dWeights", dWeights, ids.shape, "[tokens, k]");
  const Tensor dLogits = call.output(logits.dtype, logits.shape);
  call.enqueue(Family::shared,
               RouterBackwardArgs{dWeights.as<float>(), logits.data(), ids.as<int32_t>(), dLogits.data(),
                                  logits.shape[0], logits.shape[1], ids.shape[1], normalize, logits.dtype},
               {&dWeights, &logits, &ids});
}

// routerLoad(logits [tokens, E], ids int32 [tokens, k]) -> counts int32 [E], probabilities fp32 [E].
void routerLoadOp(OpCall& call) {
  const Tensor logits = readLogits(call);
  const Tensor ids = readIds(call, logits);
  const Tensor counts = call.output(DType::int32, {logits.shape[1]});
  const Tensor sums = call.output(DType::float32, {logits.shape[1]});
  call.enqueue(Family::shared,
               RouterLoadArgs{logits.data(), ids.as<int32_t>(), counts.as<int32_t>(), sums.as<float>(),
                              logits.shape[0], logits.shape[1], ids.shape[1], logits.dtype},
               {&logits, &ids});
}

}  // namespace isopolicy
