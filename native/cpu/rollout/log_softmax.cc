// Log-softmax of the rollout family. By default a row is one step: one sum over all of it.
#include "cpu/shared/kernel.h"
#include "ops/log_softmax.h"
#define ISA_KERNELS "cpu/rollout/log_softmax.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/log_softmax_rows.h"

namespace isopolicy::ISA_PASS {

void rolloutLogSoftmax(const LogSoftmaxArgs& args, Workers& workers) { logSoftmaxOf(args, workers); }

void rolloutChosenLogprobs(const ChosenLogprobsArgs& args, Workers& workers) {
  chosenLogprobsOf(args, workers);
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutLogSoftmax(Registry& registry) {
  registry.add<LogSoftmaxArgs>(Family::rollout, ISA_VARIANTS(rolloutLogSoftmax));
  registry.add<ChosenLogprobsArgs>(Family::rollout, ISA_VARIANTS(rolloutChosenLogprobs));
}
}  // namespace isopolicy

#endif
