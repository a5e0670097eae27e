#include "cuda/shared/log_softmax_rows.cuh"

#include "cuda/shared/log_softmax_row.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kWarps = 16;

// The block's columns, from the last one back: those were read last and are in L2 yet.
template <class T>
__device__ void writeLogprobs(const LogitRow<T>& row, int64_t columns, float lse, float* out) {
  constexpr int kThreads = 32 * kWarps, kSpan = kThreads * kLogitGroup;
  const bool aligned = isAligned16(row.logits) && isAligned16(out);
  for (int64_t base = (columns - 1) / kSpan * kSpan; base >= 0; base -= kSpan) {
    if (aligned && base + kSpan <= columns) {
      const int64_t j = base + threadIdx.x * kLogitGroup;
      float x[kLogitGroup];
      loadWide(row.logits + j, x);
#pragma unroll
      for (int i = 0; i < kLogitGroup; i++) x[i] = row.prepared(x[i]) - lse;
      storeNarrow(out + j, x);
    } else {
#pragma unroll
      for (int i = 0; i < kLogitGroup; i++) {
        const int64_t j = base + i * kThreads + threadIdx.x;
        if (j < columns) out[j] = row.one(j) - lse;
      }
    }
  }
}

// A row a block, of 16 warps so that few rows are on their way at a time: they are read twice, and as many as
// there are stay in L2 from the first time to the second. Memory-bound.
template <class T>
__global__ void __launch_bounds__(32 * kWarps, 2)
    logSoftmaxKernel(const T* logits, float* logprobs, Pieces pieces, Temperature temperature) {
  __shared__ float lse;
  const int64_t at = blockIdx.x * pieces.columns;
  const LogitRow<T> row{logits + at, temperature};
  const LogSum sum = sumRow<kWarps, false>(row, pieces);
  if (threadIdx.x == 0) lse = logsOf(sum).lse;
  __syncthreads();
  writeLogprobs(row, pieces.columns, lse, logprobs + at);
}

// A row a block. Memory-bound: the logits pass once.
template <class T, int kRowWarps>
__global__ void __launch_bounds__(32 * kRowWarps)
    chosenLogprobsKernel(ChosenLogprobsArgs args, Pieces pieces, Temperature temperature, Check check) {
  const int64_t i = blockIdx.x;
  const LogitRow<T> row{static_cast<const T*>(args.logits) + i * args.columns, temperature};
  const LogSum sum = sumRow<kRowWarps, true>(row, pieces);
  if (threadIdx.x > 0) return;
  const RowLogs logs = logsOf(sum);
  args.lse[i] = logs.lse;
  args.entropy[i] = logs.entropy;
  const int32_t id = args.ids[i];
  if (checkId(check, i, id, args.columns)) args.logprobs[i] = row.one(id) - logs.lse;
}

}  // namespace

void logSoftmax(const LogSoftmaxArgs& args, Launcher& gpu) {
  if (args.rows == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(logSoftmaxKernel<T>, Grid{args.rows}, 32 * kWarps, 0, static_cast<const T*>(args.logits),
               args.logprobs, Pieces::of(args.columns, args.chunk), Temperature::of(args.temperature));
  });
}

void chosenLogprobs(const ChosenLogprobsArgs& args, Launcher& gpu) {
  if (args.rows == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto launch = [&](auto kernel, int warps) {
      gpu.launch(kernel, Grid{args.rows}, 32 * warps, 0, args, Pieces::of(args.columns, args.chunk),
                 Temperature::of(args.temperature), idCheck(gpu, "ids", args.columns));
    };
    // Small blocks lose less at the end of a row; large ones are quicker where rows are few.
    if (args.rows >= 4 * gpu.properties().multiprocessors)
      launch(chosenLogprobsKernel<T, 4>, 4);
    else
      launch(chosenLogprobsKernel<T, kWarps>, kWarps);
  });
}

}  // namespace isopolicy::cuda
