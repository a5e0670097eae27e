#include "ops/elementwise.h"

#include <cfloat>
#include <cmath>

#include "ops/op.h"

namespace isopolicy {

static void binary(OpCall& call, ElementwiseKind kind) {
  const Tensor a = call.tensor("a");
  const Tensor b = call.tensor("b");
  call.expectFloat("a", a);
  call.expectShape("b", b, a.shape);
  call.expectDtype("b", b, a.dtype);
  const Tensor out = call.output(a.dtype, a.shape);
  call.enqueue(Family::shared,
               ElementwiseArgs{a.data(), b.data(), out.data(), a.elements(), 0.0f, kind, a.dtype},
               {&a, &b, &out});
}

// add(a, b) -> a + b
void addOp(OpCall& call) { binary(call, ElementwiseKind::add); }

// multiply(a, b) -> a * b
void multiplyOp(OpCall& call) { binary(call, ElementwiseKind::multiply); }

// scale(x, factor) -> x * factor
void scaleOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  call.expectFloat("x", x);
  const double factor = call.number("factor");
  call.expect(std::fabs(factor) <= FLT_MAX, "factor within the range of fp32", std::to_string(factor));
  const Tensor out = call.output(x.dtype, x.shape);
  call.enqueue(Family::shared,
               ElementwiseArgs{x.data(), nullptr, out.data(), x.elements(), float(factor),
                               ElementwiseKind::scale, x.dtype},
               {&x, &out});
}

// accumulate(target, x): target += x
void accumulateOp(OpCall& call) {
  const Tensor target = call.tensor("target");
  const Tensor x = call.tensor("x");
  call.expectDtype("target", target, DType::float32);
  call.expectFloat("x", x);
  call.expectShape("x", x, target.shape);
  call.enqueue(Family::shared, AccumulateArgs{target.as<float>(), x.data(), x.elements(), x.dtype},
               {&target, &x});
}

}  // namespace isopolicy
