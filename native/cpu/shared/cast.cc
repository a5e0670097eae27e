// Conversion between element types: round to nearest even, NaN, infinities and subnormals kept.
#include "cpu/shared/kernel.h"
#include "ops/cast.h"
#define ISA_KERNELS "cpu/shared/cast.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

template <class From, class To>
ISA_FLATTEN static void castRange(const From* from, To* to, int64_t n, bool past) {
  const auto step = [&](int64_t i, auto lanes) { lanes.put(to + i, lanes.get(from + i)); };
  // Two emulated formats are one type.
  if constexpr (std::is_same_v<From, To> && !std::is_same_v<To, Emulated>) {
    if (!past) return void(std::memcpy(to, from, size_t(n) * sizeof(From)));
  }
  if (!past) return eachVector(n, step, from, to);
  eachVectorPast(n, to, step, from);
  fencePastCaches();
}

void cast(const CastArgs& args, Workers& workers) {
  const bool past = args.count * int64_t(bytesOf(args.toType)) >= kPastCaches;
  workers.parallelFor(args.count, 8192, [&](int64_t begin, int64_t end) {
    dispatchFloat(args.fromType, [&](auto from) {
      dispatchFloat(args.toType, [&](auto to) {
        castRange(static_cast<const decltype(from)*>(args.from) + begin,
                  static_cast<decltype(to)*>(args.to) + begin, end - begin, past);
      });
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerCast(Registry& registry) { registry.add<CastArgs>(Family::shared, ISA_VARIANTS(cast)); }
}  // namespace isopolicy

#endif
