// A block of columns, scaled and moved or added to: fp32 arithmetic, each product and each sum rounded.
#include "cpu/shared/kernel.h"
#include "ops/columns.h"
#define ISA_KERNELS "cpu/shared/columns.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

template <class T, bool add>
ISA_FLATTEN static void columnRows(const ColumnsArgs& args, int64_t begin, int64_t end) {
  const Vec factor = splat(args.factor);
  for (int64_t row = begin; row < end; row++) {
    const T* x = static_cast<const T*>(args.x) + row * args.xStride;
    T* out = static_cast<T*>(args.out) + row * args.outStride;
    eachVector(
        args.width,
        [&](int64_t i, auto lanes) {
          const Vec scaled = lanes.get(x + i) * factor;
          lanes.put(out + i, add ? lanes.get(out + i) + roundThrough<T>(scaled) : scaled);
        },
        x, out);
  }
}

void columns(const ColumnsArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, 8192 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      using T = decltype(type);
      args.add ? columnRows<T, true>(args, begin, end) : columnRows<T, false>(args, begin, end);
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerColumns(Registry& registry) { registry.add<ColumnsArgs>(Family::shared, ISA_VARIANTS(columns)); }
}  // namespace isopolicy

#endif
