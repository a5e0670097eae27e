#include "ops/sample.h"

#include <cmath>

#include "ops/op.h"

namespace isopolicy {

// sample(logits [N, V], keys int32 [N, 4], seedLow, seedHigh, temperature, topK, topP, chunk) -> ids int32
// [N], logprobs fp32 [N].
void sampleOp(OpCall& call) {
  const Tensor logits = call.tensor("logits");
  call.expectFloat("logits", logits);
  call.expectRank("logits", logits, 2, "[N, V]");
  call.expect(logits.shape[1] > 0, "logits of shape [N, V] with V of at least 1", logits.shape.text());
  const Tensor keys = call.tensor("keys");
  call.expectDtype("keys", keys, DType::int32);
  call.expectShape("keys", keys, {logits.shape[0], 4}, "[N, 4]");
  const uint32_t seedLow = uint32_t(call.integer("seed", 0, UINT32_MAX));
  const uint32_t seedHigh = uint32_t(call.integer("seed", 0, UINT32_MAX));
  const double temperature = call.number("temperature");
  call.expect(temperature >= 0 && temperature <= 3.4028234e38, "temperature of at least 0",
              std::to_string(temperature));
  const int64_t topK = call.integer("topK", 0);
  const double topP = call.number("topP");
  call.expect(topP > 0 && topP <= 1, "topP above 0 and at most 1", std::to_string(topP));
  const int64_t chunk = call.integer("chunk", 0);
  const Shape perRow{logits.shape[0]};
  const Tensor ids = call.output(DType::int32, perRow);
  const Tensor logprobs = call.output(DType::float32, perRow);
  call.enqueue(
      Family::rollout,
      SampleArgs{logits.data(), keys.as<int32_t>(), ids.as<int32_t>(), logprobs.as<float>(), logits.shape[0],
                 logits.shape[1], chunk, topK, topP, float(temperature), seedLow, seedHigh, logits.dtype},
      {&logits, &keys});
}

}  // namespace isopolicy
