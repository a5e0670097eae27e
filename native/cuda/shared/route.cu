// The router's softmax, choice and gradient, a warp a token: a row's result depends on the row alone.
//
// exp(x_j - m) with m the largest of the logits that are summed: of all experts or, normalised, of the chosen
// ones. A weight is that over the sum, so that normalised weights are exact however small the chosen experts'
// share of the whole is. The sums are of lanes (experts or slots 32 apart), then by pairs of lanes.
//
// A row is some hundreds of bytes: what counts is the latency of a chain of reductions, so rows of up to 512
// logits are kept in registers, and a choice is a maximum and a minimum that the warp takes in two
// instructions. Longer rows are read anew, from the caches, whenever they are used.
#include "ops/route.h"

#include "cuda/shared/expert_ids.cuh"
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kWarps = 4;  // a token each
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

__device__ __forceinline__ int laneOf() { return int(threadIdx.x % 32); }

// The logits of a token, of which lane l has l, l + 32, and so on. kHeld: how many a lane keeps, all; 0:
// none.
template <class T, int kHeld>
struct Row {
  static constexpr int kColumns = kHeld > 0 ? kHeld : 4;  // of a lane, that are looked at together
  static constexpr int kStep = 32 * kColumns;
  const T* logits;
  int experts;
  float held[kColumns];

  __device__ __forceinline__ Row(const void* all, int64_t token, int64_t count)
      : logits(static_cast<const T*>(all) + token * count), experts(int(count)) {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int i = 0; i < kColumns; i++)
        held[i] = laneOf() + 32 * i < experts ? one(laneOf() + 32 * i) : 0.0f;
    }
  }
  __device__ __forceinline__ float one(int j) const { return widen(logits[j]); }
  // Column i of the step that begins at `base`.
  __device__ __forceinline__ float at(int base, int i) const {
    return kHeld > 0 ? held[i] : one(base + laneOf() + 32 * i);
  }
  // body(j, x_j) for this lane's columns, in their order.
  template <class Body>
  __device__ __forceinline__ void each(Body body) const {
    for (int base = 0; base < experts; base += kStep) {
#pragma unroll
      for (int i = 0; i < kColumns; i++) {
        const int j = base + laneOf() + 32 * i;
        if (j < experts) body(j, at(base, i));
      }
    }
  }
};

// What the mass of one is shared by: exp(x - top) adds up to `sum`, which is NaN where there is none to
// share.
struct Mass {
  float top, sum;
  __device__ __forceinline__ float share(float x) const { return expf(x - top) / sum; }
  __device__ __forceinline__ bool exists() const { return sum < kInfinity; }
};

// Of all experts: none where the row holds NaN, infinity or nothing finite, since infinity less itself is
// NaN.
template <class Row>
__device__ __forceinline__ Mass massOfAll(const Row& row) {
  float top = -kInfinity, sum = 0.0f;
  row.each([&](int, float x) { top = max(top, x); });
  top = warpMax(top);
  row.each([&](int, float x) { sum += expf(x - top); });
  return {top, warpSum(sum)};
}

// Of those that share it: all, or the k of `ids`.
template <class Row>
__device__ __forceinline__ Mass massOf(const Row& row, const int32_t* ids, int64_t k, bool normalize) {
  const Mass all = massOfAll(row);
  if (!normalize) return all;
  float top = -kInfinity, sum = 0.0f;
  for (int64_t s = laneOf(); s < k; s += 32) top = max(top, row.one(expertWithin(ids[s], row.experts)));
  top = warpMax(top);
  for (int64_t s = laneOf(); s < k; s += 32) sum += expf(row.one(expertWithin(ids[s], row.experts)) - top);
  sum = warpSum(sum);
  return {top, all.exists() ? sum : all.sum};
}

// Unsigned, above 0, in the order of x, which is no NaN; -0 is 0.
__device__ __forceinline__ uint32_t keyOf(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// The k largest of a row, of equals those with the lower ids. A row with NaN has no order and gets the first
// k.
template <class Row>
__device__ __forceinline__ void choose(const Row& row, int64_t k, int32_t* ids) {
  bool ordered = true;
  row.each([&](int, float x) { ordered = ordered && x == x; });
  ordered = __all_sync(kAllLanes, ordered);
  uint32_t last = 0xffffffffu;  // the key that was chosen before
  int lastId = -1;
  for (int64_t s = 0; s < k; s++) {
    uint32_t best = 0;
    int bestId = -1;
    row.each([&](int j, float x) {
      const uint32_t key = keyOf(x);
      const bool left = key < last || (key == last && j > lastId);
      if (!left || key <= best) return;
      best = key;
      bestId = j;
    });
    last = __reduce_max_sync(kAllLanes, best);
    lastId = int(__reduce_min_sync(kAllLanes, best == last ? unsigned(bestId) : 0xffffffffu));
    if (laneOf() == 0) ids[s] = ordered ? lastId : int32_t(s);
  }
  __syncwarp();
}

template <class T, int kHeld>
__global__ void __launch_bounds__(32 * kWarps, 8) routeKernel(RouteArgs args, Check badId, Check noWeights) {
  const int64_t token = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (token >= args.tokens) return;
  const Row<T, kHeld> row(args.logits, token, args.experts);
  if (args.given) {
    checkExpertIds(args.given + token * args.k, token * args.k, args.k, row.experts, laneOf(), 32, badId);
  } else {
    choose(row, args.k, args.ids + token * args.k);
  }
  const int32_t* ids = (args.given ? args.given : args.ids) + token * args.k;
  const Mass mass = massOf(row, ids, args.k, args.normalize);
  float* weights = args.weights + token * args.k;
  for (int64_t s = laneOf(); s < args.k; s += 32)
    weights[s] = mass.share(row.one(expertWithin(ids[s], row.experts)));
  if (args.strict && !mass.exists() && laneOf() == 0) report(noWeights, token, int32_t(token));
}

// With w the weights and g their gradients, c = sum over the slots of g w:
//   dx_j = p_j (sum of g over the slots of expert j - c), or, normalised, sum of w (g - c) over them.
template <class T, int kHeld>
__global__ void __launch_bounds__(32 * kWarps, 6) routerBackwardKernel(RouterBackwardArgs args, Check badId) {
  const int64_t token = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32;
  if (token >= args.tokens) return;
  const int64_t k = args.k;
  const Row<T, kHeld> row(args.logits, token, args.experts);
  const int32_t* ids = args.ids + token * k;
  const float* g = args.dWeights + token * k;
  T* out = static_cast<T*>(args.dLogits) + token * args.experts;
  checkExpertIds(ids, token * k, k, row.experts, laneOf(), 32, badId);

  const Mass mass = massOf(row, ids, k, args.normalize);
  const auto weight = [&](int64_t s) { return mass.share(row.one(expertWithin(ids[s], row.experts))); };
  float c = 0.0f;
  for (int64_t s = laneOf(); s < k; s += 32) c = fmaf(g[s], weight(s), c);
  c = warpSum(c);

  constexpr int kColumns = Row<T, kHeld>::kColumns;
  for (int base = 0; base < row.experts; base += Row<T, kHeld>::kStep) {
    float d[kColumns];
#pragma unroll
    for (int i = 0; i < kColumns; i++) d[i] = args.normalize ? 0.0f : -c;
    // A lane brings a slot, all look whose expert it is.
    for (int64_t first = 0; first < k; first += 32) {
      const int64_t s = first + laneOf();
      const int id = s < k ? expertWithin(ids[s], row.experts) : -1;
      float slope = s < k ? g[s] : 0.0f;
      if (args.normalize && s < k) slope = weight(s) * (slope - c);
      for (int slot = 0; slot < int(min(k - first, int64_t(32))); slot++) {
        const int column = __shfl_sync(kAllLanes, id, slot) - base - laneOf();
        const float added = __shfl_sync(kAllLanes, slope, slot);
#pragma unroll
        for (int i = 0; i < kColumns; i++) d[i] += column == 32 * i ? added : 0.0f;
      }
    }
#pragma unroll
    for (int i = 0; i < kColumns; i++) {
      const int j = base + laneOf() + 32 * i;
      if (j < row.experts) out[j] = narrow<T>(args.normalize ? d[i] : mass.share(row.at(base, i)) * d[i]);
    }
  }
}

constexpr int kLoadTokens = 64, kLoadThreads = 128;

// A block's tokens: their choices counted, and for each expert the sum of its probabilities, in their order.
template <class T>
__global__ void __launch_bounds__(kLoadThreads)
    routerLoadKernel(RouterLoadArgs args, float* partial, Check badId) {
  __shared__ Mass masses[kLoadTokens];
  const int64_t first = int64_t(blockIdx.x) * kLoadTokens;
  const int tokens = int(min(args.tokens - first, int64_t(kLoadTokens)));
  const int experts = int(args.experts);

  const int32_t* ids = args.ids + first * args.k;
  checkExpertIds(ids, first * args.k, tokens * args.k, experts, int(threadIdx.x), kLoadThreads, badId);
  for (int64_t i = threadIdx.x; i < tokens * args.k; i += kLoadThreads)
    atomicAdd(args.counts + expertWithin(ids[i], experts), 1);

  for (int t = int(threadIdx.x / 32); t < tokens; t += kLoadThreads / 32) {
    const Mass mass = massOfAll(Row<T, 0>(args.logits, first + t, args.experts));
    if (laneOf() == 0) masses[t] = mass;
  }
  __syncthreads();
  const T* logits = static_cast<const T*>(args.logits) + first * args.experts;
  for (int j = int(threadIdx.x); j < experts; j += kLoadThreads) {
    float sum = 0.0f;
#pragma unroll 4
    for (int t = 0; t < tokens; t++) sum += masses[t].share(widen(logits[t * args.experts + j]));
    partial[blockIdx.x * args.experts + j] = sum;
  }
}

constexpr int kGroups = 8;

// Adds up the sums of the blocks in fp64: for each of 32 experts eight groups of them, then the groups.
__global__ void __launch_bounds__(32 * kGroups)
    routerSumKernel(const float* partial, int64_t blocks, int64_t experts, float* sums) {
  __shared__ double ofGroups[kGroups][32];
  const int64_t j = int64_t(blockIdx.x) * 32 + laneOf();
  const int group = int(threadIdx.x / 32);
  double sum = 0.0;
  if (j < experts)
    for (int64_t b = group; b < blocks; b += kGroups) sum += double(partial[b * experts + j]);
  ofGroups[group][laneOf()] = sum;
  __syncthreads();
  if (group != 0 || j >= experts) return;
  for (int other = 1; other < kGroups; other++) sum += ofGroups[other][laneOf()];
  sums[j] = float(sum);
}

// body(T, how many logits a lane keeps).
template <class Body>
void dispatchRow(DType dtype, int64_t experts, Body body) {
  dispatchFloat(dtype, [&](auto zero) {
    if (experts <= 128) return body(zero, std::integral_constant<int, 4>{});
    if (experts <= 512) return body(zero, std::integral_constant<int, 16>{});
    return body(zero, std::integral_constant<int, 0>{});
  });
}

void route(const RouteArgs& args, Launcher& gpu) {
  if (args.tokens == 0) return;
  const Check badId = gpu.check(expertIdMessage(args.experts));
  const Check noWeights = gpu.check(
      "expected router logits below infinity, one of the chosen ones at least finite, got token %i with NaN, "
      "infinity or nothing finite");
  dispatchRow(args.dtype, args.experts, [&](auto zero, auto held) {
    gpu.launch(routeKernel<decltype(zero), decltype(held)::value>, Grid{ceilDiv(args.tokens, kWarps)},
               32 * kWarps, 0, args, badId, noWeights);
  });
}

void routerWeightsBackward(const RouterBackwardArgs& args, Launcher& gpu) {
  if (args.tokens == 0) return;
  const Check badId = gpu.check(expertIdMessage(args.experts));
  dispatchRow(args.dtype, args.experts, [&](auto zero, auto held) {
    gpu.launch(routerBackwardKernel<decltype(zero), decltype(held)::value>,
               Grid{ceilDiv(args.tokens, kWarps)}, 32 * kWarps, 0, args, badId);
  });
}

void routerLoad(const RouterLoadArgs& args, Launcher& gpu) {
  const int64_t blocks = ceilDiv(args.tokens, kLoadTokens);
  gpu.zero(args.counts, size_t(args.experts) * sizeof(int32_t));
  float* partial = gpu.scratch<float>(blocks * args.experts);
  if (blocks > 0) {
    const Check badId = gpu.check(expertIdMessage(args.experts));
    dispatchFloat(args.dtype, [&](auto zero) {
      gpu.launch(routerLoadKernel<decltype(zero)>, Grid{blocks}, kLoadThreads, 0, args, partial, badId);
    });
  }
  gpu.launch(routerSumKernel, Grid{ceilDiv(args.experts, 32)}, 32 * kGroups, 0, partial, blocks, args.experts,
             args.sums);
}

}  // namespace

void registerRoute(Registry& registry) {
  addKernel<RouteArgs>(registry, Family::shared, route);
  addKernel<RouterBackwardArgs>(registry, Family::shared, routerWeightsBackward);
  addKernel<RouterLoadArgs>(registry, Family::shared, routerLoad);
}

}  // namespace isopolicy::cuda
