// RMSNorm of rows, alone or of the fp32 sum of two tensors. Sixteen partial sums of squares a row, added by
// halves: a row's bits depend on nothing but the row, and are the same at every vector level (no fused
// multiply-add).
#include "cpu/shared/kernel.h"
#include "ops/rms_norm.h"
#define ISA_KERNELS "cpu/shared/rms_norm.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

template <class T, bool fused>
static void normRows(const RmsNormArgs& args, int64_t begin, int64_t end) {
  const T* weight = static_cast<const T*>(args.weight);
  for (int64_t row = begin; row < end; row++) {
    const int64_t start = row * args.width;
    const T* x = static_cast<const T*>(args.x) + start;
    const T* delta = fused ? static_cast<const T*>(args.delta) + start : nullptr;
    T* sum = fused ? static_cast<T*>(args.sum) + start : nullptr;
    T* y = static_cast<T*>(args.y) + start;

    Vec squares = zero();
    eachVector(args.width, [&](int64_t i, auto lanes) {
      Vec v = lanes.get(x + i);
      if constexpr (fused) {
        v = v + lanes.get(delta + i);
        lanes.put(sum + i, v);
      }
      squares = squares + v * v;
    });
    const Vec r = splat(1.0f / std::sqrt(reduceAdd(squares) / float(args.width) + args.eps));

    // The fp32 sum is formed again: its rounded form, written above, must not reach the norm.
    const auto normalised = [&](int64_t i, auto lanes) {
      Vec v = lanes.get(x + i);
      if constexpr (fused) v = v + lanes.get(delta + i);
      return v * r;
    };
    if (args.roundings == 1) {
      eachVector(args.width, [&](int64_t i, auto lanes) {
        lanes.put(y + i, normalised(i, lanes) * lanes.get(weight + i));
      });
    } else {
      eachVector(args.width, [&](int64_t i, auto lanes) {
        lanes.put(y + i, roundThrough<T>(normalised(i, lanes)) * lanes.get(weight + i));
      });
    }
  }
}

void rmsNorm(const RmsNormArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, 32768 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      if (args.delta)
        normRows<decltype(type), true>(args, begin, end);
      else
        normRows<decltype(type), false>(args, begin, end);
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRmsNorm(Registry& registry) {
  registry.add<RmsNormArgs>(Family::shared, Device::cpu, ISA_VARIANTS(rmsNorm));
}
}  // namespace isopolicy

#endif
