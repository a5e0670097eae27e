#include "ops/log_softmax.h"

#include "ops/op.h"

namespace isopolicy {

float readTemperature(OpCall& call) {
  const double temperature = call.number("temperature");
  call.expect(float(temperature) > 0.0f && float(temperature) <= 3.4028234e38f, "temperature above 0 in fp32",
              std::to_string(temperature));
  return float(temperature);
}

static void expectLogits(OpCall& call, const Tensor& logits) {
  call.expectFloat("logits", logits);
  call.expectRank("logits", logits, 2, "[N, V]");
  call.expect(logits.shape[1] > 0, "logits of shape [N, V] with V of at least 1", logits.shape.text());
}

// logSoftmax(logits [N, V], family, temperature, chunk) -> logprobs fp32 [N, V].
void logSoftmaxOp(OpCall& call) {
  const Tensor logits = call.tensor("logits");
  expectLogits(call, logits);
  const Family family = call.family();
  const float temperature = readTemperature(call);
  const int64_t chunk = call.integer("chunk", 0);
  const Tensor out = call.output(DType::float32, logits.shape);
  call.enqueue(family,
               LogSoftmaxArgs{logits.data(), out.as<float>(), logits.shape[0], logits.shape[1], chunk,
                              temperature, logits.dtype},
               {&logits});
}

// chosenLogprobs(logits [N, V], ids int32 [N], family, temperature, chunk) -> logprobs, lse, entropy, all
// fp32 [N].
void chosenLogprobsOp(OpCall& call) {
  const Tensor logits = call.tensor("logits");
  expectLogits(call, logits);
  const Shape perRow{logits.shape[0]};
  const Tensor ids = call.tensor("ids");
  call.expectDtype("ids", ids, DType::int32);
  call.expectShape("ids", ids, perRow, "[N]");
  const Family family = call.family();
  const float temperature = readTemperature(call);
  const int64_t chunk = call.integer("chunk", 0);
  const Tensor logprobs = call.output(DType::float32, perRow);
  const Tensor lse = call.output(DType::float32, perRow);
  const Tensor entropy = call.output(DType::float32, perRow);
  call.enqueue(family,
               ChosenLogprobsArgs{logits.data(), ids.as<int32_t>(), logprobs.as<float>(), lse.as<float>(),
                                  entropy.as<float>(), logits.shape[0], logits.shape[1], chunk, temperature,
                                  logits.dtype},
               {&logits, &ids});
}

// logSoftmaxBackward(dOut fp32 [N, V], logprobs fp32 [N, V], temperature, dtype) -> dLogits [N, V] of dtype.
void logSoftmaxBackwardOp(OpCall& call) {
  const Tensor dOut = call.tensor("dOut");
  call.expectDtype("dOut", dOut, DType::float32);
  call.expectRank("dOut", dOut, 2, "[N, V]");
  call.expect(dOut.shape[1] > 0, "dOut of shape [N, V] with V of at least 1", dOut.shape.text());
  const Tensor logprobs = call.tensor("logprobs");
  call.expectDtype("logprobs", logprobs, DType::float32);
  call.expectShape("logprobs", logprobs, dOut.shape, "[N, V]");
  const float temperature = readTemperature(call);
  const DType dtype = call.floatDtype("dtype");
  const Tensor dLogits = call.output(dtype, dOut.shape);
  call.enqueue(Family::training,
               LogSoftmaxBackwardArgs{dOut.as<float>(), logprobs.as<float>(), dLogits.data(), dOut.shape[0],
                                      dOut.shape[1], temperature, dtype},
               {&dOut, &logprobs});
}

}  // namespace isopolicy
