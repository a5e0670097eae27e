// Blocks of tokens of packed sequences, found from cuSeqlens on the device.
#pragma once
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {

// What cuSeqlens can be at fault with; the messages are those of the CPU.
struct SequenceChecks {
  Check start, order, end;
};
inline SequenceChecks sequenceChecks(Launcher& gpu, int64_t tokens) {
  return {gpu.check("expected cuSeqlens to start at 0, got %v"),
          gpu.check("expected cuSeqlens not to decrease, got %v after %i"),
          gpu.check("expected cuSeqlens to end at " + std::to_string(tokens) + " tokens, got %v")};
}

struct Sequences {
  const int32_t* cuSeqlens;
  int64_t count, tokens;
};

// Reports the first thing that is wrong; by one whole warp.
__device__ inline void checkSequences(const Sequences& of, const SequenceChecks& checks) {
  const int lane = int(threadIdx.x % 32);
  const int32_t* cu = of.cuSeqlens;
  if (cu[0] != 0) {
    if (lane == 0) report(checks.start, 0, cu[0]);
    return;
  }
  constexpr int kNone = 0x7fffffff;
  int wrong = kNone;
#pragma unroll 4
  for (int64_t s = lane; s < of.count; s += 32)
    if (cu[s + 1] < cu[s]) wrong = min(wrong, int(s));
  wrong = __reduce_min_sync(0xffffffffu, wrong);
  if (wrong != kNone) {
    // All before it are in order, from 0 on, so that the place for an index can have the number before.
    if (lane == 0) report(checks.order, cu[wrong], cu[wrong + 1]);
    return;
  }
  if (lane == 0 && cu[of.count] != of.tokens) report(checks.end, 0, cu[of.count]);
}

// Blocks of `rows` tokens that are enough for sequences of any lengths: sequence s has those from
// cuSeqlens[s] / rows + s on, at least as many as it fills, and perhaps one that is empty.
inline int64_t sequenceBlocks(const Sequences& of, int rows) {
  return of.tokens / rows + std::max<int64_t>(1, of.count);
}

struct SequenceBlock {
  int sequenceBegin = 0, length = 0;
  int first = 0;  // token of the block, from the beginning of the sequence
};

// Block `index`, by one whole warp; it is empty where first >= length. Wrong cuSeqlens give some blocks of
// the tokens.
template <int kRows>
__device__ __forceinline__ SequenceBlock findBlock(const Sequences& of, int64_t index) {
  if (of.count == 0) return {};
  const auto begin = [&](int64_t s) {
    return int(min(max(int64_t(of.cuSeqlens[s]), int64_t(0)), of.tokens));
  };
  int64_t low = 0, high = of.count;
  while (high - low > 1) {
    const int64_t step = (high - low + 31) / 32, probe = low + int64_t(threadIdx.x % 32) * step;
    const bool before = probe < high && begin(probe) / kRows + probe <= index;
    low += max(__popc(__ballot_sync(0xffffffffu, before)) - 1, 0) * step;
    high = min(high, low + step);
  }
  const int from = begin(low);
  const int64_t first = (index - low - from / kRows) * kRows;
  const int length = max(begin(low + 1) - from, 0);
  return {from, length, int(min(max(first, int64_t(0)), int64_t(length)))};
}

}  // namespace isopolicy::cuda
