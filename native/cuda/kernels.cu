// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerAdamW(Registry&);
void registerCast(Registry&);
void registerGradStats(Registry&);
void registerMemory(Registry&);
void registerPackWeight(Registry&);
void registerPeak(Registry&);
void registerReduce(Registry&);
void registerRoute(Registry&);
void registerGroupByExpert(Registry&);
void registerGroupedLinear(Registry&);
void registerCombineExperts(Registry&);

// rollout/ and training/
void registerRolloutGemm(Registry&);
void registerRolloutLogSoftmax(Registry&);
void registerTrainingAttention(Registry&);
void registerTrainingAttentionBackward(Registry&);
void registerTrainingGemm(Registry&);
void registerTrainingLinearLogprob(Registry&);
void registerTrainingLogSoftmax(Registry&);

void registerKernels(Registry& registry) {
  registerAdamW(registry);
  registerCast(registry);
  registerGradStats(registry);
  registerMemory(registry);
  registerPackWeight(registry);
  registerPeak(registry);
  registerReduce(registry);
  registerRoute(registry);
  registerGroupByExpert(registry);
  registerGroupedLinear(registry);
  registerCombineExperts(registry);
  registerRolloutGemm(registry);
  registerRolloutLogSoftmax(registry);
  registerTrainingAttention(registry);
  registerTrainingAttentionBackward(registry);
  registerTrainingGemm(registry);
  registerTrainingLinearLogprob(registry);
  registerTrainingLogSoftmax(registry);
}

}  // namespace isopolicy::cuda
