// silu(gate) * up and its gradients. With e = exp(-|g|) no intermediate overflows and no difference cancels:
//   sigmoid(g) = (g < 0 ? e : 1) / (1 + e),  1 - sigmoid(g) = (g < 0 ? 1 : e) / (1 + e).
#include "cpu/shared/kernel.h"
#include "ops/swiglu.h"
#define ISA_KERNELS "cpu/shared/swiglu.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

// exp(-|g|) of some vectors.
template <int N>
ISA_INLINE void decay(const Vec* g, Vec* e) {
  for (int k = 0; k < N; k++) e[k] = expRangeFromBelow(minusAbs(g[k]));
  expInRange<N>(e);
}

template <class T>
ISA_FLATTEN static void swigluRows(const SwigluArgs& args, bool past, int64_t begin, int64_t end) {
  const Vec one = splat(1.0f);
  const bool rounded = args.roundings == 2;
  for (int64_t row = begin; row < end; row++) {
    const T* gate = static_cast<const T*>(args.gateUp) + row * 2 * args.width;
    const T* up = gate + args.width;
    T* y = static_cast<T*>(args.y) + row * args.width;
    eachVectors<PairsOfVectors>(args.width, y, past, [&](int64_t i, auto lanes) {
      constexpr int n = decltype(lanes)::count;
      Vec g[n], e[n], u[n];
      fetchAhead(gate + i);
      fetchAhead(up + i);
      lanes.get(gate + i, g);
      lanes.get(up + i, u);
      decay<n>(g, e);
      for (int k = 0; k < n; k++) g[k] = selectLess(g[k], zero(), g[k] * e[k], g[k]) / (one + e[k]);
      if (rounded)
        for (int k = 0; k < n; k++) g[k] = roundThrough<T>(g[k]);
      for (int k = 0; k < n; k++) u[k] = g[k] * u[k];
      lanes.put(y + i, u);
    });
  }
  if (past) fencePastCaches();
}

template <class T>
ISA_FLATTEN static void swigluRowsBackward(const SwigluBackwardArgs& args, bool past, int64_t begin,
                                           int64_t end) {
  const Vec one = splat(1.0f);
  for (int64_t row = begin; row < end; row++) {
    const T* dOut = static_cast<const T*>(args.dOut) + row * args.width;
    const T* gate = static_cast<const T*>(args.gateUp) + row * 2 * args.width;
    const T* up = gate + args.width;
    T* dGate = static_cast<T*>(args.dGateUp) + row * 2 * args.width;
    T* dUp = dGate + args.width;
    eachVectors<PairsOfVectors>(args.width, dGate, past, [&](int64_t i, auto lanes) {
      constexpr int n = decltype(lanes)::count;
      Vec g[n], e[n], d[n], u[n];
      fetchAhead(gate + i);
      fetchAhead(up + i);
      fetchAhead(dOut + i);
      lanes.get(gate + i, g);
      decay<n>(g, e);
      lanes.get(dOut + i, d);
      lanes.get(up + i, u);
      for (int k = 0; k < n; k++) {
        const Vec inverse = one / (one + e[k]);
        const Vec sigmoid = selectLess(g[k], zero(), e[k], one) * inverse;
        const Vec complement = selectLess(g[k], zero(), one, e[k]) * inverse;
        u[k] = d[k] * u[k] * (sigmoid * (one + g[k] * complement));
        d[k] = d[k] * (g[k] * sigmoid);
      }
      lanes.put(dGate + i, u);
      lanes.put(dUp + i, d);
    });
  }
  if (past) fencePastCaches();
}

void swiglu(const SwigluArgs& args, Workers& workers) {
  const bool past = goesPast(args.rows, args.width, args.dtype);
  workers.parallelFor(args.rows, 4096 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { swigluRows<decltype(type)>(args, past, begin, end); });
  });
}

void swigluBackward(const SwigluBackwardArgs& args, Workers& workers) {
  const bool past = args.dGateUp != args.gateUp && goesPast(args.rows, args.width, args.dtype);
  workers.parallelFor(args.rows, 4096 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { swigluRowsBackward<decltype(type)>(args, past, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerSwiglu(Registry& registry) {
  registry.add<SwigluArgs>(Family::shared, ISA_VARIANTS(swiglu));
  registry.add<SwigluBackwardArgs>(Family::shared, ISA_VARIANTS(swigluBackward));
}
}  // namespace isopolicy

#endif
