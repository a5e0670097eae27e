// Size and health of a gradient in one pass. Squares of fp32 values are exact in fp64 and cannot overflow
// there; blocks of a fixed size are added in order.
#include "ops/grad_stats.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kGroup = 8, kGroups = 2, kSpan = kThreads * kGroup;
constexpr int64_t kBlock = 4 * kGroups * kSpan;  // 16,384 elements

struct BlockStats {
  double squares;
  int64_t nonFinite;
};

// Of the whole block; every thread gets it.
__device__ __forceinline__ BlockStats joined(const BlockStats& mine) {
  return {blockSum<kWarps>(mine.squares), blockSum<kWarps>(mine.nonFinite)};
}

__device__ __forceinline__ void writeStats(const BlockStats& total, float* stats, int64_t count) {
  stats[0] = count > 0 ? float(sqrt(total.squares / double(count))) : 0.0f;
  stats[1] = float(total.nonFinite);
}

// 16,384 elements a block. Where there is only one block it writes the result, otherwise joinStatsKernel
// does. Memory-bound, where fp64 is not much slower than fp32.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gradStatsKernel(const T* x, BlockStats* partial, float* stats, int64_t count) {
  const int64_t begin = blockIdx.x * kBlock, left = min(kBlock, count - begin);
  const T* from = x + begin;
  const bool aligned = isAligned16(from);
  double squares = 0;
  int nonFinite = 0;
  for (int64_t at = threadIdx.x * kGroup; at < left; at += kGroups * kSpan) {
    float values[kGroups][kGroup];
    loadGroups<kSpan>(from + at, left - at, aligned, 0.0f, values);
#pragma unroll
    for (int k = 0; k < kGroups; k++)
#pragma unroll
      for (int i = 0; i < kGroup; i++) {
        const float v = values[k][i];
        const bool finite = fabsf(v) < INFINITY;  // a NaN is not below infinity either
        const double value = finite ? v : 0.0f;
        squares = fma(value, value, squares);
        nonFinite += finite ? 0 : 1;
      }
  }
  const BlockStats total = joined({squares, nonFinite});
  if (threadIdx.x > 0) return;
  if (gridDim.x == 1)
    writeStats(total, stats, count);
  else
    partial[blockIdx.x] = total;
}

__global__ void __launch_bounds__(kThreads)
    joinStatsKernel(const BlockStats* partial, float* stats, int64_t blocks, int64_t count) {
  BlockStats mine = {0, 0};
  for (int64_t b = threadIdx.x; b < blocks; b += kThreads) {
    mine.squares += partial[b].squares;
    mine.nonFinite += partial[b].nonFinite;
  }
  const BlockStats total = joined(mine);
  if (threadIdx.x == 0) writeStats(total, stats, count);
}

void gradStats(const GradStatsArgs& args, Launcher& gpu) {
  const int64_t blocks = std::max<int64_t>(1, ceilDiv(args.count, kBlock));
  BlockStats* partial = blocks > 1 ? gpu.scratch<BlockStats>(blocks) : nullptr;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(gradStatsKernel<T>, Grid{blocks}, kThreads, 0, static_cast<const T*>(args.x), partial,
               args.stats, args.count);
  });
  if (blocks > 1) gpu.launch(joinStatsKernel, Grid{1}, kThreads, 0, partial, args.stats, blocks, args.count);
}

}  // namespace

void registerGradStats(Registry& registry) { addKernel<GradStatsArgs>(registry, Family::shared, gradStats); }

}  // namespace isopolicy::cuda
