#include "ops/cast.h"

#include "ops/op.h"

namespace isopolicy {

// cast(x, dtype, out?) -> x in another floating-point type, in a new tensor or in `out`.
void castOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  call.expectFloat("x", x);
  const DType dtype = call.floatDtype("dtype");
  const auto into = call.optionalTensor("out");
  if (into) {
    call.expectShape("out", *into, x.shape);
    call.expectDtype("out", *into, dtype);
  }
  const Tensor out = into ? *into : call.output(dtype, x.shape);
  call.enqueue(Family::shared, CastArgs{x.data(), out.data(), x.elements(), x.dtype, dtype}, {&x, &out});
}

}  // namespace isopolicy
