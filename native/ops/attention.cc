#include "ops/attention.h"

#include "ops/op.h"

namespace isopolicy {

static constexpr int kMaxHeadDim = 256;
static constexpr int kMaxTile = 4096;

// Reads numHeads and numKvHeads, the next two arguments, and checks qkv against them.
static AttentionShape readShape(OpCall& call, const Tensor& qkv) {
  call.expectFloat("qkv", qkv);
  call.expectRank("qkv", qkv, 3, "[tokens, numHeads + 2 numKvHeads, headDim]");
  const int numHeads = int(call.integer("numHeads", 1, 65536));
  const int numKvHeads = int(call.integer("numKvHeads", 1, 65536));
  if (numHeads % numKvHeads != 0)
    call.fail("numHeads to be a multiple of numKvHeads = " + std::to_string(numKvHeads),
              std::to_string(numHeads));
  const int64_t headDim = qkv.shape[2];
  call.expectShape("qkv", qkv, {qkv.shape[0], numHeads + 2 * numKvHeads, headDim},
                   "[tokens, numHeads + 2 numKvHeads, headDim]");
  if (headDim < 2 || headDim > kMaxHeadDim || headDim % 2 != 0)
    call.fail("headDim, the last dimension of qkv, to be even and from 2 to " + std::to_string(kMaxHeadDim),
              std::to_string(headDim));
  return {qkv.shape[0], numHeads, numKvHeads, int(headDim), qkv.dtype};
}

static void readChunkAndTile(OpCall& call, int& chunk, int& tile) {
  chunk = int(call.integer("chunk", 0));
  tile = int(call.integer("tile", 16, kMaxTile));
  call.expect(tile % 16 == 0, "tile to be a multiple of 16", std::to_string(tile));
  call.expect(chunk % tile == 0, "chunk to be 0 or a multiple of tile = " + std::to_string(tile),
              std::to_string(chunk));
}

static int64_t sequencesOf(OpCall& call, const Tensor& cuSeqlens) {
  call.expectDtype("cuSeqlens", cuSeqlens, DType::int32);
  call.expectRank("cuSeqlens", cuSeqlens, 1, "[sequences + 1]");
  call.expect(cuSeqlens.shape[0] >= 1, "cuSeqlens of at least one element", "none");
  return cuSeqlens.shape[0] - 1;
}

// attention(qkv, cuSeqlens, numHeads, numKvHeads, scale, chunk, tile) -> out, lse
void attentionOp(OpCall& call) {
  const Tensor qkv = call.tensor("qkv");
  const Tensor cuSeqlens = call.tensor("cuSeqlens");
  AttentionArgs args{};
  args.shape = readShape(call, qkv);
  args.sequences = sequencesOf(call, cuSeqlens);
  args.scale = float(call.number("scale"));
  readChunkAndTile(call, args.chunk, args.tile);
  const AttentionShape& s = args.shape;
  const Tensor out = call.output(qkv.dtype, {s.tokens, int64_t(s.numHeads) * s.headDim});
  const Tensor lse = call.output(DType::float32, {s.numHeads, s.tokens});
  args.qkv = qkv.data();
  args.cuSeqlens = cuSeqlens.as<int32_t>();
  args.out = out.data();
  args.lse = lse.as<float>();
  call.enqueue(Family::training, args, {&qkv, &cuSeqlens});
}

// attentionBackward(dOut, qkv, out, lse, cuSeqlens, numHeads, numKvHeads, scale) -> dqkv
void attentionBackwardOp(OpCall& call) {
  const Tensor dOut = call.tensor("dOut");
  const Tensor qkv = call.tensor("qkv");
  const Tensor out = call.tensor("out");
  const Tensor lse = call.tensor("lse");
  const Tensor cuSeqlens = call.tensor("cuSeqlens");
  AttentionBackwardArgs args{};
  args.shape = readShape(call, qkv);
  args.sequences = sequencesOf(call, cuSeqlens);
  args.scale = float(call.number("scale"));
  const AttentionShape& s = args.shape;
  const Shape rows{s.tokens, int64_t(s.numHeads) * s.headDim};
  call.expectShape("dOut", dOut, rows, "[tokens, numHeads * headDim]");
  call.expectDtype("dOut", dOut, qkv.dtype);
  call.expectShape("out", out, rows, "[tokens, numHeads * headDim]");
  call.expectDtype("out", out, qkv.dtype);
  call.expectShape("lse", lse, {s.numHeads, s.tokens}, "[numHeads, tokens]");
  call.expectDtype("lse", lse, DType::float32);
  const Tensor dqkv = call.output(qkv.dtype, qkv.shape);
  args.dOut = dOut.data();
  args.qkv = qkv.data();
  args.out = out.data();
  args.lse = lse.as<float>();
  args.cuSeqlens = cuSeqlens.as<int32_t>();
  args.dqkv = dqkv.data();
  call.enqueue(Family::training, args, {&dOut, &qkv, &out, &lse, &cuSeqlens});
}

struct CacheTensors {
  Tensor qkv, keyCache, valueCache, blockTable, slots, positions;
};

static CacheTensors readCacheTensors(OpCall& call) {
  CacheTensors t;
  t.qkv = call.tensor("qkv");
  t.keyCache = call.tensor("keyCache");
  t.valueCache = call.tensor("valueCache");
  t.blockTable = call.tensor("blockTable");
  t.slots = call.tensor("slots");
  t.positions = call.tensor("positions");
  return t;
}

static KvCache checkCache(OpCall& call, const CacheTensors& t, const AttentionShape& s) {
  call.expectRank("keyCache", t.keyCache, 4, "[pages, numKvHeads, headDim, 16]");
  call.expectRank("blockTable", t.blockTable, 2, "[slots, pagesPerSlot]");
  const int64_t pages = t.keyCache.shape[0];
  call.expectShape("keyCache", t.keyCache, {pages, s.numKvHeads, s.headDim, kPageSize},
                   "[pages, numKvHeads, headDim, 16]");
  call.expectDtype("keyCache", t.keyCache, s.dtype);
  call.expectShape("valueCache", t.valueCache, {pages, s.numKvHeads, kPageSize, s.headDim},
                   "[pages, numKvHeads, 16, headDim]");
  call.expectDtype("valueCache", t.valueCache, s.dtype);
  call.expectDtype("blockTable", t.blockTable, DType::int32);
  call.expectShape("slots", t.slots, {s.tokens}, "[tokens]");
  call.expectDtype("slots", t.slots, DType::int32);
  call.expectShape("positions", t.positions, {s.tokens}, "[tokens]");
  call.expectDtype("positions", t.positions, DType::int32);
  return {t.keyCache.data(),     t.valueCache.data(),  t.blockTable.as<int32_t>(), pages,
          t.blockTable.shape[0], t.blockTable.shape[1]};
}

// writeKvCache(qkv, keyCache, valueCache, blockTable, slots, positions, numHeads, numKvHeads), in place
void writeKvCacheOp(OpCall& call) {
  const CacheTensors t = readCacheTensors(call);
  WriteKvCacheArgs args{};
  args.shape = readShape(call, t.qkv);
  args.cache = checkCache(call, t, args.shape);
  args.qkv = t.qkv.data();
  args.slots = t.slots.as<int32_t>();
  args.positions = t.positions.as<int32_t>();
  call.enqueue(Family::rollout, args,
               {&t.qkv, &t.keyCache, &t.valueCache, &t.blockTable, &t.slots, &t.positions});
}

// pagedAttention(qkv, keyCache, valueCache, blockTable, slots, positions, numHeads, numKvHeads, scale, chunk,
// tile) -> out
void pagedAttentionOp(OpCall& call) {
  const CacheTensors t = readCacheTensors(call);
  PagedAttentionArgs args{};
  args.shape = readShape(call, t.qkv);
  args.cache = checkCache(call, t, args.shape);
  args.scale = float(call.number("scale"));
  readChunkAndTile(call, args.chunk, args.tile);
  const AttentionShape& s = args.shape;
  const Tensor out = call.output(t.qkv.dtype, {s.tokens, int64_t(s.numHeads) * s.headDim});
  args.qkv = t.qkv.data();
  args.slots = t.slots.as<int32_t>();
  args.positions = t.positions.as<int32_t>();
  args.out = out.data();
  call.enqueue(Family::rollout, args,
               {&t.qkv, &t.keyCache, &t.valueCache, &t.blockTable, &t.slots, &t.positions});
}

}  // namespace isopolicy
