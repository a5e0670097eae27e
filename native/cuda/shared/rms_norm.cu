// RMSNorm of rows, alone or of the fp32 sum of two tensors. A row's bits depend on nothing but the row (no
// fused multiply-add, an order of the sum of squares that follows from the length).
#include "ops/rms_norm.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rms_norm.cuh"

namespace isopolicy::cuda {
namespace {

template <class T>
struct Norm {
  const T* x;
  const T* delta;
  const T* weight;
  T* sum;
  T* y;
  int64_t rows;
  int width;
  float eps;
  bool rounded, roundedSum;
};

// A group of threads a row, which stays in their registers up to 16 KiB. Memory-bound: each element passes
// once.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kLargestGroup) rmsNormKernel(Norm<T> a, int group) {
  constexpr int kSize = Pack<T>::kSize;
  const auto [row, lane] = rowPlace(group);
  // Threads without a row take part in the reductions alone.
  const int width = row < a.rows ? a.width : 0;
  const int64_t start = row * a.width;
  const T* x = a.x + start;
  const T* delta = a.delta ? a.delta + start : nullptr;
  const auto partStart = [&](int p) { return (lane + p * group) * kSize; };

  // What is normalised, of one part.
  const auto widen = [&](const Pack<T>& of, const Pack<T>& added, int64_t first, float(&v)[kSize],
                         bool keep) {
    of.widen(v);
    if (delta == nullptr) return;
    float d[kSize];
    added.widen(d);
#pragma unroll
    for (int i = 0; i < kSize; i++) v[i] = __fadd_rn(v[i], d[i]);
    if (keep) storeParts<kLayout>(a.sum + start, first, width, v);
    if (!a.roundedSum) return;
#pragma unroll
    for (int i = 0; i < kSize; i++) v[i] = roundThrough<T>(v[i]);
  };
  const auto load = [&](int first, float(&v)[kSize], bool keep) {
    const Pack<T> of = loadPart<kLayout>(x, first, width);
    widen(of, delta ? loadPart<kLayout>(delta, first, width) : of, first, v, keep);
  };

  // All loads come before the first store, behind which the compiler would leave them.
  Pack<T> of[kPartsEach], added[kPartsEach];
#pragma unroll
  for (int p = 0; p < kPartsEach; p++) {
    if (partStart(p) >= width) continue;
    of[p] = loadPart<kLayout>(x, partStart(p), width);
    if (delta) added[p] = loadPart<kLayout>(delta, partStart(p), width);
  }
  float v[kPartsEach][kSize], squares = 0.0f;
#pragma unroll
  for (int p = 0; p < kPartsEach; p++) {
    if (partStart(p) >= width) continue;
    widen(of[p], added[p], partStart(p), v[p], true);
#pragma unroll
    for (int i = 0; i < kSize; i++) squares = plusProduct(squares, v[p][i], v[p][i]);
  }
#pragma unroll 1
  for (int first = partStart(kPartsEach); first < width; first += group * kSize) {
    float more[kSize];
    load(first, more, true);
#pragma unroll
    for (int i = 0; i < kSize; i++) squares = plusProduct(squares, more[i], more[i]);
  }
  const float inverse = inverseRms(groupSums({squares, 0.0f}, group).x, a.width, a.eps);

  const auto normalise = [&](int first, float(&of)[kSize]) {
    float w[kSize];
    loadParts<kLayout>(a.weight, first, width, w);
#pragma unroll
    for (int i = 0; i < kSize; i++) {
      float normalised = __fmul_rn(of[i], inverse);
      if (a.rounded) normalised = roundThrough<T>(normalised);
      of[i] = __fmul_rn(normalised, w[i]);
    }
    storeParts<kLayout>(a.y + start, first, width, of);
  };
#pragma unroll
  for (int p = 0; p < kPartsEach; p++)
    if (partStart(p) < width) normalise(partStart(p), v[p]);
#pragma unroll 1
  for (int first = partStart(kPartsEach); first < width; first += group * kSize) {
    float more[kSize];
    load(first, more, false);
    normalise(first, more);
  }
}

void rmsNorm(const RmsNormArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Norm<T> norm{static_cast<const T*>(args.x),
                       static_cast<const T*>(args.delta),
                       static_cast<const T*>(args.weight),
                       static_cast<T*>(args.sum),
                       static_cast<T*>(args.y),
                       args.rows,
                       int(args.width),
                       args.eps,
                       args.roundings == 2,
                       args.roundedSum};
    const RowGroups groups = groupsFor(args.rows, partsOf<T>(args.width));
    const bool parts = inParts<T>({args.width}, {args.x, args.delta, args.weight, args.sum, args.y});
    dispatchLayout<Layout::whole>(parts, [&](auto layout) {
      gpu.launch(rmsNormKernel<T, layout()>, Grid{groups.blocks}, groups.threads, 0, norm, groups.group);
    });
  });
}

}  // namespace

void registerRmsNorm(Registry& registry) { addKernel<RmsNormArgs>(registry, Family::shared, rmsNorm); }

}  // namespace isopolicy::cuda
