// What the GPU can do at most: multiply-adds from registers, and streams through memory. The kernels are
// measured against these, so the loops hold nothing that a kernel could do without.
#include "ops/peak.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;

__device__ __forceinline__ void keepLargest(float value, float* partial) {
  const float largest = blockMax<kWarps>(value);
  if (threadIdx.x == 0) partial[blockIdx.x] = largest;
}

// A pass is 16 threads of 12 chains. acc = acc * factor + addend from a start that differs by pass and chain
// (equal chains would be one to the compiler). With factor 0.5 and addend 1 every chain ends at 2 exactly,
// which tells that the work was done.
__global__ void __launch_bounds__(kThreads)
    fmaKernel(float* partial, int64_t passes, float factor, float addend) {
  const int64_t thread = int64_t(blockIdx.x) * kThreads + threadIdx.x, pass = thread / 16;
  float most = 0;
  if (pass < passes) {
    float acc[kPeakAccumulators];
#pragma unroll
    for (int i = 0; i < kPeakAccumulators; i++) acc[i] = float(pass % 64 + i);
#pragma unroll 8
    for (int step = 0; step < int(kPeakSteps); step++) {
#pragma unroll
      for (int i = 0; i < kPeakAccumulators; i++) acc[i] = fmaf(acc[i], factor, addend);
    }
#pragma unroll
    for (int i = 0; i < kPeakAccumulators; i++) most = fmaxf(most, acc[i]);
  }
  keepLargest(most, partial);
}

// A pass is a warp of 12 chains of mma.sync, which is all that GPUs before capability 90 have. A step adds 8
// (8 factor) - 8 (4 factor) to an element: 1,024 in the end, where the factor is 0.5.
__global__ void __launch_bounds__(kThreads) bf16Kernel(float* partial, int64_t passes, float factor) {
  constexpr int kSteps = 64, kProducts = 16 * 8 * 16;
  static_assert(int64_t(kSteps) * kPeakAccumulators * kProducts == kPeakSteps * kPeakAccumulators * 16 * 2);
  const int64_t pass = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  float most = 0;
  if (pass < passes) {
    const uint32_t pair = narrow2<BFloat16>(8.0f, -4.0f), factors = narrow2<BFloat16>(factor, factor);
    const uint32_t a[4] = {pair, pair, pair, pair};
    const auto start = [&](int i) { return float(pass % 64 + i); };
    float acc[kPeakAccumulators][4];
#pragma unroll
    for (int i = 0; i < kPeakAccumulators; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) acc[i][j] = start(i);
#pragma unroll 4
    for (int step = 0; step < kSteps; step++) {
#pragma unroll
      for (int i = 0; i < kPeakAccumulators; i++) mma<BFloat16>(acc[i], a, factors, factors);
    }
#pragma unroll
    for (int i = 0; i < kPeakAccumulators; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) most = fmaxf(most, acc[i][j] - start(i));
  }
  keepLargest(most, partial);
}

constexpr int kVectors = 8;                                    // a thread, all on their way at once
constexpr int64_t kStream = int64_t(kThreads) * kVectors * 4;  // elements of a block: 32 KiB
constexpr int64_t kMebibyte = 262144;

// The largest element. kCopy: copies the memory, too, and looks only at elements that end a MiB.
template <bool kCopy>
__global__ void __launch_bounds__(kThreads)
    streamKernel(const float* from, float* to, int64_t count, float* partial) {
  const int64_t first = blockIdx.x * kStream + threadIdx.x * 4;
  Pack<float> vectors[kVectors];
  float most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kVectors; i++) {
    const int64_t at = first + i * kThreads * 4;
    if (at < count) vectors[i] = Pack<float>::loadOnce(from + at);
  }
#pragma unroll
  for (int i = 0; i < kVectors; i++) {
    const int64_t at = first + i * kThreads * 4;
    if (at >= count) break;
    float values[4];
    vectors[i].widen(values);
    if constexpr (kCopy) {
      vectors[i].storeStreaming(to + at);
      if ((at + 4) % kMebibyte == 0 || at + 4 == count) most = fmaxf(most, values[3]);
    } else {
      most = fmaxf(most, fmaxf(fmaxf(values[0], values[1]), fmaxf(values[2], values[3])));
    }
  }
  keepLargest(most, partial);
}

__global__ void __launch_bounds__(kThreads) largestKernel(const float* partial, int64_t count, float* out) {
  float most = -INFINITY;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) most = fmaxf(most, partial[i]);
  keepLargest(most, out);
}

int64_t blocksOf(const PeakArgs& args) {
  switch (args.kind) {
    case PeakKind::fma:
      return ceilDiv(args.passes * 16, kThreads);
    case PeakKind::bf16:
      return ceilDiv(args.passes, kWarps);
    case PeakKind::read:
      return ceilDiv(args.count, kStream);
    case PeakKind::copy:
      return ceilDiv(args.count / 2, kStream);
    case PeakKind::amx:
      break;
  }
  throw DeviceError("there is no kind amx on a GPU");
}

void peak(const PeakArgs& args, Launcher& gpu) {
  const int64_t blocks = blocksOf(args), half = args.count / 2;
  const Grid grid{blocks};
  float* partial = gpu.scratch<float>(blocks);
  if (args.kind == PeakKind::fma) {
    gpu.launch(fmaKernel, grid, kThreads, 0, partial, args.passes, args.factor, args.addend);
  } else if (args.kind == PeakKind::bf16) {
    gpu.launch(bf16Kernel, grid, kThreads, 0, partial, args.passes, args.factor);
  } else {
    if (!isAligned16(args.memory)) throw DeviceError("expected memory aligned to 16 bytes");
    // A pass at a time: two passes at once could share what one of them brought into the cache.
    for (int64_t pass = 0; pass < args.passes; pass++) {
      if (args.kind == PeakKind::read)
        gpu.launch(streamKernel<false>, grid, kThreads, 0, args.memory, nullptr, args.count, partial);
      else
        gpu.launch(streamKernel<true>, grid, kThreads, 0, args.memory, args.memory + half, half, partial);
    }
  }
  gpu.launch(largestKernel, Grid{1}, kThreads, 0, partial, blocks, args.out);
}

}  // namespace

void registerPeak(Registry& registry) { addKernel<PeakArgs>(registry, Family::shared, peak); }

}  // namespace isopolicy::cuda
