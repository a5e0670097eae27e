#include "ops/grouped_linear.h"

#include "ops/op.h"
#include "ops/pack_weight.h"

namespace isopolicy {

namespace {

// int32 [E + 1]; returns E.
int64_t readExperts(OpCall& call, const Tensor& offsets) {
  call.expectDtype("offsets", offsets, DType::int32);
  call.expectRank("offsets", offsets, 1, "[E + 1]");
  call.expect(offsets.shape[0] > 1, "offsets of shape [E + 1] with E of at least 1", offsets.shape.text());
  return offsets.shape[0] - 1;
}

// What is known of a shape [E, N, K]; -1 for what is not.
struct Experts {
  int64_t e, n, k;
};

std::string wanted(const char* name, const Experts& known) {
  const auto also = [](const char* symbol, int64_t value) {
    return value < 0 ? "" : std::string(", ") + symbol + " = " + std::to_string(value);
  };
  return std::string(name) + " of shape [E, N, K] with E = " + std::to_string(known.e) + also("N", known.n) +
         also("K", known.k);
}

void expectExperts(const OpCall& call, const char* name, const Tensor& t, const Experts& known) {
  const auto fits = [](int64_t value, int64_t found) { return value < 0 || value == found; };
  call.expect(
      t.shape.rank == 3 && t.shape[0] == known.e && fits(known.n, t.shape[1]) && fits(known.k, t.shape[2]),
      wanted(name, known), t.shape.text());
}

}  // namespace

// groupedLinear(x [rows, K], weight, offsets int32 [E + 1], family, splitK, packedRows, packedColumns,
// packedLevel) -> [rows, N]. The weight is [E, N, K], or packed with packedRows = N.
void groupedLinearOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const Tensor weight = call.tensor("weight");
  const Tensor offsets = call.tensor("offsets");
  const Family family = call.family();
  GroupedLinearArgs g{};
  g.splitK = int(call.integer("splitK", 0, 1 << 30));
  const int64_t packed = call.integer("packedRows", -1), packedK = call.integer("packedColumns", 0);
  const auto level = VectorLevel(call.integer("packedLevel", 0, kVectorLevels - 1));
  call.expectFloat("x", x);
  call.expectRank("x", x, 2, "[rows, K]");
  call.expectDtype("weight", weight, x.dtype);
  g.experts = readExperts(call, offsets);
  g.rows = x.shape[0];
  g.k = x.shape[1];
  g.packed = packed >= 0;
  const Experts known{g.experts, -1, g.k};
  if (g.packed)
    expectPacked(call, "weight", weight, {packed, packedK, level, g.experts}, g.k, g.splitK,
                 wanted("weight", known));
  else
    expectExperts(call, "weight", weight, known);
  g.n = g.packed ? packed : weight.shape[1];
  g.weightBytes = int64_t(weight.bytes()) / g.experts;
  g.dtype = x.dtype;
  const Tensor y = call.output(x.dtype, {g.rows, g.n});
  g.x = x.data();
  g.weight = weight.data();
  g.offsets = offsets.as<int32_t>();
  g.y = y.data();
  call.enqueue(family, g, {&x, &weight, &offsets});
}

// groupedLinearInputGradient(dy [rows, N], weight [E, N, K], offsets int32 [E + 1]) -> dx [rows, K].
void groupedLinearInputGradientOp(OpCall& call) {
  const Tensor dy = call.tensor("dy");
  const Tensor weight = call.tensor("weight");
  const Tensor offsets = call.tensor("offsets");
  call.expectFloat("dy", dy);
  call.expectRank("dy", dy, 2, "[rows, N]");
  call.expectDtype("weight", weight, dy.dtype);
  const int64_t experts = readExperts(call, offsets);
  expectExperts(call, "weight", weight, {experts, dy.shape[1], -1});
  const Tensor dx = call.output(dy.dtype, {dy.shape[0], weight.shape[2]});
  call.enqueue(
      Family::training,
      GroupedLinearInputGradientArgs{dy.data(), weight.data(), offsets.as<int32_t>(), dx.data(), dy.shape[0],
                                     weight.shape[2], weight.shape[1], experts, dy.dtype},
      {&dy, &weight, &offsets});
}

// groupedLinearWeightGradient(dy [rows, N], x [rows, K], offsets int32 [E + 1], grad fp32 [E, N, K],
// accumulate): grad = or += the sums over each expert's rows.
void groupedLinearWeightGradientOp(OpCall& call) {
  const Tensor dy = call.tensor("dy");
  const Tensor x = call.tensor("x");
  const Tensor offsets = call.tensor("offsets");
  const Tensor grad = call.tensor("grad");
  const bool accumulate = call.flag("accumulate");
  call.expectFloat("dy", dy);
  call.expectRank("dy", dy, 2, "[rows, N]");
  call.expectDtype("x", x, dy.dtype);
  call.expectRank("x", x, 2, "[rows, K]");
  call.expect(x.shape[0] == dy.shape[0], "x of shape [rows, K] with rows = " + std::to_string(dy.shape[0]),
              x.shape.text());
  const int64_t experts = readExperts(call, offsets);
  call.expectDtype("grad", grad, DType::float32);
  expectExperts(call, "grad", grad, {experts, dy.shape[1], x.shape[1]});
  call.expect(!grad.overlaps(dy) && !grad.overlaps(x), "grad to have memory of its own",
              "memory that dy or x uses");
  call.enqueue(
      Family::training,
      GroupedLinearWeightGradientArgs{dy.data(), x.data(), offsets.as<int32_t>(), grad.as<float>(),
                                      dy.shape[0], x.shape[1], dy.shape[1], experts, accumulate, dy.dtype},
      {&dy, &x, &offsets, &grad});
}

}  // namespace isopolicy
