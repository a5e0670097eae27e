// Filling, copying and drawing random numbers into memory.
#include "ops/memory.h"

#include "core/allocator.h"
#include "core/random.h"
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 256;

// One element a thread. Memory-bound, and rare: made once, when a model or a buffer is.
template <class T>
__global__ void fillKernel(T* data, int64_t count, T value) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) data[i] = value;
}

void fill(const FillArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  const Grid grid{ceilDiv(args.count, kThreads)};
  if (args.dtype == DType::int32) {
    gpu.launch(fillKernel<int32_t>, grid, kThreads, 0, static_cast<int32_t*>(args.data), args.count,
               int32_t(args.value));
    return;
  }
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(fillKernel<T>, grid, kThreads, 0, static_cast<T*>(args.data), args.count,
               roundTo<T>(float(args.value)));
  });
}

void copy(const CopyArgs& args, Launcher& gpu) { gpu.copy(args.to, args.from, args.bytes); }

void upload(const UploadArgs& args, Launcher& gpu) {
  if (args.bytes == 0) return;
  // From pageable memory: it was staged when the call returns, unless the GPU reads such memory itself.
  expectSuccess(cudaMemcpyAsync(args.to, args.from, args.bytes, cudaMemcpyHostToDevice, gpu.stream()),
                "copying to the GPU");
  if (gpu.properties().readsPageable)
    expectSuccess(cudaStreamSynchronize(gpu.stream()), "copying to the GPU");
}

void poison(const PoisonArgs& args, Launcher& gpu) {
  if (args.bytes > 0)
    expectSuccess(cudaMemsetAsync(args.data, 0xff, args.bytes, gpu.stream()), "poisoning memory");
}

// A pair of values a thread, in fp64 as on the CPU.
template <class T>
__global__ void randomNormalKernel(T* data, int64_t count, double mean, double std, uint32_t seed,
                                   uint32_t stream) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (2 * i >= count) return;
  const Philox bits = philox(uint32_t(i), uint32_t(i >> 32), 0, stream, seed, 0);
  const double u = 1.0 - uniform53(bits.word[0], bits.word[1]);  // (0, 1]: the logarithm is finite
  const double angle = 6.283185307179586477 * uniform53(bits.word[2], bits.word[3]);
  const double radius = std * sqrt(-2.0 * log(u));
  data[2 * i] = narrow<T>(float(mean + radius * cos(angle)));
  if (2 * i + 1 < count) data[2 * i + 1] = narrow<T>(float(mean + radius * sin(angle)));
}

void randomNormal(const RandomNormalArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    gpu.launch(randomNormalKernel<T>, Grid{ceilDiv(ceilDiv(args.count, 2), kThreads)}, kThreads, 0,
               static_cast<T*>(args.data), args.count, args.mean, args.std, args.seed, args.stream);
  });
}

__global__ void randomUniformKernel(float* data, int64_t count, double bound, uint32_t seed,
                                    uint32_t stream) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  const Philox bits = philox(uint32_t(i), uint32_t(i >> 32), 1, stream, seed, 0);
  for (int j = 0; j < 2; j++) {
    if (2 * i + j >= count) return;
    const double u = uniform53(bits.word[2 * j], bits.word[2 * j + 1]);
    data[2 * i + j] = float(bound * (2.0 * u - 1.0));
  }
}

void randomUniform(const RandomUniformArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  gpu.launch(randomUniformKernel, Grid{ceilDiv(ceilDiv(args.count, 2), kThreads)}, kThreads, 0, args.data,
             args.count, args.bound, args.seed, args.stream);
}

}  // namespace

void registerMemory(Registry& registry) {
  addKernel<FillArgs>(registry, Family::shared, fill);
  addKernel<CopyArgs>(registry, Family::shared, copy);
  addKernel<UploadArgs>(registry, Family::shared, upload);
  addKernel<PoisonArgs>(registry, Family::shared, poison);
  addKernel<RandomNormalArgs>(registry, Family::shared, randomNormal);
  addKernel<RandomUniformArgs>(registry, Family::shared, randomUniform);
}

}  // namespace isopolicy::cuda
