// Sums and products of equal shapes: fp32 arithmetic, one rounding to the dtype of the result.
#include "cpu/shared/kernel.h"
#include "ops/elementwise.h"
#define ISA_KERNELS "cpu/shared/elementwise.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

static constexpr int64_t kElementwiseGrain = 8192;

template <class T, class Op>
ISA_INLINE void combine(int64_t n, bool past, const T* a, const T* b, T* out, Op&& op) {
  eachVectors<PairsOfVectors>(n, out, past, [&](int64_t i, auto lanes) {
    Vec x[lanes.count], y[lanes.count];
    fetchAhead(a + i);
    fetchAhead(b + i);
    lanes.get(a + i, x);
    lanes.get(b + i, y);
    for (int k = 0; k < lanes.count; k++) x[k] = op(x[k], y[k]);
    lanes.put(out + i, x);
  });
  if (past) fencePastCaches();
}

template <class T>
ISA_FLATTEN static void elementwiseRange(const ElementwiseArgs& args, int64_t begin, int64_t end) {
  const bool past = args.count * int64_t(sizeof(T)) >= kPastCaches;
  const T* a = static_cast<const T*>(args.a) + begin;
  const T* b = args.b ? static_cast<const T*>(args.b) + begin : a;
  T* out = static_cast<T*>(args.out) + begin;
  const int64_t n = end - begin;
  switch (args.kind) {
    case ElementwiseKind::add:
      return combine(n, past, a, b, out, [](Vec x, Vec y) { return x + y; });
    case ElementwiseKind::multiply:
      return combine(n, past, a, b, out, [](Vec x, Vec y) { return x * y; });
    case ElementwiseKind::scale: {
      const Vec factor = splat(args.factor);
      return combine(n, past, a, a, out, [&](Vec x, Vec) { return x * factor; });
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
      eachVector(
          end - begin,
          [&](int64_t i, auto lanes) { lanes.put(target + i, lanes.get(target + i) + lanes.get(x + i)); },
          target, x);
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerElementwise(Registry& registry) {
  registry.add<ElementwiseArgs>(Family::shared, ISA_VARIANTS(elementwise));
  registry.add<AccumulateArgs>(Family::shared, ISA_VARIANTS(accumulate));
}
}  // namespace isopolicy

#endif
