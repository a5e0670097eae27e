// The training family's product: one chain of fp32 multiply-adds an element, k from 0 to k - 1, as a
// framework's matrix library makes it for many rows. With splitK a chain for each chunk of k.
#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#define ISA_KERNELS "cpu/training/gemm.cc"
#define ISA_PRODUCTS
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
// In this order: each uses what is before it.
// clang-format off
#include "cpu/training/gemm.h"
#include "cpu/shared/each_vector.h"
#include "cpu/shared/gemm_pack.h"
#include "cpu/shared/gemm_tile.h"
#include "cpu/shared/gemm_product.h"
#include "cpu/shared/gemm_few_rows.h"
#include "cpu/shared/gemm_stream.h"
#include "cpu/shared/gemm_group.h"
// clang-format on

namespace isopolicy::ISA_PASS {

void trainingGemm(const GemmArgs& args, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(args.in, trainingGemm(args, workers));
  multiply<1>(args, workers);
}

void trainingGemms(DType in, int64_t count, FunctionRef<GemmArgs(int64_t)> productAt, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(in, trainingGemms(in, count, productAt, workers));
  multiplyGroup<1>(in, count, productAt, workers);
}

void trainingLinearInputGradient(const LinearInputGradientArgs& args, Workers& workers) {
  // The sums of all but the last product are kept in fp32: in dx itself where that is fp32.
  Scratch scratch;
  const bool own = args.count > 1 && args.out != DType::float32;
  float* sums = own ? scratch.get<float>(args.rows * args.k) : static_cast<float*>(args.dx);
  int64_t column = 0;
  for (int i = 0; i < args.count; i++) {
    trainingGemm(inputGradientProduct(args, i, column, sums), workers);
    column += args.n[i];
  }
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingGemm(Registry& registry) {
  registry.add<GemmArgs>(Family::training, ISA_VARIANTS(trainingGemm));
  registry.add<LinearInputGradientArgs>(Family::training, ISA_VARIANTS(trainingLinearInputGradient));
}
}  // namespace isopolicy

#endif
