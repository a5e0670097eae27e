// Backward of training attention, with the roundings of cpu/shared/attention_gradient.h:
//   P = exp(scale q k - lse),  D = sum of dOut * out,  dS = P (dOut v - D),
//   dV = P16^T dOut,  dK = scale dS16^T Q,  dQ = scale dS16 K.
// Two passes over the pairs of queries and keys, each of which finds P and dS anew: in one a block owns keys
// and goes through queries, in the other it owns queries and goes through keys. So every gradient is one sum
// in the order of tokens, without atomics. A block owns 128 rows of one query head (16 a warp) and takes 48
// or 64 tokens a step, double-buffered by cp.async; it is bound by tensor cores and by what they read from
// shared memory. The keys' gradients of the query heads of a group are added in order by a kernel of their
// own.
#include "cuda/training/attention_flash.cuh"
#include "cuda/training/attention_sequences.cuh"
#include "ops/attention.h"

namespace isopolicy::cuda {
namespace {

// kRowGroups times 16 rows of a block, kColumns tokens of a step. Heads of more than 128 elements are cut
// into parts, each computed by a warp of its own.
template <class T_, int kDim_, int kRowGroups, int kColumns_>
struct Pass {
  using T = T_;
  using Rows = SharedRows<T, kDim_>;
  static constexpr int kDim = kDim_, kColumns = kColumns_;
  static constexpr int kParts = kDim > 128 ? 2 : 1, kOut = kDim / kParts;
  static constexpr int kRows = 16 * kRowGroups, kThreads = 32 * kRowGroups * kParts;
  // Two kinds of rows, two buffers of two kinds of columns; what is known of a buffer's queries.
  static constexpr int kBuffers = 2 * kRows * Rows::kRowBytes, kBufferBytes = 2 * kColumns * Rows::kRowBytes;
  static constexpr int kStatistics = kBuffers + 2 * kBufferBytes;
  static constexpr size_t kSharedBytes = kStatistics + 2 * kColumns * sizeof(float2);
};

template <class T>
struct Arguments {
  const T *qkv, *dOut;
  const float2* statistics;  // [numHeads, tokens]: log-sum-exp of base 2, D
  T* dqkv;
  float *dKeys, *dValues;  // of each of `heads` query heads, [heads, tokens, headDim]; or null: to dqkv
  Sequences sequences;
  SequenceChecks checks;
  int64_t blocks;  // of tokens
  int firstHead;
  int numHeads, group, headsOfToken, headDim;
  float scale;
};

// x = P of 16 rows and kColumns columns of scores, where `logSum` has what is subtracted from each score in
// base 2, and where `masked` is true of a row and column, zero.
template <int kColumns, class LogSum, class Masked>
__device__ __forceinline__ void backToProbabilities(float (&x)[kColumns / 8][4], float base2, LogSum logSum,
                                                    Masked masked) {
#pragma unroll
  for (int j = 0; j < kColumns / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++)
      x[j][i] = masked(j, i) ? 0.0f : exp2Approx(fmaf(x[j][i], base2, -logSum(j, i)));
}

// Sums in the fragment layout to rows of headDim elements, of which `count` are there.
template <int kOut>
__device__ __forceinline__ void storeSums(const float (&x)[kOut / 8][4], int column, float* to, int count,
                                          int headDim) {
  const int g = laneOf() / 4, t = laneOf() % 4;
#pragma unroll
  for (int j = 0; j < kOut / 8; j++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = g + 8 * i, at = column + 8 * j + 2 * t;
      if (row < count && at < headDim)
        *reinterpret_cast<float2*>(to + int64_t(row) * headDim + at) =
            make_float2(x[j][2 * i], x[j][2 * i + 1]);
    }
}

// kOfKeys: the rows are keys and values, the columns queries and dOut; otherwise the other way round.
template <class P, bool kOfKeys>
__global__ void __launch_bounds__(P::kThreads, 1) backwardKernel(const Arguments<typename P::T> a) {
  using T = typename P::T;
  using Rows = typename P::Rows;
  constexpr int kColumns = P::kColumns, kOut = P::kOut;
  if (kOfKeys && blockIdx.x == 0 && threadIdx.x < 32) checkSequences(a.sequences, a.checks);
  // The blocks with most to do come first: keys that all later queries see, queries that see all keys before.
  const int head = a.firstHead + int(blockIdx.x / a.blocks);
  const int64_t index = blockIdx.x % a.blocks;
  const SequenceBlock block = findBlock<P::kRows>(a.sequences, kOfKeys ? index : a.blocks - 1 - index);
  const int count = min(P::kRows, block.length - block.first);
  if (count <= 0) return;

  const int stride = a.headsOfToken * a.headDim, outStride = a.numHeads * a.headDim;
  const int queryAt = head * a.headDim;
  const int keyAt = (a.numHeads + head / a.group) * a.headDim;
  const int valueAt = keyAt + a.numHeads / a.group * a.headDim;
  const T* sequence = a.qkv + block.sequenceBegin * int64_t(stride);
  // Two kinds of rows of the sequence: queries and dOut, or keys and values.
  struct Tokens {
    const T *first, *second;
    int stride1, stride2;
  };
  const Tokens queries{sequence + queryAt, a.dOut + block.sequenceBegin * int64_t(outStride) + queryAt,
                       stride, outStride};
  const Tokens keys{sequence + keyAt, sequence + valueAt, stride, stride};
  const Tokens ofRows = kOfKeys ? keys : queries, ofColumns = kOfKeys ? queries : keys;
  const float2* known = a.statistics + head * a.sequences.tokens + block.sequenceBegin;

  const Rows rows1{0}, rows2{P::kRows * Rows::kRowBytes};
  const auto columns = [](int buffer, int kind) {
    return Rows{P::kBuffers + buffer * P::kBufferBytes + kind * kColumns * Rows::kRowBytes};
  };
  const auto knownOf = [](int buffer) {
    return reinterpret_cast<float2*>(dynamicShared() + P::kStatistics) + buffer * kColumns;
  };
  const auto copyTokens = [&](auto most, const Tokens& from, Rows to1, Rows to2, int first, int n) {
    constexpr int kMost = decltype(most)::value;
    copyRows<kMost, P::kThreads>(to1, from.first + int64_t(first) * from.stride1, from.stride1, n, a.headDim);
    copyRows<kMost, P::kThreads>(to2, from.second + int64_t(first) * from.stride2, from.stride2, n,
                                 a.headDim);
  };
  const int end = kOfKeys ? block.length : block.first + count;
  const auto loadStep = [&](int buffer, int first) {
    const int n = min(kColumns, end - first);
    copyTokens(std::integral_constant<int, kColumns>{}, ofColumns, columns(buffer, 0), columns(buffer, 1),
               first, n);
    // Queries that are absent have zeros everywhere and add zeros.
    static_assert(P::kThreads >= kColumns);
    if (kOfKeys && threadIdx.x < kColumns) {
      const int i = int(threadIdx.x);
      copyAsync<8>(knownOf(buffer) + i, known + (i < n ? first + i : 0), i < n ? 8 : 0);
    }
    copyCommit();
  };

  const int warp = int(threadIdx.x) / 32, lane = laneOf(), g = lane / 4, t = lane % 4;
  const int row = warp / P::kParts * 16, column = warp % P::kParts * kOut;
  const int firstRow = block.first + row;  // token of the warp's first row
  float2 ofRow[2] = {};
  if constexpr (!kOfKeys)
    for (int i = 0; i < 2; i++) ofRow[i] = known[min(firstRow + g + 8 * i, block.length - 1)];
  const float base2 = a.scale * kLog2E;
  float sum1[kOut / 8][4] = {}, sum2[kOfKeys ? kOut / 8 : 1][4] = {};  // dK or dQ, dV

  copyTokens(std::integral_constant<int, P::kRows>{}, ofRows, rows1, rows2, block.first, count);
  const int begin = kOfKeys ? block.first : 0;
  loadStep(0, begin);
  int buffer = 0;
  for (int first = begin; first < end; first += kColumns, buffer ^= 1) {
    copyWait<0>();
    __syncthreads();
    if (first + kColumns < end) loadStep(buffer ^ 1, first + kColumns);
    // Pairs in which the query is before the key are passed by.
    if (kOfKeys ? first + kColumns <= firstRow : first > firstRow + 15) continue;
    const bool diagonal = kOfKeys ? first < firstRow + 15 : first + kColumns > firstRow + 1;
    const auto masked = [&](int j, int i) {
      const int columnToken = first + 8 * j + 2 * t + i % 2, rowToken = firstRow + g + i / 2 * 8;
      return kOfKeys ? columnToken < rowToken : columnToken > rowToken;
    };
    const float2* ofColumn = knownOf(buffer) + 2 * t;
    const auto logSum = [&](int j, int i) { return kOfKeys ? ofColumn[8 * j + i % 2].x : ofRow[i / 2].x; };
    const auto dot = [&](int j, int i) { return kOfKeys ? ofColumn[8 * j + i % 2].y : ofRow[i / 2].y; };

    float p[kColumns / 8][4], dS[kColumns / 8][4];
    scores<kColumns>(rows1.from(row), columns(buffer, 0), p);
    if (diagonal)
      backToProbabilities<kColumns>(p, base2, logSum, masked);
    else
      backToProbabilities<kColumns>(p, base2, logSum, [](int, int) { return false; });
    if constexpr (kOfKeys) addRows<kColumns, kOut>(p, columns(buffer, 1), column, sum2);
    scores<kColumns>(rows2.from(row), columns(buffer, 1), dS);
#pragma unroll
    for (int j = 0; j < kColumns / 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) dS[j][i] = p[j][i] * (dS[j][i] - dot(j, i));
    addRows<kColumns, kOut>(dS, columns(buffer, 0), column, sum1);
  }

#pragma unroll
  for (int j = 0; j < kOut / 8; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) sum1[j][i] *= a.scale;
  const int64_t token = int64_t(block.sequenceBegin) + firstRow;
  if constexpr (kOfKeys) {
    if (a.dKeys != nullptr) {
      const int64_t at = ((head - a.firstHead) * a.sequences.tokens + token) * a.headDim;
      storeSums<kOut>(sum1, column, a.dKeys + at, count - row, a.headDim);
      storeSums<kOut>(sum2, column, a.dValues + at, count - row, a.headDim);
      return;
    }
  }
  __syncthreads();  // the rows were read
  // Found again, as 64-bit numbers, which need no registers before. Keys are written here by groups of one.
  const int64_t tokenElements = int64_t(a.headsOfToken) * a.headDim;
  T* to = a.dqkv + token * tokenElements + (kOfKeys ? int64_t(a.numHeads) + head : head) * a.headDim;
  stageRows<kOut>(sum1, rows1.from(row), column);
  writeRows<kOut>(rows1.from(row), column, to, tokenElements, count - row, a.headDim);
  if constexpr (kOfKeys) {
    stageRows<kOut>(sum2, rows2.from(row), column);
    writeRows<kOut>(rows2.from(row), column, to + int64_t(a.numHeads) * a.headDim, tokenElements, count - row,
                    a.headDim);
  }
}

// The gradients of keys and values: of each, the sum over the query heads of its group, in order. Two
// elements a thread. Memory-bound.
constexpr int kSumThreads = 256;
template <class T>
__global__ void __launch_bounds__(kSumThreads) sumGroupsKernel(const Arguments<T> a, int64_t pairs) {
  const int64_t i = int64_t(blockIdx.x) * kSumThreads + threadIdx.x;
  if (i >= pairs) return;
  const int64_t perHead = a.sequences.tokens * (a.headDim / 2);
  const int64_t kind = i / (pairs / 2), keyHead = i % (pairs / 2) / perHead, at = i % perHead;
  const float2* from =
      reinterpret_cast<const float2*>(kind == 0 ? a.dKeys : a.dValues) + keyHead * a.group * perHead + at;
  float2 sum = from[0];
  for (int h = 1; h < a.group; h++) {
    const float2 x = from[h * perHead];
    sum.x += x.x;
    sum.y += x.y;
  }
  const int64_t token = at / (a.headDim / 2), element = at % (a.headDim / 2) * 2;
  const int64_t head = a.numHeads + kind * (a.numHeads / a.group) + a.firstHead / a.group + keyHead;
  T* to = a.dqkv + (token * a.headsOfToken + head) * a.headDim + element;
  to[0] = narrow<T>(sum.x);
  to[1] = narrow<T>(sum.y);
}

// What is known of each query: its log-sum-exp in base 2 and D. A warp a query. Memory-bound.
constexpr int kQueryWarps = 8;
template <class T>
__global__ void __launch_bounds__(kQueryWarps * 32)
    statisticsKernel(const T* dOut, const T* out, const float* lse, float2* statistics, int64_t tokens,
                     int numHeads, int headDim) {
  const int64_t i = int64_t(blockIdx.x) * kQueryWarps + threadIdx.x / 32;
  if (i >= tokens * numHeads) return;
  float sum = 0.0f;
  for (int d = laneOf(); d < headDim; d += 32)
    sum = fmaf(widen(dOut[i * headDim + d]), widen(out[i * headDim + d]), sum);
  sum = warpSum(sum);
  const int64_t at = i % numHeads * tokens + i / numHeads;
  if (laneOf() == 0) statistics[at] = make_float2(lse[at] * kLog2E, sum);
}

// What the sums of the keys' gradients may take of memory, unless those of one key head take more.
constexpr int64_t kMostSumBytes = int64_t(256) << 20;

template <class OfKeys, class OfQueries = OfKeys>
void launchBackward(const AttentionBackwardArgs& args, Launcher& gpu) {
  using T = typename OfKeys::T;
  static_assert(OfKeys::kRows == OfQueries::kRows);
  const AttentionShape& shape = args.shape;
  const int64_t tokens = shape.tokens;
  const int group = shape.group();
  Arguments<T> a{};
  a.qkv = static_cast<const T*>(args.qkv);
  a.dOut = static_cast<const T*>(args.dOut);
  a.dqkv = static_cast<T*>(args.dqkv);
  a.sequences = {args.cuSeqlens, args.sequences, tokens};
  a.checks = sequenceChecks(gpu, tokens);
  a.blocks = sequenceBlocks(a.sequences, OfKeys::kRows);
  a.numHeads = shape.numHeads;
  a.group = group;
  a.headsOfToken = shape.heads();
  a.headDim = shape.headDim;
  a.scale = args.scale;
  if (tokens > 0) {
    float2* statistics = gpu.scratch<float2>(tokens * shape.numHeads);
    gpu.launch(statisticsKernel<T>, Grid{ceilDiv(tokens * shape.numHeads, kQueryWarps)}, kQueryWarps * 32, 0,
               a.dOut, static_cast<const T*>(args.out), args.lse, statistics, tokens, shape.numHeads,
               shape.headDim);
    a.statistics = statistics;
  }

  int keyHeads = shape.numKvHeads;  // at once
  const int64_t perKeyHead = group * tokens * shape.headDim;
  if (group > 1 && tokens > 0) {
    const int64_t most = std::max<int64_t>(1, kMostSumBytes / (2 * perKeyHead * int64_t(sizeof(float))));
    keyHeads = int(std::min<int64_t>(keyHeads, most));
    a.dKeys = gpu.scratch<float>(keyHeads * perKeyHead);
    a.dValues = gpu.scratch<float>(keyHeads * perKeyHead);
  }
  for (int first = 0; first < shape.numKvHeads; first += keyHeads) {
    const int n = std::min(keyHeads, shape.numKvHeads - first);
    a.firstHead = first * group;
    gpu.launch(backwardKernel<OfKeys, true>, Grid{a.blocks * n * group}, OfKeys::kThreads,
               OfKeys::kSharedBytes, a);
    if (a.dKeys == nullptr) continue;
    const int64_t pairs = 2 * n * tokens * (shape.headDim / 2);
    gpu.launch(sumGroupsKernel<T>, Grid{ceilDiv(pairs, kSumThreads)}, kSumThreads, 0, a, pairs);
  }
  a.firstHead = 0;
  gpu.launch(backwardKernel<OfQueries, false>, Grid{a.blocks * shape.numHeads}, OfQueries::kThreads,
             OfQueries::kSharedBytes, a);
}

template <class T>
void backwardOf(const AttentionBackwardArgs& args, Launcher& gpu) {
  const int headDim = args.shape.headDim;
  if constexpr (sizeof(T) == 2) {
    if (headDim <= 64) return launchBackward<Pass<T, 64, 8, 64>>(args, gpu);
    if (headDim > 128) return launchBackward<Pass<T, 256, 4, 16>>(args, gpu);
    // Steps as long as registers and shared memory allow; their length changes no bit.
    using Long = Pass<T, 128, 8, 64>;
    if (Long::kSharedBytes <= gpu.properties().sharedMemoryPerBlock)
      return launchBackward<Pass<T, 128, 8, 48>, Long>(args, gpu);
    return launchBackward<Pass<T, 128, 8, 32>>(args, gpu);
  } else {
    if (headDim <= 64) return launchBackward<Pass<T, 64, 4, 16>>(args, gpu);
    if (headDim <= 128) return launchBackward<Pass<T, 128, 4, 16>>(args, gpu);
    return launchBackward<Pass<T, 256, 1, 16>>(args, gpu);
  }
}

void attentionBackward(const AttentionBackwardArgs& args, Launcher& gpu) {
  dispatchFloat(args.shape.dtype, [&](auto zero) { backwardOf<decltype(zero)>(args, gpu); });
}

}  // namespace

void registerTrainingAttentionBackward(Registry& registry) {
  addKernel<AttentionBackwardArgs>(registry, Family::training, attentionBackward);
}

}  // namespace isopolicy::cuda
