// silu(gate) * up and its gradients. With e = exp(-|g|) no intermediate overflows and no difference cancels:
//   sigmoid(g) = (g < 0 ? e : 1) / (1 + e),  1 - sigmoid(g) = (g < 0 ? 1 : e) / (1 + e).
#include "cpu/shared/kernel.h"
#include "ops/swiglu.h"
#define ISA_KERNELS "cpu/shared/swiglu.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

template <class T>
static void swigluRows(const SwigluArgs& args, int64_t begin, int64_t end) {
  const Vec one = splat(1.0f);
  for (int64_t row = begin; row < end; row++) {
    const T* gate = static_cast<const T*>(args.gateUp) + row * 2 * args.width;
    const T* up = gate + args.width;
    T* y = static_cast<T*>(args.y) + row * args.width;
    eachVector(args.width, [&](int64_t i, auto lanes) {
      const Vec g = lanes.get(gate + i);
      const Vec e = exp(zero() - abs(g));
      Vec silu = selectLess(g, zero(), g * e, g) / (one + e);
      if (args.roundings == 2) silu = roundThrough<T>(silu);
      lanes.put(y + i, silu * lanes.get(up + i));
    });
  }
}

template <class T>
static void swigluRowsBackward(const SwigluBackwardArgs& args, int64_t begin, int64_t end) {
  const Vec one = splat(1.0f);
  for (int64_t row = begin; row < end; row++) {
    const T* dOut = static_cast<const T*>(args.dOut) + row * args.width;
    const T* gate = static_cast<const T*>(args.gateUp) + row * 2 * args.width;
    const T* up = gate + args.width;
    T* dGate = static_cast<T*>(args.dGateUp) + row * 2 * args.width;
    T* dUp = dGate + args.width;
    eachVector(args.width, [&](int64_t i, auto lanes) {
      const Vec g = lanes.get(gate + i), d = lanes.get(dOut + i);
      const Vec e = exp(zero() - abs(g));
      const Vec sigmoid = selectLess(g, zero(), e, one) / (one + e);
      const Vec complement = selectLess(g, zero(), one, e) / (one + e);
      lanes.put(dGate + i, d * lanes.get(up + i) * (sigmoid * (one + g * complement)));
      lanes.put(dUp + i, d * (g * sigmoid));
    });
  }
}

void swiglu(const SwigluArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, 16384 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { swigluRows<decltype(type)>(args, begin, end); });
  });
}

void swigluBackward(const SwigluBackwardArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, 8192 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { swigluRowsBackward<decltype(type)>(args, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerSwiglu(Registry& registry) {
  registry.add<SwigluArgs>(Family::shared, Device::cpu, ISA_VARIANTS(swiglu));
  registry.add<SwigluBackwardArgs>(Family::shared, Device::cpu, ISA_VARIANTS(swigluBackward));
}
}  // namespace isopolicy

#endif
