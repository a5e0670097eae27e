#include "ops/linear_logprob.h"

#include "ops/log_softmax.h"
#include "ops/op.h"

namespace isopolicy {

namespace {

struct Operands {
  Tensor hidden, weight, targets;
};

Operands readOperands(OpCall& call) {
  const Tensor hidden = call.tensor("hidden");
  call.expectFloat("hidden", hidden);
  call.expectRank("hidden", hidden, 2, "[N, H]");
  call.expect(hidden.shape[1] > 0, "hidden of shape [N, H] with H of at least 1", hidden.shape.text());
  const Tensor weight = call.tensor("weight");
  call.expectDtype("weight", weight, hidden.dtype);
  call.expectRank("weight", weight, 2, "[V, H]");
  call.expect(weight.shape[0] > 0, "weight of shape [V, H] with V of at least 1", weight.shape.text());
  call.expectShape("weight", weight, {weight.shape[0], hidden.shape[1]}, "[V, H]");
  const Tensor targets = call.tensor("targets");
  call.expectDtype("targets", targets, DType::int32);
  call.expectShape("targets", targets, {hidden.shape[0]}, "[N]");
  return {hidden, weight, targets};
}

// temperature, logits16, gemmFamily, gemmSplitK: the last arguments of both ops.
LogitsOf readProduct(OpCall& call, const Operands& o) {
  LogitsOf product{};
  product.hidden = o.hidden.data();
  product.weight = o.weight.data();
  product.targets = o.targets.as<int32_t>();
  product.rows = o.hidden.shape[0];
  product.columns = o.weight.shape[0];
  product.width = o.hidden.shape[1];
  product.dtype = o.hidden.dtype;
  product.temperature = readTemperature(call);
  product.logits16 = call.flag("logits16");
  product.gemmFamily = call.family("gemmFamily");
  product.gemmSplitK = call.integer("gemmSplitK", 0);
  return product;
}

}  // namespace

// linearLogprob(hidden [N, H], weight [V, H], targets int32 [N], chunk, temperature, logits16, gemmFamily,
// gemmSplitK) -> logprobs, lse, entropy, all fp32 [N].
void linearLogprobOp(OpCall& call) {
  const Operands o = readOperands(call);
  const int64_t chunk = call.integer("chunk", 0);
  const LogitsOf product = readProduct(call, o);
  const Tensor logprobs = call.output(DType::float32, o.targets.shape);
  const Tensor lse = call.output(DType::float32, o.targets.shape);
  const Tensor entropy = call.output(DType::float32, o.targets.shape);
  call.enqueue(Family::training,
               LinearLogprobArgs{product, chunk, logprobs.as<float>(), lse.as<float>(), entropy.as<float>()},
               {&o.hidden, &o.weight, &o.targets});
}

// linearLogprobBackward(dLogprobs fp32 [N], hidden [N, H], weight [V, H], targets int32 [N], lse fp32 [N],
// gradWeight fp32 [V, H], temperature, logits16, gemmFamily, gemmSplitK) -> dHidden [N, H]; gradWeight is
// added to; none (0) where the weight is frozen.
void linearLogprobBackwardOp(OpCall& call) {
  const Tensor dLogprobs = call.tensor("dLogprobs");
  const Operands o = readOperands(call);
  call.expectDtype("dLogprobs", dLogprobs, DType::float32);
  call.expectShape("dLogprobs", dLogprobs, o.targets.shape, "[N]");
  const Tensor lse = call.tensor("lse");
  call.expectDtype("lse", lse, DType::float32);
  call.expectShape("lse", lse, o.targets.shape, "[N]");
  const auto gradWeight = call.optionalTensor("gradWeight");
  if (gradWeight) {
    call.expectDtype("gradWeight", *gradWeight, DType::float32);
    call.expectShape("gradWeight", *gradWeight, o.weight.shape, "[V, H]");
  }
  const LogitsOf product = readProduct(call, o);
  const Tensor dHidden = call.output(product.dtype, o.hidden.shape);
  call.enqueue(Family::training,
               LinearLogprobBackwardArgs{product, dLogprobs.as<float>(), lse.as<float>(),
                                         gradWeight ? gradWeight->as<float>() : nullptr, dHidden.data()},
               {&dLogprobs, &o.hidden, &o.weight, &o.targets, &lse, gradWeight ? &*gradWeight : nullptr});
}

}  // namespace isopolicy
