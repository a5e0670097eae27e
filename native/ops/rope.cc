#include "ops/rope.h"

#include "ops/op.h"

namespace isopolicy {

static void rotate(OpCall& call, const char* name, bool inverse) {
  const Tensor x = call.tensor(name);
  call.expectFloat(name, x);
  call.expectRank(name, x, 3, "[N, heads, headDim]");
  const int64_t headDim = x.shape[2];
  call.expect(headDim >= 2 && headDim % 2 == 0, std::string(name) + " of an even headDim of at least 2",
              std::to_string(headDim));
  const Tensor table = call.tensor("table");
  call.expectDtype("table", table, DType::float32);
  call.expect(table.shape.rank == 3 && table.shape[1] == headDim / 2 && table.shape[2] == 2,
              "table of shape [positions, headDim / 2, 2] with headDim / 2 = " + std::to_string(headDim / 2),
              table.shape.text());
  const Tensor positions = call.tensor("positions");
  call.expectDtype("positions", positions, DType::int32);
  call.expectShape("positions", positions, {x.shape[0]}, "[N]");
  const int64_t rotatedHeads = call.integer("rotatedHeads", 0, x.shape[1]);
  int roundings = 1;
  if (!inverse) {
    roundings = int(call.integer("roundings"));
    call.expect(roundings == 1 || roundings == 3, "roundings to be 1 or 3", std::to_string(roundings));
  }
  const bool table16 = call.flag("table16");
  const Tensor y = call.outputLike(name, x);
  call.enqueue(
      Family::shared,
      RopeArgs{x.data(), table.as<float>(), positions.as<int32_t>(), y.data(), x.shape[0], x.shape[1],
               headDim, rotatedHeads, table.shape[0], roundings, table16, inverse, x.dtype},
      {&x, &table, &positions, &y});
}

// rope(x, table, positions, rotatedHeads, roundings, table16, out?) -> y
void ropeOp(OpCall& call) { rotate(call, "x", false); }

// ropeBackward(dy, table, positions, rotatedHeads, table16, out?) -> dx
void ropeBackwardOp(OpCall& call) { rotate(call, "dy", true); }

}  // namespace isopolicy
