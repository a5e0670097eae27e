// Log-softmax of the training family, by default in steps of 4,096 columns, and its gradient.
#include "cpu/shared/kernel.h"
#include "ops/log_softmax.h"
#define ISA_KERNELS "cpu/training/log_softmax.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/log_softmax_rows.h"

namespace isopolicy::ISA_PASS {

// dLogit_j = (dOut_j - exp(logprob_j) sum_k dOut_k) / temperature. The sum: 4 x 16 lanes, joined pairwise.
template <class T>
static void backwardRow(const float* dOut, const float* logprobs, T* dLogits, int64_t columns,
                        float temperature, bool past) {
  Vec sums[kSide] = {zero(), zero(), zero(), zero()};
  int64_t j = 0;
  for (; j + kSideLanes <= columns; j += kSideLanes) {
    fetchAhead(dOut + j);
    for (int k = 0; k < kSide; k++) sums[k] = sums[k] + load(dOut + j + k * kLanes);
  }
  for (; j < columns; j += kLanes)
    sums[0] = sums[0] + loadPartial(dOut + j, int(std::min<int64_t>(kLanes, columns - j)));
  const Vec minusTotal = splat(0.0f - reduceAdd((sums[0] + sums[1]) + (sums[2] + sums[3])));
  const Vec divisor = splat(temperature);
  eachVectors(columns, dLogits, past, [&](int64_t j, auto lanes) {
    Vec d[lanes.count], p[lanes.count];
    fetchAhead(logprobs + j);
    lanes.get(dOut + j, d);
    lanes.get(logprobs + j, p);
    for (int k = 0; k < lanes.count; k++) p[k] = expRangeFromBelow(min(splat(89.0f), p[k]));
    expInRange<lanes.count>(p);
    for (int k = 0; k < lanes.count; k++) d[k] = fma(p[k], minusTotal, d[k]);
    if (temperature != 1.0f)
      for (int k = 0; k < lanes.count; k++) d[k] = d[k] / divisor;
    lanes.put(dLogits + j, d);
  });
}

void trainingLogSoftmax(const LogSoftmaxArgs& args, Workers& workers) { logSoftmaxOf(args, workers); }

void trainingChosenLogprobs(const ChosenLogprobsArgs& args, Workers& workers) {
  chosenLogprobsOf(args, workers);
}

void trainingLogSoftmaxBackward(const LogSoftmaxBackwardArgs& args, Workers& workers) {
  const bool past = args.rows * args.columns * int64_t(bytesOf(args.dtype)) >= kPastCaches;
  eachRange(args, workers, [&](auto type, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t at = i * args.columns;
      backwardRow(args.dOut + at, args.logprobs + at, static_cast<decltype(type)*>(args.dLogits) + at,
                  args.columns, args.temperature, past);
    }
    if (past) fencePastCaches();
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingLogSoftmax(Registry& registry) {
  registry.add<LogSoftmaxArgs>(Family::training, ISA_VARIANTS(trainingLogSoftmax));
  registry.add<ChosenLogprobsArgs>(Family::training, ISA_VARIANTS(trainingChosenLogprobs));
  registry.add<LogSoftmaxBackwardArgs>(Family::training, ISA_VARIANTS(trainingLogSoftmaxBackward));
}
}  // namespace isopolicy

#endif
