// Sums and maxima in an order that the length alone decides: pieces of a fixed size, each summed by a warp,
// partial results combined in order in fp64.
#include "ops/reduce.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kGroup = 8, kGroups = 4, kSpan = 32 * kGroup;
constexpr int kPiece = 4 * kGroups * kSpan;  // 4,096 elements

// The larger one; a NaN is taken, and stays.
struct MaxOrNaN {
  __device__ __forceinline__ float operator()(float a, float b) const { return a >= b || a != a ? a : b; }
};

// One piece by a warp: 32 chains a lane, each of 4 elements.
template <class T, class By>
__device__ __forceinline__ float reducePiece(const T* x, int count, float nothing, By by) {
  const bool aligned = isAligned16(x);
  float results[kGroups][kGroup];
#pragma unroll
  for (int k = 0; k < kGroups; k++)
#pragma unroll
    for (int i = 0; i < kGroup; i++) results[k][i] = nothing;
  for (int at = int(threadIdx.x % 32) * kGroup; at < count; at += kGroups * kSpan) {
    float values[kGroups][kGroup];
    loadGroups<kSpan>(x + at, count - at, aligned, nothing, values);
#pragma unroll
    for (int k = 0; k < kGroups; k++)
#pragma unroll
      for (int i = 0; i < kGroup; i++) results[k][i] = by(results[k][i], values[k][i]);
  }
#pragma unroll
  for (int half = kGroup / 2; half > 0; half /= 2)
#pragma unroll
    for (int k = 0; k < kGroups; k++)
#pragma unroll
      for (int i = 0; i < half; i++) results[k][i] = by(results[k][i], results[k][i + half]);
  static_assert(kGroups == 4);
  return warpReduce(by(by(results[0][0], results[1][0]), by(results[2][0], results[3][0])), by);
}

__device__ __forceinline__ float ofSum(double sum, int64_t width, Reduction kind) {
  return float(kind == Reduction::mean ? sum / double(width) : sum);
}

// A piece a warp, to `out` where it is all of its row, otherwise to `partial`. Memory-bound.
template <class T, bool kMax>
__global__ void __launch_bounds__(kThreads)
    reducePiecesKernel(const T* x, float* partial, float* out, int64_t width, int64_t perRow, int64_t count,
                       Reduction kind) {
  const int64_t piece = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (piece >= count) return;
  const int64_t start = piece % perRow * kPiece;
  const T* from = x + piece / perRow * width + start;
  const int elements = int(min(int64_t(kPiece), width - start));
  float result;
  if constexpr (kMax)
    result = reducePiece(from, elements, -INFINITY, MaxOrNaN{});
  else
    result = reducePiece(from, elements, 0.0f, Sum{});
  if (threadIdx.x % 32 > 0) return;
  if (perRow > 1)
    partial[piece] = result;
  else
    out[piece] = kMax ? result : ofSum(result, width, kind);
}

// A row a block.
__global__ void __launch_bounds__(kThreads)
    joinPiecesKernel(const float* partial, float* out, int64_t width, int64_t perRow, Reduction kind) {
  const float* p = partial + blockIdx.x * perRow;
  float result;
  if (kind == Reduction::max) {
    result = -INFINITY;
    for (int64_t i = threadIdx.x; i < perRow; i += kThreads) result = MaxOrNaN{}(result, p[i]);
    result = blockReduce<kWarps>(result, MaxOrNaN{});
  } else {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < perRow; i += kThreads) sum += p[i];
    sum = blockSum<kWarps>(sum);
    result = ofSum(sum, width, kind);
  }
  if (threadIdx.x == 0) out[blockIdx.x] = result;
}

void reduce(const ReduceArgs& args, Launcher& gpu) {
  if (args.rows == 0) return;
  const int64_t perRow = ceilDiv(args.width, kPiece), pieces = args.rows * perRow;
  if (pieces == 0) return gpu.zero(args.out, size_t(args.rows) * sizeof(float));
  float* partial = perRow > 1 ? gpu.scratch<float>(pieces) : nullptr;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(args.kind == Reduction::max ? reducePiecesKernel<T, true> : reducePiecesKernel<T, false>,
               Grid{ceilDiv(pieces, kWarps)}, kThreads, 0, static_cast<const T*>(args.x), partial, args.out,
               args.width, perRow, pieces, args.kind);
  });
  if (perRow == 1) return;
  gpu.launch(joinPiecesKernel, Grid{args.rows}, kThreads, 0, partial, args.out, args.width, perRow,
             args.kind);
}

// ---- Sums down the columns ----

constexpr int kRows = 256, kColumns = 32 * kGroup;
static_assert(kColumns == kThreads);

// Rows [256 b, 256 (b + 1)) of 256 columns a block: a warp adds each eighth row, in order, then the warps'
// sums are added in order. Memory-bound.
template <class T>
__global__ void __launch_bounds__(kThreads)
    columnPiecesKernel(const T* x, float* partial, int64_t rows, int64_t width, int64_t count,
                       int64_t columnBlocks) {
  constexpr int kAtOnce = 4;
  __shared__ float ofWarps[kWarps][kColumns];
  const int64_t rowBlock = blockIdx.x / columnBlocks;
  const int64_t firstColumn = blockIdx.x % columnBlocks * kColumns;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t column = firstColumn + lane * kGroup, left = count - column;
  const bool aligned = isAligned16(x + column) && width * sizeof(T) % 16 == 0;
  const int64_t lastRow = min(rows, (rowBlock + 1) * kRows);
  float sums[kGroup] = {};
  int64_t row = rowBlock * kRows + warp;
  const auto add = [&](const float(&values)[kGroup]) {
#pragma unroll
    for (int i = 0; i < kGroup; i++) sums[i] += values[i];
  };
  if (aligned && left >= kGroup) {
    for (; row + (kAtOnce - 1) * kWarps < lastRow; row += kAtOnce * kWarps) {
      float values[kAtOnce][kGroup];
#pragma unroll
      for (int r = 0; r < kAtOnce; r++) loadWide(x + (row + r * kWarps) * width + column, values[r]);
#pragma unroll
      for (int r = 0; r < kAtOnce; r++) add(values[r]);
    }
  }
  for (; row < lastRow; row += kWarps) {
    float values[kGroup];
    loadGroup(x + row * width + column, left, aligned, 0.0f, values);
    add(values);
  }
#pragma unroll
  for (int i = 0; i < kGroup; i++) ofWarps[warp][lane * kGroup + i] = sums[i];
  __syncthreads();
  const int c = threadIdx.x;
  if (firstColumn + c >= count) return;
  float sum = ofWarps[0][c];
#pragma unroll
  for (int w = 1; w < kWarps; w++) sum += ofWarps[w][c];
  partial[rowBlock * count + firstColumn + c] = sum;
}

// A column a thread.
__global__ void __launch_bounds__(kThreads)
    joinColumnsKernel(const float* partial, float* out, int64_t rowBlocks, int64_t count) {
  const int64_t c = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (c >= count) return;
  double sum = 0;
#pragma unroll 4
  for (int64_t block = 0; block < rowBlocks; block++) sum += partial[block * count + c];
  out[c] = float(double(out[c]) + sum);
}

void columnSum(const ColumnSumArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.count == 0) return;
  const int64_t rowBlocks = ceilDiv(args.rows, kRows), columnBlocks = ceilDiv(args.count, kColumns);
  float* partial = gpu.scratch<float>(rowBlocks * args.count);
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(columnPiecesKernel<T>, Grid{rowBlocks * columnBlocks}, kThreads, 0,
               static_cast<const T*>(args.x) + args.columnOffset, partial, args.rows, args.width, args.count,
               columnBlocks);
  });
  gpu.launch(joinColumnsKernel, Grid{ceilDiv(args.count, kThreads)}, kThreads, 0, partial, args.out,
             rowBlocks, args.count);
}

}  // namespace

void registerReduce(Registry& registry) {
  addKernel<ReduceArgs>(registry, Family::shared, reduce);
  addKernel<ColumnSumArgs>(registry, Family::shared, columnSum);
}

}  // namespace isopolicy::cuda
