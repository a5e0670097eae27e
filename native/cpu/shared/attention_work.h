// How attention is cut into pieces of work. Every piece writes its own rows, so the cut is free to follow the
// shape; it never changes a result. Plain code without vectors, the same for every pass.
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "ops/attention.h"

namespace isopolicy {

// Query tokens that share one widening of the keys: enough rows to pay for it, few enough for the cache.
inline int tokensPerBlock(const AttentionShape& shape) {
  return std::min(256, std::max(16, 256 / shape.group()));
}

// Pieces of about 5 microseconds or more, at some 30 billion multiply-adds and 10 million rows a second.
// `products` is how many products of headDim each pair of a query and a key costs.
inline int64_t attentionGrain(const AttentionShape& shape, int64_t pieces, double pairs, double rows,
                              int products) {
  const double nanoseconds = (pairs * shape.headDim * products / 30.0 + rows * 100.0) * shape.numHeads;
  return std::max<int64_t>(1, int64_t(5000.0 * double(pieces) / std::max(nanoseconds, 1.0)));
}

// Brings `bytes` from p on to the second-level cache. Rows of one head are too short and scattered for the
// processor to run ahead by itself.
inline void prefetchRow(const void* p, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += 64)
    __builtin_prefetch(static_cast<const char*>(p) + line, 0, 2);
}

// Rows that are needed soon, to be read or to be written. They are asked for a few at a time while something
// is computed: all at once would keep what is needed now waiting behind them.
class RowsAhead {
 public:
  // A wish: there is room for those of one piece of work.
  void add(const void* rows, int64_t stride, int64_t count, int64_t bytes) {
    if (count <= 0 || used_ == kMost) return;
    blocks_[used_++] = {static_cast<const char*>(rows), stride, count, bytes};
    lines_ += count * ((bytes + 63) / 64);
  }
  // From now on, all that is left is spread over `turns` calls of turn.
  void spread(int64_t turns) { quota_ = (lines_ + turns - 1) / std::max<int64_t>(1, turns); }
  void turn() {
    if (next_ == used_) return;
    due_ += quota_;
    while (due_ > 0) {
      Block& block = blocks_[next_];
      prefetchRow(block.rows, block.bytes);
      const int64_t lines = (block.bytes + 63) / 64;
      due_ -= lines;
      lines_ -= lines;
      block.rows += block.stride;
      if (--block.count == 0 && ++next_ == used_) {
        next_ = used_ = 0;
        due_ = 0;
      }
    }
  }

 private:
  static constexpr int kMost = 32;
  struct Block {
    const char* rows;
    int64_t stride, count, bytes;
  };
  Block blocks_[kMost];
  int next_ = 0, used_ = 0;
  int64_t lines_ = 0, quota_ = 0, due_ = 0;
};

// Throws unless cuSeqlens starts at 0, never decreases and ends at `tokens`.
inline void checkSequences(const int32_t* cuSeqlens, int64_t sequences, int64_t tokens) {
  if (cuSeqlens[0] != 0)
    throw DeviceError("expected cuSeqlens to start at 0, got " + std::to_string(cuSeqlens[0]));
  for (int64_t s = 0; s < sequences; s++) {
    if (cuSeqlens[s + 1] < cuSeqlens[s])
      throw DeviceError("expected cuSeqlens not to decrease, got " + std::to_string(cuSeqlens[s + 1]) +
                        " after " + std::to_string(cuSeqlens[s]));
  }
  if (cuSeqlens[sequences] != tokens)
    throw DeviceError("expected cuSeqlens to end at " + std::to_string(tokens) + " tokens, got " +
                      std::to_string(cuSeqlens[sequences]));
}

// The page of a position. The slot and the position are checked by checkPlace.
inline int64_t pageOf(const KvCache& cache, int64_t slot, int64_t position) {
  const int64_t page = cache.blockTable[slot * cache.pagesPerSlot + position / kPageSize];
  if (page < 0 || page >= cache.pages)
    throw DeviceError("expected blockTable to hold pages from 0 to " + std::to_string(cache.pages - 1) +
                      ", got " + std::to_string(page) + " for position " + std::to_string(position) +
                      " of slot " + std::to_string(slot));
  return page;
}

inline void checkPlace(const KvCache& cache, int64_t token, int64_t slot, int64_t position) {
  if (slot >= cache.slots)
    throw DeviceError("expected slots below " + std::to_string(cache.slots) + ", got " +
                      std::to_string(slot) + " for token " + std::to_string(token));
  const int64_t capacity = cache.pagesPerSlot * kPageSize;
  if (position < 0 || position >= capacity)
    throw DeviceError("expected positions from 0 to " + std::to_string(capacity - 1) + ", got " +
                      std::to_string(position) + " for token " + std::to_string(token));
}

}  // namespace isopolicy
