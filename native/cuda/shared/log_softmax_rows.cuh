// The two ops on rows of logits, which both families launch alike.
#pragma once
#include "cuda/launcher.h"
#include "ops/log_softmax.h"

namespace isopolicy::cuda {

void logSoftmax(const LogSoftmaxArgs& args, Launcher& gpu);
void chosenLogprobs(const ChosenLogprobsArgs& args, Launcher& gpu);

}  // namespace isopolicy::cuda
