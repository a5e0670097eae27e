// The products of a layer's experts, each over the rows that were sorted to it: the arithmetic is that of the
// family's gemm, one expert like another, and an expert without rows is not touched.
#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#include "ops/grouped_linear.h"
#define ISA_KERNELS "cpu/shared/grouped_linear.cc"
#define ISA_PRODUCTS
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/rollout/gemm.h"
#include "cpu/training/gemm.h"

namespace isopolicy::ISA_PASS {
namespace {

void checkOffsets(const int32_t* offsets, int64_t experts, int64_t rows) {
  for (int64_t e = 0; e <= experts; e++) {
    const int64_t least = e == 0 ? 0 : offsets[e - 1], most = e == 0 ? 0 : rows;
    if (offsets[e] >= (e == experts ? rows : least) && offsets[e] <= most) continue;
    throw DeviceError("expected offsets that rise from 0 to the " + std::to_string(rows) + " rows, got " +
                      std::to_string(offsets[e]) + " at position " + std::to_string(e));
  }
}

template <class T>
T* advance(T* p, int64_t elements, DType dtype) {
  using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
  return static_cast<Byte*>(p) + elements * int64_t(bytesOf(dtype));
}

GemmArgs forwardOf(const GroupedLinearArgs& args, int64_t e) {
  const int64_t first = args.offsets[e];
  GemmArgs g;
  g.a = advance(args.x, first * args.k, args.dtype);
  g.b = static_cast<const char*>(args.weight) + e * args.weightBytes;
  g.c = advance(args.y, first * args.n, args.dtype);
  g.m = args.offsets[e + 1] - first;
  g.n = g.ldc = args.n;
  g.k = g.lda = g.ldb = args.k;
  g.transposeB = true;
  g.packedB = args.packed;
  g.in = g.out = args.dtype;
  g.splitK = args.splitK;
  return g;
}

}  // namespace

void rolloutGroupedLinear(const GroupedLinearArgs& args, Workers& workers) {
  checkOffsets(args.offsets, args.experts, args.rows);
  rolloutGemms(
      args.dtype, args.experts, [&](int64_t e) { return forwardOf(args, e); }, workers);
}

void trainingGroupedLinear(const GroupedLinearArgs& args, Workers& workers) {
  checkOffsets(args.offsets, args.experts, args.rows);
  trainingGemms(
      args.dtype, args.experts, [&](int64_t e) { return forwardOf(args, e); }, workers);
}

void groupedLinearInputGradient(const GroupedLinearInputGradientArgs& args, Workers& workers) {
  checkOffsets(args.offsets, args.experts, args.rows);
  const auto productOf = [&](int64_t e) {
    const int64_t first = args.offsets[e];
    GemmArgs g;
    g.a = advance(args.dy, first * args.n, args.dtype);
    g.b = advance(args.weight, e * args.n * args.k, args.dtype);
    g.c = advance(args.dx, first * args.k, args.dtype);
    g.m = args.offsets[e + 1] - first;
    g.n = g.ldb = g.ldc = args.k;
    g.k = g.lda = args.n;
    g.in = g.out = args.dtype;
    return g;
  };
  trainingGemms(args.dtype, args.experts, productOf, workers);
}

void groupedLinearWeightGradient(const GroupedLinearWeightGradientArgs& args, Workers& workers) {
  checkOffsets(args.offsets, args.experts, args.rows);
  const auto productOf = [&](int64_t e) {
    const int64_t first = args.offsets[e];
    GemmArgs g;
    g.a = advance(args.dy, first * args.n, args.dtype);
    g.b = advance(args.x, first * args.k, args.dtype);
    g.c = args.grad + e * args.n * args.k;
    g.k = args.offsets[e + 1] - first;
    g.m = g.k == 0 && args.accumulate ? 0 : args.n;
    g.lda = args.n;
    g.n = g.ldb = g.ldc = args.k;
    g.transposeA = true;
    g.accumulate = args.accumulate;
    g.in = args.dtype;
    return g;
  };
  trainingGemms(args.dtype, args.experts, productOf, workers);
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerGroupedLinear(Registry& registry) {
  registry.add<GroupedLinearArgs>(Family::rollout, ISA_VARIANTS(rolloutGroupedLinear));
  registry.add<GroupedLinearArgs>(Family::training, ISA_VARIANTS(trainingGroupedLinear));
  registry.add<GroupedLinearInputGradientArgs>(Family::training, ISA_VARIANTS(groupedLinearInputGradient));
  registry.add<GroupedLinearWeightGradientArgs>(Family::training, ISA_VARIANTS(groupedLinearWeightGradient));
}
}  // namespace isopolicy

#endif
