#include "ops/swiglu.h"

#include "ops/op.h"

namespace isopolicy {

static Shape halved(const OpCall& call, const Tensor& gateUp) {
  call.expectFloat("gateUp", gateUp);
  call.expect(gateUp.shape.rank >= 1 && gateUp.shape.last() % 2 == 0,
              "gateUp with an even last dimension (2F)", gateUp.shape.text());
  Shape shape = gateUp.shape;
  shape.dims[shape.rank - 1] /= 2;
  return shape;
}

// swiglu(gateUp, roundings) -> silu(gate) * up
void swigluOp(OpCall& call) {
  const Tensor gateUp = call.tensor("gateUp");
  const Shape shape = halved(call, gateUp);
  const int roundings = int(call.integer("roundings", 1, 2));
  const Tensor y = call.output(gateUp.dtype, shape);
  call.enqueue(Family::shared,
               SwigluArgs{gateUp.data(), y.data(), shape.rows(), shape.last(), roundings, gateUp.dtype},
               {&gateUp, &y});
}

// swigluBackward(dOut, gateUp, out?) -> dGateUp
void swigluBackwardOp(OpCall& call) {
  const Tensor dOut = call.tensor("dOut");
  const Tensor gateUp = call.tensor("gateUp");
  const Shape shape = halved(call, gateUp);
  call.expectShape("dOut", dOut, shape);
  call.expectDtype("dOut", dOut, gateUp.dtype);
  const Tensor dGateUp = call.outputLike("gateUp", gateUp);
  call.expect(!dGateUp.overlaps(dOut), "out to have memory of its own", "memory that dOut uses");
  call.enqueue(Family::shared,
               SwigluBackwardArgs{dOut.data(), gateUp.data(), dGateUp.data(), shape.rows(), shape.last(),
                                  gateUp.dtype},
               {&dOut, &gateUp, &dGateUp});
}

}  // namespace isopolicy
