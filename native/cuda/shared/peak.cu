// What the GPU can do at most: multiply-adds from registers, and streams through memory. The kernels are
// measured against these, so the loops hold nothing that a kernel could do without.
#include "ops/peak.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/ptx_hopper.cuh"
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

// A step of a product of bf16 numbers adds 8 (8 factor) - 8 (4 factor) to an element.
__device__ __forceinline__ uint32_t bf16Pair() { return narrow2<BFloat16>(8.0f, -4.0f); }
constexpr int64_t kBf16Products = kPeakSteps * kPeakAccumulators * 16 * 2;  // of a pass

// A pass is a warp of 12 chains of mma.sync: 1,024 in the end, where the factor is 0.5.
__global__ void __launch_bounds__(kThreads, 2) bf16Kernel(float* partial, int64_t passes, float factor) {
  constexpr int kSteps = 64, kProducts = 16 * 8 * 16;
  static_assert(int64_t(kSteps) * kPeakAccumulators * kProducts == kBf16Products);
  const int64_t pass = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  float most = 0;
  if (pass < passes) {
    const uint32_t factors = narrow2<BFloat16>(factor, factor);
    const uint32_t a[4] = {bf16Pair(), bf16Pair(), bf16Pair(), bf16Pair()};
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

// The same by wgmma, which capability 90 has beside mma.sync and which is half as fast again. A warpgroup
// multiplies tiles of 64 x 64 and 64 x 256, as a product does, six times 16 of their depth a pass, and two of
// them keep a multiprocessor busy. The sums are scaled to what a pass of the other kind comes to.
constexpr int kWgmmaSteps = 6, kWgmmaPasses = 32, kWgmmaGroups = kThreads / 128;
constexpr int kWgmmaColumns = 256, kWgmmaTiles = kWgmmaGroups * 64 + kWgmmaColumns;  // rows of 128 bytes
static_assert(kWgmmaSteps * 64 * kWgmmaColumns * 16 == kBf16Products);

__global__ void __launch_bounds__(kThreads, 1) wgmmaKernel(float* partial, int64_t passes, float factor) {
#if ISOPOLICY_HOPPER
  const int group = threadIdx.x / 128;
  auto* words = reinterpret_cast<uint32_t*>(dynamicShared());
  for (int i = threadIdx.x; i < kWgmmaTiles * 32; i += kThreads)
    words[i] = i < kWgmmaGroups * 64 * 32 ? bf16Pair() : narrow2<BFloat16>(factor, factor);
  fenceAsyncProxy();
  __syncthreads();
  const uint32_t at = smemAddress(words);
  const uint64_t a = wgmmaDescriptor(at + uint32_t(group) * 64 * 128, 0, 1024, Swizzle::bytes128);
  const uint64_t b = wgmmaDescriptor(at + kWgmmaGroups * 64 * 128, 0, 1024, Swizzle::bytes128);
  const int64_t first = (int64_t(blockIdx.x) * kWgmmaGroups + group) * kWgmmaPasses;
  const int count = int(max(int64_t(0), min(int64_t(kWgmmaPasses), passes - first)));
  float acc[kWgmmaColumns / 2] = {};
  for (int pass = 0; pass < count; pass++) {
    wgmmaFence();
#pragma unroll
    for (int step = 0; step < kWgmmaSteps; step++)
      wgmma<BFloat16, kWgmmaColumns>(acc, wgmmaAdvance(a, step % 4 * 32), wgmmaAdvance(b, step % 4 * 32),
                                     true);
    wgmmaCommit();
    wgmmaWait<1>();
  }
  wgmmaWait<0>();
  wgmmaDone(acc);
  float most = 0;
#pragma unroll
  for (int i = 0; i < kWgmmaColumns / 2; i++) most = fmaxf(most, acc[i]);
  keepLargest(count > 0 ? most * 64.0f / float(kWgmmaSteps * count) : 0.0f, partial);
#endif
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

int64_t blocksOf(const PeakArgs& args, bool wgmma) {
  switch (args.kind) {
    case PeakKind::fma:
      return ceilDiv(args.passes * 16, kThreads);
    case PeakKind::bf16:
      return ceilDiv(args.passes, wgmma ? kWgmmaGroups * kWgmmaPasses : kWarps);
    case PeakKind::read:
      return ceilDiv(args.count, kStream);
    case PeakKind::copy:
      return ceilDiv(args.count / 2, kStream);
    case PeakKind::amx:  // refused by the op
      break;
  }
  return 0;
}

void peak(const PeakArgs& args, Launcher& gpu) {
  const bool wgmma = gpu.properties().capability == 90;
  const int64_t blocks = blocksOf(args, wgmma), half = args.count / 2;
  const Grid grid{blocks};
  float* partial = gpu.scratch<float>(blocks);
  if (args.kind == PeakKind::fma) {
    gpu.launch(fmaKernel, grid, kThreads, 0, partial, args.passes, args.factor, args.addend);
  } else if (args.kind == PeakKind::bf16 && wgmma) {
    gpu.launch(wgmmaKernel, grid, kThreads, kWgmmaTiles * 128, partial, args.passes, args.factor);
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
