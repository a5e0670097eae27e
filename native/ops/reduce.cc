#include "ops/reduce.h"

#include "ops/op.h"

namespace isopolicy {

// reduce(x, kind, axis) -> fp32 [1] (axis 0: all elements) or fp32 [rows] (axis 1: the last dimension).
void reduceOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const auto kind = Reduction(call.integer("kind", 0, 2));
  const bool last = call.flag("axis");
  call.expectFloat("x", x);
  int64_t rows = 1;  // not elements / width: rows may be empty
  for (int i = 0; last && i + 1 < x.shape.rank; i++) rows *= x.shape.dims[i];
  const int64_t width = last ? x.shape.last() : x.elements();
  if (kind != Reduction::sum) call.expect(width > 0, "x with elements to reduce", x.shape.text());
  const Tensor out = call.output(DType::float32, {rows});
  call.enqueue(Family::shared, ReduceArgs{x.data(), out.as<float>(), rows, width, x.dtype, kind}, {&x, &out});
}

// columnSum(x [N, C], columnOffset, count, out fp32 [count]): out += sums over the rows of those columns.
void columnSumOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const int64_t columnOffset = call.integer("columnOffset", 0);
  const int64_t count = call.integer("count", 0);
  const Tensor out = call.tensor("out");
  call.expectFloat("x", x);
  call.expectRank("x", x, 2, "[N, C]");
  call.expect(columnOffset + count <= x.shape[1],
              "columnOffset + count to be at most C = " + std::to_string(x.shape[1]),
              std::to_string(columnOffset) + " + " + std::to_string(count));
  call.expectDtype("out", out, DType::float32);
  call.expectShape("out", out, {count}, "[count]");
  call.enqueue(Family::shared,
               ColumnSumArgs{x.data(), out.as<float>(), x.shape[0], x.shape[1], columnOffset, count, x.dtype},
               {&x, &out});
}

}  // namespace isopolicy
