// Weights in the layout that the register tiles of the products read.
#include "ops/pack_weight.h"

#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#define ISA_KERNELS "cpu/shared/pack_weight.cc"
#define ISA_PRODUCTS
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
// In this order: each uses what is before it.
// clang-format off
#include "cpu/shared/each_vector.h"
#include "cpu/shared/gemm_pack.h"
#include "cpu/shared/gemm_tile.h"
#include "cpu/shared/gemm_product.h"
// clang-format on

namespace isopolicy::ISA_PASS {

void packWeight(const PackWeightArgs& args, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(args.dtype, packWeight(args, workers));
  withFormat<1>(args.dtype, [&](auto format) {
    using Format = decltype(format);
    using T = typename Format::Element;
    constexpr VectorLevel level = VectorLevel(ISA_LEVEL);
    static_assert(packedLayoutOf(level, DTypeOf<T>::value).columns == Format::kColumns);
    static_assert(packedLayoutOf(level, DTypeOf<T>::value).stepLength == Format::kStepLength);
    const int64_t steps = quotientUp(args.k, Format::kStepLength);
    const int64_t panels = quotientUp(args.n, Format::kColumns);
    const T* weights = static_cast<const T*>(args.weight);
    workers.parallelFor(args.experts * panels, 1 + (int64_t(1) << 15) / (Format::kColumns * (args.k + 1)),
                        [&](int64_t begin, int64_t end) {
                          for (int64_t panel = begin; panel < end; panel++) {
                            const T* weight = weights + panel / panels * args.n * args.k;
                            const int64_t column = panel % panels * Format::kColumns;
                            const int64_t columns = lesser(Format::kColumns, args.n - column);
                            Format::packStored(
                                {weight + column * args.k, args.k, true, columns, args.k}, steps,
                                static_cast<char*>(args.packed) + panel * steps * Format::kBytesStored);
                          }
                        });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerPackWeight(Registry& registry) {
  registry.add<PackWeightArgs>(Family::shared, ISA_VARIANTS(packWeight));
}
}  // namespace isopolicy

#endif
