// Every CUDA kernel, in one visible table; the twin of cpu/kernels.cc.
#include "core/registry.h"
#include "cuda/cuda.h"

namespace isopolicy::cuda {

// shared/
void registerAdamW(Registry&);
void registerCast(Registry&);
void registerColumns(Registry&);
void registerElementwise(Registry&);
void registerEmbedding(Registry&);
void registerEmbeddingBackward(Registry&);
void registerRmsNorm(Registry&);
void registerRmsNormBackward(Registry&);
void registerRope(Registry&);
void registerSwiglu(Registry&);
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
void registerRolloutAttention(Registry&);
void registerRolloutKvCache(Registry&);
void registerRolloutSample(Registry&);
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
  registerColumns(registry);
  registerElementwise(registry);
  registerEmbedding(registry);
  registerEmbeddingBackward(registry);
  registerRmsNorm(registry);
  registerRmsNormBackward(registry);
  registerRope(registry);
  registerSwiglu(registry);
  registerGradStats(registry);
  registerMemory(registry);
  registerRolloutAttention(registry);
  registerRolloutKvCache(registry);
  registerRolloutSample(registry);
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
