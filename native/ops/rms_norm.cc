#include "ops/rms_norm.h"

#include <cfloat>

#include "ops/op.h"

namespace isopolicy {

static void expectRows(const OpCall& call, const Tensor& x) {
  call.expectFloat("x", x);
  call.expect(x.shape.rank >= 1, "x of at least 1 dimension", x.shape.text());
}

static void expectLike(const OpCall& call, const char* name, const Tensor& t, const Tensor& x) {
  call.expectShape(name, t, x.shape);
  call.expectDtype(name, t, x.dtype);
}

static void expectWeight(const OpCall& call, const Tensor& weight, const Tensor& x) {
  call.expectShape("weight", weight, {x.shape.last()}, "[H]");
  call.expectDtype("weight", weight, x.dtype);
}

static float readEps(OpCall& call) {
  const double eps = call.number("eps");
  call.expect(eps >= 0 && eps <= FLT_MAX, "eps of at least 0 and within the range of fp32",
              std::to_string(eps));
  return float(eps);
}

static void normalise(OpCall& call, bool fused) {
  const Tensor x = call.tensor("x");
  expectRows(call, x);
  Tensor delta;
  if (fused) {
    delta = call.tensor("delta");
    expectLike(call, "delta", delta, x);
  }
  const Tensor weight = call.tensor("weight");
  expectWeight(call, weight, x);
  const float eps = readEps(call);
  const int roundings = int(call.integer("roundings", 1, 2));
  const bool roundedSum = fused && call.flag("roundedSum");
  Tensor sum;
  if (fused) sum = call.output(x.dtype, x.shape);
  const Tensor y = call.output(x.dtype, x.shape);
  RmsNormArgs args{x.data(),       nullptr, weight.data(), nullptr,    y.data(), x.shape.rows(),
                   x.shape.last(), eps,     roundings,     roundedSum, x.dtype};
  if (fused) {
    args.delta = delta.data();
    args.sum = sum.data();
  }
  call.enqueue(Family::shared, args, {&x, fused ? &delta : nullptr, &weight, fused ? &sum : nullptr, &y});
}

static void differentiate(OpCall& call, bool fused) {
  std::optional<Tensor> delta, gradWeight;
  const std::optional<Tensor> dSum = call.optionalTensor("dSum");
  const Tensor dy = call.tensor("dy");
  const Tensor x = call.tensor("x");
  expectRows(call, x);
  expectLike(call, "dy", dy, x);
  if (dSum) expectLike(call, "dSum", *dSum, x);
  if (fused) {
    delta = call.tensor("delta");
    expectLike(call, "delta", *delta, x);
  }
  const Tensor weight = call.tensor("weight");
  expectWeight(call, weight, x);
  const float eps = readEps(call);
  gradWeight = call.optionalTensor("gradWeight");
  if (gradWeight) {
    call.expectShape("gradWeight", *gradWeight, {x.shape.last()}, "[H]");
    call.expectDtype("gradWeight", *gradWeight, DType::float32);
  }
  const Tensor dx = call.output(x.dtype, x.shape);
  call.enqueue(
      Family::shared,
      RmsNormBackwardArgs{dSum ? dSum->data() : nullptr, dy.data(), x.data(), delta ? delta->data() : nullptr,
                          weight.data(), gradWeight ? gradWeight->as<float>() : nullptr, dx.data(),
                          x.shape.rows(), x.shape.last(), eps, x.dtype},
      {dSum ? &*dSum : nullptr, &dy, &x, delta ? &*delta : nullptr, &weight,
       gradWeight ? &*gradWeight : nullptr, &dx});
}

// rmsNorm(x, weight, eps, roundings) -> y
void rmsNormOp(OpCall& call) { normalise(call, false); }

// addRmsNorm(x, delta, weight, eps, roundings, roundedSum) -> sum, y
void addRmsNormOp(OpCall& call) { normalise(call, true); }

// rmsNormBackward(dSum?, dy, x, weight, eps, gradWeight?) -> dx; gradWeight accumulates
void rmsNormBackwardOp(OpCall& call) { differentiate(call, false); }

// addRmsNormBackward(dSum?, dy, x, delta, weight, eps, gradWeight?) -> dx; gradWeight accumulates
void addRmsNormBackwardOp(OpCall& call) { differentiate(call, true); }

}  // namespace isopolicy
