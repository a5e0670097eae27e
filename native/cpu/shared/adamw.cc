// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), one pass over five arrays.
// No fused multiply-add: the same bits at every vector level.
#include "cpu/shared/kernel.h"
#include "ops/adamw.h"
#define ISA_KERNELS "cpu/shared/adamw.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS

namespace isopolicy::ISA_PASS {

template <class T>
static void adamwRange(const AdamWArgs& args, T* compute, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i += kLanes) {
    const int n = int(std::min<int64_t>(kLanes, end - i));
    const Vec g = loadPartial(args.grad + i, n) * splat(args.gradScale);
    const Vec m = loadPartial(args.m + i, n) * splat(args.beta1) + g * splat(args.oneMinusBeta1);
    const Vec v = loadPartial(args.v + i, n) * splat(args.beta2) + g * g * splat(args.oneMinusBeta2);
    const Vec denominator = sqrt(v) / splat(args.secondCorrection) + splat(args.eps);
    const Vec decayed = loadPartial(args.master + i, n) * splat(args.decay);
    const Vec master = decayed - splat(args.stepSize) * (m / denominator);
    storePartial(args.m + i, m, n);
    storePartial(args.v + i, v, n);
    storePartial(args.master + i, master, n);
    if (compute) storePartial(compute + i, master, n);
  }
}

void adamw(const AdamWArgs& args, Workers& workers) {
  dispatchFloat(args.computeType, [&](auto type) {
    auto* compute = static_cast<decltype(type)*>(args.compute);
    workers.parallelFor(args.count, 16384,
                        [&](int64_t begin, int64_t end) { adamwRange(args, compute, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerAdamW(Registry& registry) {
  registry.add<AdamWArgs>(Family::shared, Device::cpu, ISA_VARIANTS(adamw));
}
}  // namespace isopolicy

#endif
