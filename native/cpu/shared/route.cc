// The router's softmax, choice and gradient, a token at a time: a row's result depends on the row alone.
//
// e_j = exp(x_j - m) in fp32 with m the largest of the logits that are summed: of all experts, in the order
// of log_softmax_row.h, or, normalised, of the chosen ones in the order of their slots. A weight is e_j over
// the sum, so that normalised weights are exact however small the chosen experts' share of the whole is.
#include "cpu/shared/kernel.h"

#include <atomic>

#include "ops/route.h"
#define ISA_KERNELS "cpu/shared/route.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/log_softmax_row.h"

namespace isopolicy::ISA_PASS {
namespace {

template <class T>
LogitRow<T> rowOf(const void* logits, int64_t i, int64_t experts) {
  return {static_cast<const T*>(logits) + i * experts, 1.0f};
}

// use(j, lanes, p) for the softmax p of a row's logits from j on.
template <class T, class Use>
ISA_INLINE void eachProbability(const LogitRow<T>& row, int64_t experts, Use&& use) {
  const LogSum all = sumRow<false>(row, experts, 0);
  const Vec top = splat(all.max), sum = splat(all.sum);
  eachVector(experts,
             [&](int64_t j, auto lanes) { use(j, lanes, exp(lanes.get(row.logits + j) - top) / sum); });
}

// The weights of k experts of a row; false, and NaN, where they have none: the row holds NaN, infinity or
// nothing finite, or none of those that share the mass has any.
template <class T>
bool weigh(const LogitRow<T>& row, int64_t experts, const int32_t* ids, int64_t k, bool normalize,
           float* weights) {
  const LogSum all = sumRow<false>(row, experts, 0);
  float top = all.max, sum = all.sum;
  if (normalize) top = kMinusInfinity;
  for (int64_t s = 0; s < k; s++) {
    weights[s] = row.one(ids[s]);
    if (normalize) top = std::max(top, weights[s]);
  }
  if (!std::isfinite(logsOf(all).lse) || !std::isfinite(top)) {
    std::fill(weights, weights + k, std::numeric_limits<float>::quiet_NaN());
    return false;
  }
  for (int64_t s = 0; s < k; s += kLanes) {
    const int n = int(std::min<int64_t>(kLanes, k - s));
    storePartial(weights + s, exp(loadPartial(weights + s, n) - splat(top)), n);
  }
  if (normalize) {
    sum = 0;
    for (int64_t s = 0; s < k; s++) sum += weights[s];
  }
  for (int64_t s = 0; s < k; s++) weights[s] /= sum;
  return true;
}

// The k largest of a row, of equals those with the lower ids. A row with NaN has no order and gets the first
// k.
template <class T>
void choose(const LogitRow<T>& row, int64_t experts, int64_t k, float* x, int32_t* order, int32_t* ids) {
  bool ordered = true;
  for (int64_t j = 0; j < experts; j++) {
    x[j] = row.one(j);
    order[j] = int32_t(j);
    ordered = ordered && x[j] == x[j];
  }
  if (ordered)
    std::partial_sort(order, order + k, order + experts,
                      [x](int32_t a, int32_t b) { return x[a] > x[b] || (x[a] == x[b] && a < b); });
  for (int64_t s = 0; s < k; s++) ids[s] = order[s];
}

}  // namespace

void route(const RouteArgs& args, Workers& workers) {
  if (args.given) checkExpertIds(args.given, args.tokens * args.k, args.experts);
  std::atomic<int64_t> firstBad{args.tokens};
  workers.parallelFor(args.tokens, rowGrain(args.experts), [&](int64_t begin, int64_t end) {
    Scratch scratch;
    float* x = scratch.get<float>(args.experts);
    int32_t* order = scratch.get<int32_t>(args.experts);
    dispatchFloat(args.dtype, [&](auto type) {
      for (int64_t i = begin; i < end; i++) {
        const auto row = rowOf<decltype(type)>(args.logits, i, args.experts);
        if (!args.given) choose(row, args.experts, args.k, x, order, args.ids + i * args.k);
        const int32_t* ids = (args.given ? args.given : args.ids) + i * args.k;
        if (weigh(row, args.experts, ids, args.k, args.normalize, args.weights + i * args.k)) continue;
        int64_t known = firstBad.load();
        while (i < known && !firstBad.compare_exchange_weak(known, i)) {
        }
      }
    });
  });
  const int64_t bad = firstBad.load();
  if (args.strict && bad < args.tokens) {
    throw DeviceError(
        "expected router logits below infinity, one of the chosen ones at least finite, got token " +
        std::to_string(bad) + " with NaN, infinity or nothing finite");
  }
}

// With w the weights and g their gradients, c = sum over the slots of g w:
//   dx_j = p_j (sum of g over the slots of expert j - c), or, normalised, sum of w (g - c) over them.
void routerWeightsBackward(const RouterBackwardArgs& args, Workers& workers) {
  checkExpertIds(args.ids, args.tokens * args.k, args.experts);
  workers.parallelFor(args.tokens, rowGrain(args.experts), [&](int64_t begin, int64_t end) {
    Scratch scratch;
    float* weights = scratch.get<float>(args.k);
    float* d = scratch.get<float>(args.experts);
    dispatchFloat(args.dtype, [&](auto type) {
      using T = decltype(type);
      for (int64_t i = begin; i < end; i++) {
        const auto row = rowOf<T>(args.logits, i, args.experts);
        const int32_t* ids = args.ids + i * args.k;
        const float* g = args.dWeights + i * args.k;
        T* out = static_cast<T*>(args.dLogits) + i * args.experts;
        weigh(row, args.experts, ids, args.k, args.normalize, weights);
        float c = 0;
        for (int64_t s = 0; s < args.k; s++) c += g[s] * weights[s];
        std::fill(d, d + args.experts, args.normalize ? 0.0f : -c);
        for (int64_t s = 0; s < args.k; s++) d[ids[s]] += args.normalize ? weights[s] * (g[s] - c) : g[s];
        if (args.normalize) {
          eachVector(args.experts, [&](int64_t j, auto lanes) { lanes.put(out + j, lanes.get(d + j)); });
        } else {
          eachProbability(row, args.experts,
                          [&](int64_t j, auto lanes, Vec p) { lanes.put(out + j, p * lanes.get(d + j)); });
        }
      }
    });
  });
}

// Sums of some tokens at a time, those of the blocks added in order in fp64.
void routerLoad(const RouterLoadArgs& args, Workers& workers) {
  checkExpertIds(args.ids, args.tokens * args.k, args.experts);
  std::fill(args.counts, args.counts + args.experts, 0);
  for (int64_t i = 0; i < args.tokens * args.k; i++) args.counts[args.ids[i]]++;

  constexpr int64_t kTokens = 256;
  const int64_t blocks = (args.tokens + kTokens - 1) / kTokens;
  Scratch scratch;
  float* partial = scratch.get<float>(blocks * args.experts);
  workers.parallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      for (int64_t b = begin; b < end; b++) {
        float* sums = partial + b * args.experts;
        std::fill(sums, sums + args.experts, 0.0f);
        for (int64_t i = b * kTokens; i < std::min(args.tokens, (b + 1) * kTokens); i++) {
          const auto row = rowOf<decltype(type)>(args.logits, i, args.experts);
          eachProbability(row, args.experts, [&](int64_t j, auto lanes, Vec p) {
            lanes.put(sums + j, lanes.get(sums + j) + p);
          });
        }
      }
    });
  });
  for (int64_t j = 0; j < args.experts; j++) {
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) sum += double(partial[b * args.experts + j]);
    args.sums[j] = float(sum);
  }
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRoute(Registry& registry) {
  registry.add<RouteArgs>(Family::shared, ISA_VARIANTS(route));
  registry.add<RouterBackwardArgs>(Family::shared, ISA_VARIANTS(routerWeightsBackward));
  registry.add<RouterLoadArgs>(Family::shared, ISA_VARIANTS(routerLoad));
}
}  // namespace isopolicy

#endif
