// Sums and products of equal shapes: fp32 arithmetic, one rounding to the dtype of the result.
#include "cpu/shared/kernel.h"
#include "ops/elementwise.h"
#define ISA_KERNELS "cpu/shared/elementwise.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

static constexpr int64_t kElementwiseGrain = 32768;

template <class T>
static void elementwiseRange(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  const T* a = static_cast<const T*>(args.a) + begin;
  const T* b = args.b ? static_cast<const T*>(args.b) + begin : nullptr;
  T* out = static_cast<T*>(args.out) + begin;
  switch (args.kind) {
    case ElementwiseKind::add:
      return eachVector(end - begin, [&](int64_t i, auto lanes) {
        lanes.put(out + i, lanes.get(a + i) + lanes.get(b + i));
      });
    case ElementwiseKind::multiply:
      return eachVector(end - begin, [&](int64_t i, auto lanes) {
        lanes.put(out + i, lanes.get(a + i) * lanes.get(b + i));
      });
    case ElementwiseKind::scale: {
      const Vec factor = splat(args.factor);
      return eachVector(end - begin,
                        [&](int64_t i, auto lanes) { lanes.put(out + i, lanes.get(a + i) * factor); });
    }
  }
}

void elementwise(const ElementwiseArgs& args, Workers& workers) {
  workers.parallelFor(args.count, kElementwiseGrain, [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { elementwiseRange<decltype(type)>(args, begin, end); });
  });
}

void accumulate(const AccumulateArgs& args, Workers& workers) {
  workers.parallelFor(args.count, kElementwiseGrain, [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      float* target = args.target + begin;
      const auto* x = static_cast<const decltype(type)*>(args.x) + begin;
      eachVector(end - begin, [&](int64_t i, auto lanes) {
        lanes.put(target + i, lanes.get(target + i) + lanes.get(x + i));
      });
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerElementwise(Registry& registry) {
  registry.add<ElementwiseArgs>(Family::shared, Device::cpu, ISA_VARIANTS(elementwise));
  registry.add<AccumulateArgs>(Family::shared, Device::cpu, ISA_VARIANTS(accumulate));
}
}  // namespace isopolicy

#endif
