// Conversion between element types: round to nearest even, NaN, infinities and subnormals kept.
#include "cpu/shared/kernel.h"
#include "ops/cast.h"
#define ISA_KERNELS "cpu/shared/cast.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS

namespace isopolicy::ISA_PASS {

template <class From, class To>
static void castRange(const From* from, To* to, int64_t begin, int64_t end) {
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(to + i, load(from + i));
  if (i < end) storePartial(to + i, loadPartial(from + i, int(end - i)), int(end - i));
}

void cast(const CastArgs& args, Workers& workers) {
  workers.parallelFor(args.count, 32768, [&](int64_t begin, int64_t end) {
    dispatchFloat(args.fromType, [&](auto from) {
      dispatchFloat(args.toType, [&](auto to) {
        castRange(static_cast<const decltype(from)*>(args.from), static_cast<decltype(to)*>(args.to), begin,
                  end);
      });
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerCast(Registry& registry) {
  registry.add<CastArgs>(Family::shared, Device::cpu, ISA_VARIANTS(cast));
}
}  // namespace isopolicy

#endif
