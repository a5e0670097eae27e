// The write into the paged cache: bits are moved, nothing is computed, so one variant serves every level.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"

namespace isopolicy {

// Keys of a page lie side by side, the values by rows; bf16 in pairs (ops/attention.h). kPair is 2 for those.
template <class Bits, int kPair>
static void writeTokens(const WriteKvCacheArgs& args, int64_t begin, int64_t end) {
  const AttentionShape& shape = args.shape;
  const int64_t headDim = shape.headDim;
  auto* keys = static_cast<Bits*>(args.cache.keys);
  auto* values = static_cast<Bits*>(args.cache.values);
  for (int64_t token = begin; token < end; token++) {
    const int64_t slot = args.slots[token];
    if (slot < 0) continue;
    const int64_t position = args.positions[token];
    const int64_t page = pageOf(args.cache, slot, position);
    const int64_t offset = position % kPageSize;
    const Bits* key = static_cast<const Bits*>(args.qkv) + (token * shape.heads() + shape.numHeads) * headDim;
    const Bits* value = key + shape.numKvHeads * headDim;
    for (int64_t h = 0; h < shape.numKvHeads; h++) {
      const int64_t base = (page * shape.numKvHeads + h) * headDim * kPageSize;
      const Bits* x = key + h * headDim;
      const Bits* y = value + h * headDim;
      Bits* column = keys + base + offset * kPair;
      for (int64_t d = 0; d < headDim; d += kPair)
        for (int i = 0; i < kPair; i++) column[d * kPageSize + i] = x[d + i];
      Bits* row = values + base + offset / kPair * kPair * headDim + offset % kPair;
      for (int64_t d = 0; d < headDim; d++) row[d * kPair] = y[d];
    }
  }
}

static void rolloutWriteKvCache(const WriteKvCacheArgs& args, Workers& workers) {
  // Before any thread writes, so that the same token is named at any number of threads.
  for (int64_t token = 0; token < args.shape.tokens; token++) {
    const int64_t slot = args.slots[token], position = args.positions[token];
    if (slot < 0) continue;
    checkPlace(args.cache, token, slot, position);
    pageOf(args.cache, slot, position);
  }
  const int64_t grain = 2048 / (args.shape.numKvHeads * args.shape.headDim);
  workers.parallelFor(args.shape.tokens, grain, [&](int64_t begin, int64_t end) {
    if (args.shape.dtype == DType::bfloat16)
      writeTokens<uint16_t, 2>(args, begin, end);
    else if (args.shape.dtype == DType::float16)
      writeTokens<uint16_t, 1>(args, begin, end);
    else
      writeTokens<uint32_t, 1>(args, begin, end);
  });
}

void registerRolloutKvCache(Registry& registry) {
  registry.add<WriteKvCacheArgs>(
      Family::rollout, {rolloutWriteKvCache, rolloutWriteKvCache, rolloutWriteKvCache, rolloutWriteKvCache,
                        rolloutWriteKvCache});
}

}  // namespace isopolicy
