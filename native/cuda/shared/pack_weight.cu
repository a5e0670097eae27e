// On CUDA a packed weight is the weight as it is: the products read rows of k.
#include "ops/pack_weight.h"

#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {
namespace {

void packWeight(const PackWeightArgs& args, Launcher& gpu) {
  gpu.copy(args.packed, args.weight, size_t(args.experts * args.n * args.k) * bytesOf(args.dtype));
}

}  // namespace

void registerPackWeight(Registry& registry) {
  addKernel<PackWeightArgs>(registry, Family::shared, packWeight);
}

}  // namespace isopolicy::cuda
