// The training family's product: one chain of fp32 sums an element, k from 0 to k - 1; with splitK a chain
// for each piece of k.
#include "cuda/shared/gemm_launch.cuh"

namespace isopolicy::cuda {

void trainingGemm(const GemmArgs& args, Launcher& gpu) { multiply<1>(args, gpu); }

static void linearInputGradient(const LinearInputGradientArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.k == 0) return;
  // The sums of all but the last product are kept in fp32: in dx itself where that is fp32.
  const bool own = args.count > 1 && args.out != DType::float32;
  float* sums = own ? gpu.scratch<float>(args.rows * args.k) : static_cast<float*>(args.dx);
  int64_t column = 0;
  for (int i = 0; i < args.count; i++) {
    trainingGemm(inputGradientProduct(args, i, column, sums), gpu);
    column += args.n[i];
  }
}

void registerTrainingGemm(Registry& registry) {
  addKernel<GemmArgs>(registry, Family::training, trainingGemm);
  addKernel<LinearInputGradientArgs>(registry, Family::training, linearInputGradient);
}

}  // namespace isopolicy::cuda
