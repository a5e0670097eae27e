// Log-softmax of the training family, by default in steps of 4,096 columns, and its gradient.
#include "cuda/shared/log_softmax_row.cuh"
#include "cuda/shared/log_softmax_rows.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kWarps = 16, kThreads = 32 * kWarps, kGroup = 8, kSpan = kThreads * kGroup;

// dLogit_j = (dOut_j - exp(logprob_j) sum_k dOut_k) / temperature.
//
// A row a block. The sum: 8 chains a thread, then the warps in order. What was read last is looked at first
// when dOut is read again: it is in L2 yet. Memory-bound.
template <class T>
__global__ void __launch_bounds__(kThreads, 2)
    logSoftmaxBackwardKernel(const float* allOut, const float* allLogprobs, T* allLogits, int64_t columns,
                             Temperature temperature) {
  const int64_t at = blockIdx.x * columns;
  const float *dOut = allOut + at, *logprobs = allLogprobs + at;
  T* dLogits = allLogits + at;
  const bool aligned = isAligned16(dOut) && isAligned16(logprobs) && isAligned16(dLogits);

  float sums[kGroup] = {};
  for (int64_t j = threadIdx.x * kGroup; j < columns; j += kSpan) {
    float d[kGroup];
    loadGroup(dOut + j, columns - j, aligned, 0.0f, d);
#pragma unroll
    for (int i = 0; i < kGroup; i++) sums[i] += d[i];
  }
  const float mine =
      ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  const float minusTotal = -blockSum<kWarps>(mine);

  const auto gradient = [&](float d, float logprob) {
    const float g = fmaf(expf(logprob), minusTotal, d);
    return temperature.isOne() ? g : temperature.divide(g);
  };
  for (int64_t base = (columns - 1) / kSpan * kSpan; base >= 0; base -= kSpan) {
    if (aligned && base + kSpan <= columns) {
      const int64_t j = base + threadIdx.x * kGroup;
      float d[kGroup], l[kGroup];
      loadWide(dOut + j, d);
      loadWide(logprobs + j, l);
#pragma unroll
      for (int i = 0; i < kGroup; i++) d[i] = gradient(d[i], l[i]);
      storeNarrow(dLogits + j, d);
    } else {
#pragma unroll
      for (int i = 0; i < kGroup; i++) {
        const int64_t j = base + i * kThreads + threadIdx.x;
        if (j < columns) dLogits[j] = narrow<T>(gradient(dOut[j], logprobs[j]));
      }
    }
  }
}

void logSoftmaxBackward(const LogSoftmaxBackwardArgs& args, Launcher& gpu) {
  if (args.rows == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(logSoftmaxBackwardKernel<T>, Grid{args.rows}, kThreads, 0, args.dOut, args.logprobs,
               static_cast<T*>(args.dLogits), args.columns, Temperature::of(args.temperature));
  });
}

}  // namespace

void registerTrainingLogSoftmax(Registry& registry) {
  addKernel<LogSoftmaxArgs>(registry, Family::training, logSoftmax);
  addKernel<ChosenLogprobsArgs>(registry, Family::training, chosenLogprobs);
  addKernel<LogSoftmaxBackwardArgs>(registry, Family::training, logSoftmaxBackward);
}

}  // namespace isopolicy::cuda
