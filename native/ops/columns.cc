#include "ops/columns.h"

#include <cfloat>
#include <cmath>

#include "ops/op.h"

namespace isopolicy {

namespace {

float readFactor(OpCall& call) {
  const double factor = call.number("factor");
  call.expect(std::fabs(factor) <= FLT_MAX, "factor within the range of fp32", std::to_string(factor));
  return float(factor);
}

void expectColumns(const OpCall& call, const char* name, const Tensor& t, int64_t offset, int64_t width) {
  call.expect(offset + width <= t.shape[1],
              "columnOffset + width of at most the " + std::to_string(t.shape[1]) + " columns of " + name,
              std::to_string(offset) + " + " + std::to_string(width));
}

void* at(const Tensor& t, int64_t column) { return t.as<char>() + column * int64_t(bytesOf(t.dtype)); }

}  // namespace

// scaleColumns(x, columnOffset, width, factor): x[:, columnOffset : columnOffset + width] * factor
void scaleColumnsOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  call.expectFloat("x", x);
  call.expectRank("x", x, 2, "[rows, columns]");
  const int64_t offset = call.integer("columnOffset", 0);
  const int64_t width = call.integer("width", 1);
  expectColumns(call, "x", x, offset, width);
  const float factor = readFactor(call);
  const Tensor out = call.output(x.dtype, {x.shape[0], width});
  call.enqueue(
      Family::shared,
      ColumnsArgs{at(x, offset), x.shape[1], out.data(), width, x.shape[0], width, factor, false, x.dtype},
      {&x, &out});
}

// addToColumns(target, x, columnOffset, factor): target[:, columnOffset : columnOffset + width] += x * factor
void addToColumnsOp(OpCall& call) {
  const Tensor target = call.tensor("target");
  call.expectFloat("target", target);
  call.expectRank("target", target, 2, "[rows, columns]");
  const Tensor x = call.tensor("x");
  call.expectDtype("x", x, target.dtype);
  call.expectRank("x", x, 2, "[rows, width]");
  call.expect(x.shape[0] == target.shape[0],
              "x of shape [rows, width] with rows = " + std::to_string(target.shape[0]), x.shape.text());
  const int64_t offset = call.integer("columnOffset", 0);
  expectColumns(call, "target", target, offset, x.shape[1]);
  const float factor = readFactor(call);
  call.expect(!target.overlaps(x), "target to have memory of its own", "memory that x uses");
  call.enqueue(Family::shared,
               ColumnsArgs{x.data(), x.shape[1], at(target, offset), target.shape[1], x.shape[0], x.shape[1],
                           factor, true, x.dtype},
               {&target, &x});
}

}  // namespace isopolicy
