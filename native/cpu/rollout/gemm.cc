// The rollout family's product: two chains of fp32 multiply-adds an element, of the even and of the odd steps
// of k, joined at the end. With the one or few rows of a decode step an element has too few neighbours to
// fill the pipeline, so a serving engine's kernels give each element more than one chain. With splitK two
// chains for each chunk of k.
#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#define ISA_KERNELS "cpu/rollout/gemm.cc"
#define ISA_PRODUCTS
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
// In this order: each uses what is before it.
// clang-format off
#include "cpu/rollout/gemm.h"
#include "cpu/shared/each_vector.h"
#include "cpu/shared/gemm_pack.h"
#include "cpu/shared/gemm_tile.h"
#include "cpu/shared/gemm_product.h"
#include "cpu/shared/gemm_few_rows.h"
#include "cpu/shared/gemm_stream.h"
#include "cpu/shared/gemm_group.h"
// clang-format on

namespace isopolicy::ISA_PASS {

void rolloutGemm(const GemmArgs& args, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(args.in, rolloutGemm(args, workers));
  multiply<2>(args, workers);
}

void rolloutGemms(DType in, int64_t count, FunctionRef<GemmArgs(int64_t)> productAt, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(in, rolloutGemms(in, count, productAt, workers));
  multiplyGroup<2>(in, count, productAt, workers);
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutGemm(Registry& registry) {
  registry.add<GemmArgs>(Family::rollout, ISA_VARIANTS(rolloutGemm));
}
}  // namespace isopolicy

#endif
