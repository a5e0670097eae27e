// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), one pass over five arrays.
// No fused multiply-add: the same bits at every vector level.
#include "cpu/shared/kernel.h"
#include "ops/adamw.h"
#define ISA_KERNELS "cpu/shared/adamw.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

template <class T>
ISA_FLATTEN static void adamwRange(const AdamWArgs& args, T* compute, int64_t begin, int64_t end) {
  // A division less a vector.
  const Vec correction = splat(1.0f / args.secondCorrection);
  eachVector(end - begin, [&](int64_t j, auto lanes) {
    const int64_t i = begin + j;
    const Vec g = lanes.get(args.grad + i) * splat(args.gradScale);
    const Vec m = lanes.get(args.m + i) * splat(args.beta1) + g * splat(args.oneMinusBeta1);
    const Vec v = lanes.get(args.v + i) * splat(args.beta2) + g * g * splat(args.oneMinusBeta2);
    const Vec denominator = sqrt(v) * correction + splat(args.eps);
    const Vec decayed = lanes.get(args.master + i) * splat(args.decay);
    const Vec master = decayed - splat(args.stepSize) * (m / denominator);
    lanes.put(args.m + i, m);
    lanes.put(args.v + i, v);
    lanes.put(args.master + i, master);
    if (compute) lanes.put(compute + i, master);
  });
}

void adamw(const AdamWArgs& args, Workers& workers) {
  dispatchFloat(args.computeType, [&](auto type) {
    auto* compute = static_cast<decltype(type)*>(args.compute);
    workers.parallelFor(args.count, 4096,
                        [&](int64_t begin, int64_t end) { adamwRange(args, compute, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerAdamW(Registry& registry) { registry.add<AdamWArgs>(Family::shared, ISA_VARIANTS(adamw)); }
}  // namespace isopolicy

#endif
