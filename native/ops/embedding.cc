#include "ops/embedding.h"

#include "ops/op.h"

namespace isopolicy {

namespace {

// The rows of `table` (named so in messages) that a list of row numbers (named so) picks.
void pickRows(OpCall& call, const char* table, const char* symbols, const char* list, bool vocabulary) {
  const Tensor from = call.tensor(table);
  const Tensor ids = call.tensor(list);
  call.expectFloat(table, from);
  call.expectRank(table, from, 2, symbols);
  call.expectDtype(list, ids, DType::int32);
  call.expectRank(list, ids, 1, "[N]");
  const Tensor out = call.output(from.dtype, {ids.shape[0], from.shape[1]});
  const int64_t rowBytes = from.shape[1] * int64_t(bytesOf(from.dtype));
  call.enqueue(Family::shared,
               EmbeddingArgs{from.data(), ids.as<int32_t>(), out.data(), ids.shape[0], from.shape[0],
                             rowBytes, vocabulary},
               {&from, &ids, &out});
}

}  // namespace

// embedding(weight [V, H], ids int32 [N]) -> [N, H].
void embeddingOp(OpCall& call) { pickRows(call, "weight", "[V, H]", "ids", true); }

// gatherRows(x [R, H], index int32 [N]) -> [N, H].
void gatherRowsOp(OpCall& call) { pickRows(call, "x", "[R, H]", "index", false); }

// embeddingBackward(dOut [N, H], ids int32 [N], grad fp32 [V, H]): grad[ids[i]] += dOut[i].
void embeddingBackwardOp(OpCall& call) {
  const Tensor dOut = call.tensor("dOut");
  const Tensor ids = call.tensor("ids");
  const Tensor grad = call.tensor("grad");
  call.expectDtype("ids", ids, DType::int32);
  call.expectRank("ids", ids, 1, "[N]");
  call.expectDtype("grad", grad, DType::float32);
  call.expectRank("grad", grad, 2, "[V, H]");
  call.expectFloat("dOut", dOut);
  call.expectShape("dOut", dOut, {ids.shape[0], grad.shape[1]}, "[N, H]");
  call.enqueue(Family::shared,
               EmbeddingBackwardArgs{dOut.data(), ids.as<int32_t>(), grad.as<float>(), ids.shape[0],
                                     grad.shape[0], grad.shape[1], dOut.dtype},
               {&dOut, &ids, &grad});
}

// scatterRows(dOut [M, H], index int32 [M], rows) -> [rows, H] in dOut's dtype.
void scatterRowsOp(OpCall& call) {
  const Tensor dOut = call.tensor("dOut");
  const Tensor index = call.tensor("index");
  const int64_t rows = call.integer("rows", 0);
  call.expectFloat("dOut", dOut);
  call.expectRank("dOut", dOut, 2, "[M, H]");
  call.expectDtype("index", index, DType::int32);
  call.expectShape("index", index, {dOut.shape[0]}, "[M]");
  const Tensor out = call.output(dOut.dtype, {rows, dOut.shape[1]});
  call.enqueue(Family::shared,
               ScatterRowsArgs{dOut.data(), index.as<int32_t>(), out.data(), dOut.shape[0], rows,
                               dOut.shape[1], dOut.dtype},
               {&dOut, &index, &out});
}

}  // namespace isopolicy
