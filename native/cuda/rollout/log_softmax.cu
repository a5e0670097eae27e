// Log-softmax of the rollout family. By default a row is one step.
#include "cuda/shared/kernel.cuh"
#include "cuda/shared/log_softmax_rows.cuh"

namespace isopolicy::cuda {

void registerRolloutLogSoftmax(Registry& registry) {
  addKernel<LogSoftmaxArgs>(registry, Family::rollout, logSoftmax);
  addKernel<ChosenLogprobsArgs>(registry, Family::rollout, chosenLogprobs);
}

}  // namespace isopolicy::cuda
