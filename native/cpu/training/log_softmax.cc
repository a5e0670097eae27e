// Log-softmax of the training family: online, one pass over the steps, and its gradient.
#include "cpu/shared/kernel.h"
#include "ops/log_softmax.h"
#define ISA_KERNELS "cpu/training/log_softmax.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/log_softmax_row.h"

namespace isopolicy::ISA_PASS {

template <class T>
static void onlineRows(const LogSoftmaxArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const LogitRow<T> row{static_cast<const T*>(args.logits) + i * args.columns, args.temperature};
    const float lse = sumOnline<false>(row, args.columns, args.chunk).lse();
    writeLogprobs(row, args.columns, lse, args.logprobs + i * args.columns);
  }
}

template <class T>
static void onlineChosenRows(const ChosenLogprobsArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const LogitRow<T> row{static_cast<const T*>(args.logits) + i * args.columns, args.temperature};
    const LogSum state = sumOnline<true>(row, args.columns, args.chunk);
    args.lse[i] = state.lse();
    args.entropy[i] = state.entropy();
    args.logprobs[i] = row.one(args.ids[i]) - args.lse[i];
  }
}

// dLogit_j = (dOut_j - exp(logprob_j) sum_k dOut_k) / temperature.
template <class T>
static void backwardRow(const float* dOut, const float* logprobs, T* dLogits, int64_t columns,
                        float temperature) {
  Vec lanes = zero();
  int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) lanes = lanes + load(dOut + j);
  if (j < columns) lanes = lanes + loadPartial(dOut + j, int(columns - j));
  const Vec total = splat(reduceAdd(lanes));
  const Vec divisor = splat(temperature);
  for (j = 0; j + kLanes <= columns; j += kLanes)
    store(dLogits + j, (load(dOut + j) - exp(load(logprobs + j)) * total) / divisor);
  if (j < columns) {
    const int n = int(columns - j);
    storePartial(dLogits + j,
                 (loadPartial(dOut + j, n) - exp(loadPartial(logprobs + j, n)) * total) / divisor, n);
  }
}

void trainingLogSoftmax(const LogSoftmaxArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { onlineRows<decltype(type)>(args, begin, end); });
  });
}

void trainingChosenLogprobs(const ChosenLogprobsArgs& args, Workers& workers) {
  checkIds("ids", args.ids, args.rows, args.columns);
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { onlineChosenRows<decltype(type)>(args, begin, end); });
  });
}

void trainingLogSoftmaxBackward(const LogSoftmaxBackwardArgs& args, Workers& workers) {
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t at = i * args.columns;
        backwardRow(args.dOut + at, args.logprobs + at, static_cast<decltype(type)*>(args.dLogits) + at,
                    args.columns, args.temperature);
      }
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingLogSoftmax(Registry& registry) {
  registry.add<LogSoftmaxArgs>(Family::training, Device::cpu, ISA_VARIANTS(trainingLogSoftmax));
  registry.add<ChosenLogprobsArgs>(Family::training, Device::cpu, ISA_VARIANTS(trainingChosenLogprobs));
  registry.add<LogSoftmaxBackwardArgs>(Family::training, Device::cpu,
                                       ISA_VARIANTS(trainingLogSoftmaxBackward));
}
}  // namespace isopolicy

#endif
