// The write into the paged cache: bits are moved, nothing is computed, so one variant serves every level.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"

namespace isopolicy {

// Keys of a page lie side by side, the values by rows; bf16 in pairs (ops/attention.h). kPair is 2 for those.
template <class Bits, int kPair>
class Writer {
 public:
  explicit Writer(const WriteKvCacheArgs& args) : args_(args), headDim_(args.shape.headDim) {}

  void write(int64_t begin, int64_t end) const {
    for (int64_t token = begin; token < end; token++) {
      if (args_.slots[token] < 0) continue;
      const bool ends = token + 1 == end || args_.slots[token + 1] < 0;
      const Place here = placeOf(token), next = ends ? here : placeOf(token + 1);
      const int64_t numKvHeads = args_.shape.numKvHeads;
      const Bits* key = static_cast<const Bits*>(args_.qkv) +
                        (token * args_.shape.heads() + args_.shape.numHeads) * headDim_;
      for (int64_t h = 0; h < numKvHeads; h++) {
        fetch(next, h);
        put(here, h, key + h * headDim_, key + (numKvHeads + h) * headDim_);
      }
    }
  }

 private:
  struct Place {
    Bits *column, *row;  // of the first head
  };
  Place placeOf(int64_t token) const {
    const int64_t position = args_.positions[token], offset = position % kPageSize;
    const int64_t base =
        pageOf(args_.cache, args_.slots[token], position) * args_.shape.numKvHeads * headDim_ * kPageSize;
    return {
        static_cast<Bits*>(args_.cache.keys) + base + offset * kPair,
        static_cast<Bits*>(args_.cache.values) + base + offset / kPair * kPair * headDim_ + offset % kPair};
  }

  void put(const Place& place, int64_t head, const Bits* key, const Bits* value) const {
    Bits* column = place.column + head * headDim_ * kPageSize;
    for (int64_t d = 0; d < headDim_; d += kPair)
      for (int i = 0; i < kPair; i++) column[d * kPageSize + i] = key[d + i];
    Bits* row = place.row + head * headDim_ * kPageSize;
    for (int64_t d = 0; d < headDim_; d++) row[d * kPair] = value[d];
  }

  // A key has a line of its own for every element or two, each of which a store would wait for.
  void fetch(const Place& place, int64_t head) const {
    const char* column = reinterpret_cast<const char*>(place.column + head * headDim_ * kPageSize);
    for (int64_t line = 0; line < headDim_ * kPageSize * int64_t(sizeof(Bits)); line += 64)
      __builtin_prefetch(column + line, 1);
    const char* row = reinterpret_cast<const char*>(place.row + head * headDim_ * kPageSize);
    for (int64_t line = 0; line < headDim_ * kPair * int64_t(sizeof(Bits)); line += 64)
      __builtin_prefetch(row + line, 1);
  }

  const WriteKvCacheArgs& args_;
  const int64_t headDim_;
};

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
      Writer<uint16_t, 2>(args).write(begin, end);
    else if (args.shape.dtype == DType::float16)
      Writer<uint16_t, 1>(args).write(begin, end);
    else
      Writer<uint32_t, 1>(args).write(begin, end);
  });
}

void registerRolloutKvCache(Registry& registry) {
  registry.add<WriteKvCacheArgs>(
      Family::rollout, {rolloutWriteKvCache, rolloutWriteKvCache, rolloutWriteKvCache, rolloutWriteKvCache,
                        rolloutWriteKvCache});
}

}  // namespace isopolicy
