// Sums and products of equal shapes: fp32 arithmetic, one rounding to the dtype of the result.
#include "ops/elementwise.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 256, kEach = 2;

template <class T>
int64_t blocksFor(int64_t count) {
  return ceilDiv(partsOf<T>(count), kThreads * kEach);
}

// The first element of a thread's part of 16 bytes number `k`.
template <class T>
__device__ __forceinline__ int64_t partStart(int k) {
  return ((int64_t(blockIdx.x) * kEach + k) * kThreads + threadIdx.x) * Pack<T>::kSize;
}

// Two parts of 16 bytes a thread. Memory-bound: each element passes once.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kThreads)
    elementwiseKernel(const T* a, const T* b, T* out, int64_t count, float factor, ElementwiseKind kind) {
  constexpr int kSize = Pack<T>::kSize;
  Pack<T> left[kEach], right[kEach];
#pragma unroll
  for (int k = 0; k < kEach; k++) {
    const int64_t first = partStart<T>(k);
    if (first >= count) continue;
    left[k] = loadPart<kLayout>(a, first, count);
    if (b != nullptr) right[k] = loadPart<kLayout>(b, first, count);
  }
#pragma unroll
  for (int k = 0; k < kEach; k++) {
    const int64_t first = partStart<T>(k);
    if (first >= count) continue;
    float x[kSize], y[kSize];
    left[k].widen(x);
    if (b != nullptr) right[k].widen(y);
#pragma unroll
    for (int i = 0; i < kSize; i++) {
      switch (kind) {
        case ElementwiseKind::add:
          x[i] = x[i] + y[i];
          break;
        case ElementwiseKind::multiply:
          x[i] = x[i] * y[i];
          break;
        case ElementwiseKind::scale:
          x[i] = x[i] * factor;
          break;
      }
    }
    storeParts<kLayout>(out, first, count, x);
  }
}

void elementwise(const ElementwiseArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatchLayout<Layout::cut>(inParts<T>({}, {args.a, args.b, args.out}), [&](auto layout) {
      gpu.launch(elementwiseKernel<T, layout()>, Grid{blocksFor<T>(args.count)}, kThreads, 0,
                 static_cast<const T*>(args.a), static_cast<const T*>(args.b), static_cast<T*>(args.out),
                 args.count, args.factor, args.kind);
    });
  });
}

// The same for an fp32 target; parts are 16 bytes of x.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kThreads) accumulateKernel(float* target, const T* x, int64_t count) {
  constexpr int kSize = Pack<T>::kSize;
  float sum[kEach][kSize], added[kEach][kSize];
#pragma unroll
  for (int k = 0; k < kEach; k++) {
    const int64_t first = partStart<T>(k);
    if (first >= count) continue;
    loadParts<kLayout>(target, first, count, sum[k]);
    loadParts<kLayout>(x, first, count, added[k]);
  }
#pragma unroll
  for (int k = 0; k < kEach; k++) {
    const int64_t first = partStart<T>(k);
    if (first >= count) continue;
#pragma unroll
    for (int i = 0; i < kSize; i++) sum[k][i] += added[k][i];
    storeParts<kLayout>(target, first, count, sum[k]);
  }
}

void accumulate(const AccumulateArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatchLayout<Layout::cut>(inParts<T>({}, {args.target, args.x}), [&](auto layout) {
      gpu.launch(accumulateKernel<T, layout()>, Grid{blocksFor<T>(args.count)}, kThreads, 0, args.target,
                 static_cast<const T*>(args.x), args.count);
    });
  });
}

}  // namespace

void registerElementwise(Registry& registry) {
  addKernel<ElementwiseArgs>(registry, Family::shared, elementwise);
  addKernel<AccumulateArgs>(registry, Family::shared, accumulate);
}

}  // namespace isopolicy::cuda
