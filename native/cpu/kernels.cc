// Every CPU kernel, in one visible table.
#include "cpu/kernels.h"

#include "core/registry.h"
#include "ops/memory.h"

namespace isopolicy {

// shared/
void registerCast(Registry&);
void registerElementwise(Registry&);
void registerColumns(Registry&);
void registerRmsNorm(Registry&);
void registerRmsNormBackward(Registry&);
void registerRope(Registry&);
void registerSwiglu(Registry&);
void registerReduce(Registry&);
void registerGradStats(Registry&);
void registerPeak(Registry&);
void registerEmbeddingBackward(Registry&);
void registerEmbedding(Registry&);
void registerPackWeight(Registry&);
void registerAdamW(Registry&);
void registerRoute(Registry&);
void registerGroupByExpert(Registry&);
void registerGroupedLinear(Registry&);
void registerCombineExperts(Registry&);

// rollout/ and training/
void registerRolloutGemm(Registry&);
void registerTrainingGemm(Registry&);
void registerRolloutLogSoftmax(Registry&);
void registerRolloutSample(Registry&);
void registerTrainingLogSoftmax(Registry&);
void registerTrainingLinearLogprob(Registry&);
void registerTrainingAttention(Registry&);
void registerTrainingAttentionBackward(Registry&);
void registerRolloutAttention(Registry&);
void registerRolloutKvCache(Registry&);

void registerCpuKernels(Registry& registry) {
  registerMemory(registry);
  registerCast(registry);
  registerElementwise(registry);
  registerColumns(registry);
  registerRmsNorm(registry);
  registerRmsNormBackward(registry);
  registerRope(registry);
  registerSwiglu(registry);
  registerReduce(registry);
  registerGradStats(registry);
  registerPeak(registry);
  registerEmbeddingBackward(registry);
  registerEmbedding(registry);
  registerPackWeight(registry);
  registerAdamW(registry);
  registerRoute(registry);
  registerGroupByExpert(registry);
  registerGroupedLinear(registry);
  registerCombineExperts(registry);
  registerRolloutGemm(registry);
  registerTrainingGemm(registry);
  registerRolloutLogSoftmax(registry);
  registerRolloutSample(registry);
  registerTrainingLogSoftmax(registry);
  registerTrainingLinearLogprob(registry);
  registerTrainingAttention(registry);
  registerTrainingAttentionBackward(registry);
  registerRolloutAttention(registry);
  registerRolloutKvCache(registry);
}

}  // namespace isopolicy
