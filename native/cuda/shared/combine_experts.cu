// Experts' outputs back to their tokens. Products and sums are rounded on their own, never fused, so that in
// fp32 the bits are the same with one rounding and with three.
//
// Memory-bound: forward a block has 128 packs of a token's row and reads them from each of its k rows;
// backward a warp has a choice. A row of y is read, and one of dY written, once; rows of 16 bytes a thread.
#include "ops/combine_experts.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {
namespace {

// Rows as the outputs of the experts lie, each of which belongs to one choice. `claims` are zeros at first.
struct Permutation {
  const int32_t* rows;
  int64_t count;
  int32_t* claims;  // of each row: count less the first position that has it
  Check check;

  // The row at a position, within bounds.
  __device__ __forceinline__ int64_t at(int64_t i) const {
    const int64_t row = rows[i];
    return row >= 0 && row < count ? row : 0;
  }
  // Reports a row that is none, or that another position has, too: of those with the same row, each but the
  // first is reported, by itself or by an earlier one that comes later. Called once for each position.
  __device__ __forceinline__ void claim(int64_t i) const {
    const int32_t row = rows[i];
    if (row < 0 || row >= count) return report(check, i, row);
    const int64_t other = count - atomicMax(claims + row, int32_t(count - i));
    if (other != count) report(check, max(i, other), row);
  }
};

Permutation permutationOf(const int32_t* rows, int64_t count, Launcher& gpu) {
  int32_t* claims = gpu.scratch<int32_t>(count);
  gpu.zero(claims, size_t(count) * sizeof(int32_t));
  return {rows, count, claims,
          gpu.check("expected each row from 0 to tokens k - 1 = " + std::to_string(count - 1) +
                    " once, got %v at position %i")};
}

// kEach neighbours at once: a pack where rows are made of them, else an element.
template <int kEach, class T>
__device__ __forceinline__ void loadEach(const T* from, float (&to)[kEach]) {
  if constexpr (kEach == 1) {
    to[0] = widen(*from);
  } else {
    loadWide<kEach>(from, to);
  }
}
template <int kEach, class T>
__device__ __forceinline__ void storeEach(T* to, const float (&from)[kEach]) {
  if constexpr (kEach == 1) {
    *to = narrow<T>(from[0]);
  } else {
    storeNarrow<kEach>(to, from);
  }
}

constexpr int kThreads = 128;

// kRounded: weights, products and sums are rounded to T.
template <class T, int kEach, bool kRounded>
__global__ void __launch_bounds__(kThreads)
    combineKernel(const T* __restrict__ y, const float* __restrict__ weights, Permutation rows,
                  T* __restrict__ out, int64_t k, int64_t width) {
  const auto rounded = [](float x) {
    if constexpr (kRounded) return widen(narrow<T>(x));
    return x;
  };
  const int64_t first = blockIdx.x * k;
  if (blockIdx.y == 0)
    for (int64_t s = threadIdx.x; s < k; s += kThreads) rows.claim(first + s);
  const int64_t c = (int64_t(blockIdx.y) * kThreads + threadIdx.x) * kEach;
  if (c >= width) return;
  float sum[kEach];
#pragma unroll
  for (int i = 0; i < kEach; i++) sum[i] = k > 0 ? -0.0f : 0.0f;  // -0 + x is x, of -0, too
#pragma unroll 4
  for (int64_t s = first; s < first + k; s++) {
    const float weight = rounded(weights[s]);
    float value[kEach];
    loadEach<kEach>(y + rows.at(s) * width + c, value);
#pragma unroll
    for (int i = 0; i < kEach; i++) sum[i] = rounded(__fadd_rn(sum[i], rounded(__fmul_rn(weight, value[i]))));
  }
  storeEach<kEach>(out + blockIdx.x * width + c, sum);
}

constexpr int kWarps = 8;

template <class T, int kEach>
__global__ void __launch_bounds__(32 * kWarps)
    combineBackwardKernel(const T* __restrict__ dOut, const T* __restrict__ y,
                          const float* __restrict__ weights, Permutation rows, T* __restrict__ dY,
                          float* __restrict__ dWeights, int64_t k, int64_t width) {
  const int64_t i = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (i >= rows.count) return;
  const int lane = int(threadIdx.x % 32);
  if (lane == 0) rows.claim(i);
  const int64_t row = rows.at(i) * width, token = i / k * width;
  const float weight = weights[i];
  float dot = 0.0f;
#pragma unroll 4
  for (int64_t c = lane * kEach; c < width; c += 32 * kEach) {
    float d[kEach], value[kEach];
    loadEach<kEach>(dOut + token + c, d);
    loadEach<kEach>(y + row + c, value);
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      dot = fmaf(d[j], value[j], dot);
      d[j] *= weight;
    }
    storeEach<kEach>(dY + row + c, d);
  }
  dot = warpSum(dot);
  if (lane == 0) dWeights[i] = dot;
}

// body(T, elements a thread takes at once) for rows of that width at those places.
template <class Body>
void dispatchRows(DType dtype, int64_t width, std::initializer_list<const void*> places, Body body) {
  const bool aligned = std::all_of(places.begin(), places.end(), isAligned16);
  dispatchFloat(dtype, [&](auto zero) {
    constexpr int kPack = Pack<decltype(zero)>::kSize;
    if (aligned && width % kPack == 0) return body(zero, std::integral_constant<int, kPack>{});
    return body(zero, std::integral_constant<int, 1>{});
  });
}

void combineExperts(const CombineExpertsArgs& args, Launcher& gpu) {
  if (args.tokens == 0) return;
  const Permutation rows = permutationOf(args.rows, args.tokens * args.k, gpu);
  dispatchRows(args.dtype, args.width, {args.y, args.out}, [&](auto zero, auto each) {
    using T = decltype(zero);
    constexpr int kEach = decltype(each)::value;
    const auto kernel = args.roundings == 3 ? combineKernel<T, kEach, true> : combineKernel<T, kEach, false>;
    // A row of no width has its positions checked all the same.
    const Grid grid{args.tokens, std::max<int64_t>(1, ceilDiv(args.width, kThreads * kEach))};
    gpu.launch(kernel, grid, kThreads, 0, static_cast<const T*>(args.y), args.weights, rows,
               static_cast<T*>(args.out), args.k, args.width);
  });
}

void combineExpertsBackward(const CombineExpertsBackwardArgs& args, Launcher& gpu) {
  const int64_t choices = args.tokens * args.k;
  if (choices == 0) return;
  const Permutation rows = permutationOf(args.rows, choices, gpu);
  dispatchRows(args.dtype, args.width, {args.dOut, args.y, args.dY}, [&](auto zero, auto each) {
    using T = decltype(zero);
    gpu.launch(combineBackwardKernel<T, decltype(each)::value>, Grid{ceilDiv(choices, kWarps)}, 32 * kWarps,
               0, static_cast<const T*>(args.dOut), static_cast<const T*>(args.y), args.weights, rows,
               static_cast<T*>(args.dY), args.dWeights, args.k, args.width);
  });
}

}  // namespace

void registerCombineExperts(Registry& registry) {
  addKernel<CombineExpertsArgs>(registry, Family::shared, combineExperts);
  addKernel<CombineExpertsBackwardArgs>(registry, Family::shared, combineExpertsBackward);
}

}  // namespace isopolicy::cuda
