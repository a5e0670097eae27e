// The arithmetic of one row of log-softmax, the same functions for both families, for the fused linear
// log-prob and for sampling, so that equal knobs give equal bits.
//
// x_j = logit_j / temperature in fp32. The row is cut into pieces: at the steps that the chunk asks for, a
// step of more than 4,096 columns at each 4,096 of it, a row that is one step at each 2,048. A warp sums a
// piece: its lanes take 8 neighbours each, 256 columns together, and what a lane has summed is multiplied by
// exp(old m - new m) where the lane's maximum m rises; the lanes are joined by a butterfly. The pieces are
// joined in the order of the row, 256 at a time. lse = m + log(sum), in double and rounded once; logprob_j =
// x_j - lse in fp32. Which warp sums a piece changes nothing, so that the bits of a row depend on its logits,
// columns and chunk alone.
//
// The maximum's own term is exactly 1 and the others are not negative, so sum >= 1, lse >= m and no logprob
// is above 0. -infinity is a probability of 0. A row with NaN or +infinity in it, or with nothing above
// -infinity, has a lse of NaN or of -infinity, and logprobs of NaN.
#pragma once
#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {

// Division by it, as rounded as a division is, with less work: the quotient by the reciprocal is mended by
// what it leaves over (Markstein).
struct Temperature {
  float value, reciprocal;

  static Temperature of(float value) {
    return {value, std::min(1.0f / value, std::numeric_limits<float>::max())};
  }
  __device__ __forceinline__ bool isOne() const { return value == 1.0f; }
  __device__ __forceinline__ float divide(float x) const {
    const float q = __fmul_rn(x, reciprocal);
    const float mended = fmaf(fmaf(-q, value, x), reciprocal, q);
    return fabsf(q) < INFINITY ? mended : q;
  }
};

// The logits of a row, divided by the temperature as they are read.
template <class T>
struct LogitRow {
  // A row that masks has kept(x, j): logit j where its distribution has it, else -infinity.
  static constexpr bool kMasks = false;
  const T* logits;
  Temperature temperature;

  __device__ __forceinline__ float prepared(float x) const {
    return temperature.isOne() ? x : temperature.divide(x);
  }
  __device__ __forceinline__ float one(int64_t j) const { return prepared(widen(logits[j])); }
};

// The sum of exp(x - max) over some columns, and the spread: the sum of exp(x - max) (x - max).
struct LogSum {
  float max, sum, spread;
  // The maximum of nothing is not -infinity: a difference of two of those would be NaN.
  static __device__ __forceinline__ LogSum ofNothing() { return {-3.402823466e38f, 0.0f, 0.0f}; }
};

// Of a difference of at most 0, or of NaN.
__device__ __forceinline__ float expBelow(float difference) {
  return exp2Approx(__fmul_rn(difference, 1.44269504089f));
}
// Where exp is 0 long since: keeps 0 * -infinity out of the spread.
inline constexpr float kLeastDifference = -200.0f;

// What `s` is with a larger maximum.
__device__ __forceinline__ void raiseMax(LogSum& s, float max) {
  const float drop = fmaxf(s.max - max, kLeastDifference);
  const float scale = expBelow(drop);
  s.spread = __fmul_rn(scale, fmaf(drop, s.sum, s.spread));
  s.sum = __fmul_rn(scale, s.sum);
  s.max = max;
}

// How a row is cut.
struct Pieces {
  static constexpr int kLongest = 4096, kOfWholeRow = 2048;
  int64_t columns, step;
  int32_t longest, perStep, count;

  static Pieces of(int64_t columns, int64_t chunk) {
    Pieces p;
    p.columns = columns;
    p.step = chunk == 0 ? columns : std::min(chunk, columns);
    p.longest = int32_t(std::min<int64_t>(p.step, chunk == 0 ? kOfWholeRow : kLongest));
    p.perStep = int32_t(ceilDiv(p.step, p.longest));
    p.count = int32_t(columns / p.step * p.perStep + ceilDiv(columns % p.step, p.longest));
    return p;
  }
  __host__ __device__ int64_t begin(int32_t piece) const {
    return piece >= count ? columns : int64_t(piece / perStep) * step + int64_t(piece % perStep) * longest;
  }
  __host__ __device__ int64_t end(int32_t piece) const { return begin(piece + 1); }
};

inline constexpr int kLogitGroup = 8;                // neighbours of a lane
inline constexpr int kLogitGroups = 4;               // of a lane at once
inline constexpr int kLogitSpan = 32 * kLogitGroup;  // columns of a warp's group
inline constexpr int kLogitBlock = kLogitGroups * kLogitSpan;

// Adds 32 columns to what a lane has.
template <bool kEntropy, bool kScaled, class Row>
__device__ __forceinline__ void addLogits(LogSum& s, const Row& row, float (&x)[kLogitGroups][kLogitGroup]) {
  float top = s.max;
#pragma unroll
  for (int k = 0; k < kLogitGroups; k++)
#pragma unroll
    for (int i = 0; i < kLogitGroup; i++) {
      if constexpr (kScaled) x[k][i] = row.temperature.divide(x[k][i]);
      top = fmaxf(top, x[k][i]);
    }
  if (top > s.max) raiseMax(s, top);
  float sums[kLogitGroups] = {}, spreads[kLogitGroups] = {};
#pragma unroll
  for (int i = 0; i < kLogitGroup; i++)
#pragma unroll
    for (int k = 0; k < kLogitGroups; k++) {
      const float below = x[k][i] - top, p = expBelow(below);
      sums[k] = sums[k] + p;
      if constexpr (kEntropy) spreads[k] = fmaf(p, fmaxf(below, kLeastDifference), spreads[k]);
    }
  static_assert(kLogitGroups == 4);
  s.sum = s.sum + ((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if constexpr (kEntropy) s.spread = s.spread + ((spreads[0] + spreads[1]) + (spreads[2] + spreads[3]));
}

template <bool kEntropy, bool kScaled, class Row>
__device__ __forceinline__ LogSum addPiece(const Row& row, int64_t begin, int64_t end) {
  const int lane = threadIdx.x % 32, columns = int(end - begin);
  const auto* from = row.logits + begin;
  const bool aligned = isAligned16(from);
  LogSum s = LogSum::ofNothing();
  for (int at = 0; at < columns; at += kLogitBlock) {
    float x[kLogitGroups][kLogitGroup];
    const int j = at + lane * kLogitGroup;
    loadGroups<kLogitSpan>(from + j, columns - j, aligned, -INFINITY, x);
    if constexpr (Row::kMasks) {
#pragma unroll
      for (int k = 0; k < kLogitGroups; k++)
#pragma unroll
        for (int i = 0; i < kLogitGroup; i++) x[k][i] = row.kept(x[k][i], begin + j + k * kLogitSpan + i);
    }
    addLogits<kEntropy, kScaled>(s, row, x);
  }
  return s;
}

// Columns [begin, end) of a row, which are a piece, by a warp; every lane gets the sum. kEntropy: the spread,
// too.
template <bool kEntropy, class Row>
__device__ __forceinline__ LogSum sumPiece(const Row& row, int64_t begin, int64_t end) {
  LogSum s = row.temperature.isOne() ? addPiece<kEntropy, false>(row, begin, end)
                                     : addPiece<kEntropy, true>(row, begin, end);
  raiseMax(s, warpMax(s.max));
  s.sum = warpSum(s.sum);
  if constexpr (kEntropy) s.spread = warpSum(s.spread);
  return s;
}

inline constexpr int kJoinedPieces = 256;  // at a time

// Adds up to kJoinedPieces pieces to what the row has so far, by a warp; every lane gets the sum.
__device__ __forceinline__ LogSum joinPieces(LogSum s, const LogSum* pieces, int count) {
  const int lane = threadIdx.x % 32;
  float top = s.max;
  for (int i = lane; i < count; i += 32) top = fmaxf(top, pieces[i].max);
  top = warpMax(top);
  LogSum mine = LogSum::ofNothing();
  for (int i = lane; i < count; i += 32) {
    LogSum piece = pieces[i];
    raiseMax(piece, top);
    mine.sum = mine.sum + piece.sum;
    mine.spread = mine.spread + piece.spread;
  }
  raiseMax(s, top);
  s.sum = s.sum + warpSum(mine.sum);
  s.spread = s.spread + warpSum(mine.spread);
  return s;
}

// A whole row by a block of kWarps warps; every thread gets the sum.
template <int kWarps, bool kEntropy, class Row>
__device__ __forceinline__ LogSum sumRow(const Row& row, const Pieces& pieces) {
  __shared__ LogSum table[kJoinedPieces];
  const int warp = threadIdx.x / 32;
  LogSum s = LogSum::ofNothing();
  for (int base = 0; base < pieces.count; base += kJoinedPieces) {
    const int count = min(kJoinedPieces, pieces.count - base);
    __syncthreads();  // the table has been read
    for (int i = warp; i < count; i += kWarps) {
      const LogSum piece = sumPiece<kEntropy>(row, pieces.begin(base + i), pieces.end(base + i));
      if (threadIdx.x % 32 == 0) table[i] = piece;
    }
    __syncthreads();
    s = joinPieces(s, table, count);
  }
  return s;
}

struct RowLogs {
  float lse;
  float entropy;  // of use where the sum was taken with kEntropy
};
// Entropy: -sum p log p = log(sum) - spread / sum, two terms that are never negative, so nothing cancels.
// By one thread: fp64 is slow on many GPUs.
__device__ __forceinline__ RowLogs logsOf(const LogSum& s) {
  const double ofSum = log(double(s.sum));
  return {float(double(s.max) + ofSum), float(ofSum - double(s.spread) / double(s.sum))};
}

// Reports an id that is not in the vocabulary.
__device__ __forceinline__ bool checkId(const Check& check, int64_t row, int32_t id, int64_t columns) {
  const bool valid = id >= 0 && id < columns;
  if (!valid) report(check, row, id);
  return valid;
}
inline Check idCheck(Launcher& gpu, const char* name, int64_t columns) {
  return gpu.check("expected " + std::string(name) + " from 0 to V - 1 = " + std::to_string(columns - 1) +
                   ", got %v in row %i");
}

}  // namespace isopolicy::cuda
