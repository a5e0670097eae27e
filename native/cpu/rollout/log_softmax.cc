// Log-softmax of the rollout family: two passes over a row. The first finds the maximum that each step will
// have reached, the second sums exponentials below maxima that are already known.
#include "cpu/shared/kernel.h"
#include "ops/log_softmax.h"
#define ISA_KERNELS "cpu/rollout/log_softmax.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/log_softmax_row.h"

namespace isopolicy::ISA_PASS {

template <bool kEntropy, class Row>
static LogSum sumTwoPasses(const Row& row, int64_t columns, int64_t chunk) {
  const int64_t step = stepOf(chunk, columns);
  const int64_t steps = (columns + step - 1) / step;
  Scratch scratch;
  float* maxima = scratch.get<float>(steps);
  float running = kMinusInfinity;
  for (int64_t s = 0; s < steps; s++) {
    const float m = maximum(row, s * step, std::min((s + 1) * step, columns));
    if (m > running) running = m;
    maxima[s] = running;
  }
  LogSum state;
  for (int64_t s = 0; s < steps; s++) {
    state.raise(maxima[s]);
    addStep<kEntropy>(state, row, s * step, std::min((s + 1) * step, columns));
  }
  return state;
}

template <class T>
static void logSoftmaxRows(const LogSoftmaxArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const LogitRow<T> row{static_cast<const T*>(args.logits) + i * args.columns, args.temperature};
    const float lse = sumTwoPasses<false>(row, args.columns, args.chunk).lse();
    writeLogprobs(row, args.columns, lse, args.logprobs + i * args.columns);
  }
}

template <class T>
static void chosenRows(const ChosenLogprobsArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const LogitRow<T> row{static_cast<const T*>(args.logits) + i * args.columns, args.temperature};
    const LogSum state = sumTwoPasses<true>(row, args.columns, args.chunk);
    args.lse[i] = state.lse();
    args.entropy[i] = state.entropy();
    args.logprobs[i] = row.one(args.ids[i]) - args.lse[i];
  }
}

void rolloutLogSoftmax(const LogSoftmaxArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { logSoftmaxRows<decltype(type)>(args, begin, end); });
  });
}

void rolloutChosenLogprobs(const ChosenLogprobsArgs& args, Workers& workers) {
  checkIds("ids", args.ids, args.rows, args.columns);
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { chosenRows<decltype(type)>(args, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutLogSoftmax(Registry& registry) {
  registry.add<LogSoftmaxArgs>(Family::rollout, Device::cpu, ISA_VARIANTS(rolloutLogSoftmax));
  registry.add<ChosenLogprobsArgs>(Family::rollout, Device::cpu, ISA_VARIANTS(rolloutChosenLogprobs));
}
}  // namespace isopolicy

#endif
