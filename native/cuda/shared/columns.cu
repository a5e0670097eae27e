// A block of columns, scaled and moved or added to: fp32 arithmetic, each product and each sum rounded.
#include "ops/columns.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {
namespace {

// A group of threads a row. Memory-bound: each element passes once.
template <class T, Layout kLayout, bool kAdd>
__global__ void __launch_bounds__(kLargestGroup)
    columnsKernel(const T* x, int64_t xStride, T* out, int64_t outStride, int64_t rows, int64_t width,
                  float factor, int group) {
  constexpr int kSize = Pack<T>::kSize;
  const auto [row, lane] = rowPlace(group);
  if (row >= rows) return;
  x += row * xStride;
  out += row * outStride;
#pragma unroll 2
  for (int64_t first = lane * kSize; first < width; first += group * kSize) {
    float values[kSize], sum[kSize];
    loadParts<kLayout>(x, first, width, values);
    if constexpr (kAdd) loadParts<kLayout>(out, first, width, sum);
#pragma unroll
    for (int i = 0; i < kSize; i++) {
      // Explicit, so that nothing is fused: in fp32 the sum takes the rounded product too.
      values[i] = __fmul_rn(values[i], factor);
      if constexpr (kAdd) values[i] = __fadd_rn(sum[i], roundThrough<T>(values[i]));
    }
    storeParts<kLayout>(out, first, width, values);
  }
}

void columns(const ColumnsArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RowGroups groups = groupsFor(args.rows, partsOf<T>(args.width));
    dispatchLayout<Layout::cut>(
        inParts<T>({args.xStride, args.outStride}, {args.x, args.out}), [&](auto layout) {
          const auto kernel = args.add ? columnsKernel<T, layout(), true> : columnsKernel<T, layout(), false>;
          gpu.launch(kernel, Grid{groups.blocks}, groups.threads, 0, static_cast<const T*>(args.x),
                     args.xStride, static_cast<T*>(args.out), args.outStride, args.rows, args.width,
                     args.factor, groups.group);
        });
  });
}

}  // namespace

void registerColumns(Registry& registry) { addKernel<ColumnsArgs>(registry, Family::shared, columns); }

}  // namespace isopolicy::cuda
