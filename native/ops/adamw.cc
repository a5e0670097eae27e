#include "ops/adamw.h"

#include <cmath>

#include "ops/op.h"

namespace isopolicy {

static double numberFrom(OpCall& call, const char* name, double min, double below) {
  const double x = call.number(name);
  call.expect(x >= min && x < below,
              std::string(name) + (std::isinf(below) ? " of at least 0" : " from 0 to below 1"),
              std::to_string(x));
  return x;
}

// adamw(master, grad, m, v, compute?, lr, beta1, beta2, eps, weightDecay, step, gradScale): one step, in
// place. Bias corrections are computed here, in fp64, and rounded once.
void adamwOp(OpCall& call) {
  const Tensor master = call.tensor("master");
  const Tensor grad = call.tensor("grad");
  const Tensor m = call.tensor("m");
  const Tensor v = call.tensor("v");
  const auto compute = call.optionalTensor("compute");
  const double lr = numberFrom(call, "lr", 0, INFINITY);
  const double beta1 = numberFrom(call, "beta1", 0, 1);
  const double beta2 = numberFrom(call, "beta2", 0, 1);
  const double eps = numberFrom(call, "eps", 0, INFINITY);
  const double weightDecay = numberFrom(call, "weightDecay", 0, INFINITY);
  const double step = double(call.integer("step", 1));
  const double gradScale = numberFrom(call, "gradScale", 0, INFINITY);
  const struct {
    const char* name;
    const Tensor& tensor;
  } states[] = {{"master", master}, {"grad", grad}, {"m", m}, {"v", v}};
  for (const auto& state : states) {
    call.expectDtype(state.name, state.tensor, DType::float32);
    call.expectShape(state.name, state.tensor, master.shape);
  }
  if (compute) {
    call.expectFloat("compute", *compute);
    call.expectShape("compute", *compute, master.shape);
  }
  AdamWArgs args;
  args.master = master.as<float>();
  args.grad = grad.as<float>();
  args.m = m.as<float>();
  args.v = v.as<float>();
  args.compute = compute ? compute->data() : nullptr;
  args.computeType = compute ? compute->dtype : DType::float32;
  args.count = master.elements();
  args.gradScale = float(gradScale);
  args.decay = float(1.0 - lr * weightDecay);
  args.beta1 = float(beta1);
  args.oneMinusBeta1 = float(1.0 - beta1);
  args.beta2 = float(beta2);
  args.oneMinusBeta2 = float(1.0 - beta2);
  args.stepSize = float(lr / (1.0 - std::pow(beta1, step)));
  args.secondCorrection = float(std::sqrt(1.0 - std::pow(beta2, step)));
  args.eps = float(eps);
  call.enqueue(Family::shared, args, {&master, &grad, &m, &v, compute ? &*compute : nullptr});
}

}  // namespace isopolicy
