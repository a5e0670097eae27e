// The rollout family's product: two chains of fp32 sums an element, of the even and of the odd steps of k,
// joined at the end; with splitK two chains for each piece of k.
#include "cuda/shared/gemm_launch.cuh"

namespace isopolicy::cuda {

void rolloutGemm(const GemmArgs& args, Launcher& gpu) { multiply<2>(args, gpu); }

void registerRolloutGemm(Registry& registry) { addKernel<GemmArgs>(registry, Family::rollout, rolloutGemm); }

}  // namespace isopolicy::cuda
