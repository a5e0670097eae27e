// Conversion between element types: round to nearest even, NaN, infinities and subnormals kept.
#include "ops/cast.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 256, kEach = 8;

// Eight elements a thread, in one or two vectors of 16 bytes. Memory-bound: 6 or 8 bytes an element pass
// once.
template <class From, class To, Layout kLayout>
__global__ void __launch_bounds__(kThreads) castKernel(const From* from, To* to, int64_t count) {
  const int64_t first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  if (first >= count) return;
  float values[kEach];
  loadParts<kLayout>(from, first, count, values);
  storeParts<kLayout>(to, first, count, values);
}

void cast(const CastArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  if (args.fromType == args.toType)
    return gpu.copy(args.to, args.from, size_t(args.count) * bytesOf(args.toType));
  dispatchFloat(args.fromType, [&](auto from) {
    dispatchFloat(args.toType, [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      dispatchLayout<Layout::cut>(inParts<From>({}, {args.from, args.to}), [&](auto layout) {
        gpu.launch(castKernel<From, To, layout()>, Grid{ceilDiv(args.count, kThreads * kEach)}, kThreads, 0,
                   static_cast<const From*>(args.from), static_cast<To*>(args.to), args.count);
      });
    });
  });
}

}  // namespace

void registerCast(Registry& registry) { addKernel<CastArgs>(registry, Family::shared, cast); }

}  // namespace isopolicy::cuda
