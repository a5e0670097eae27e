// The two ops on rows of logits, which both families walk alike: a first pass sums, and a second, over a row
// that the second-level cache still holds, writes. Included inside a pass of each_isa.h: no guard.
#include "cpu/shared/log_softmax_row.h"

namespace isopolicy::ISA_PASS {

template <class T>
LogitRow<T> logitRow(const void* logits, int64_t i, int64_t columns, float temperature) {
  return {static_cast<const T*>(logits) + i * columns, temperature};
}

template <class T>
void logSoftmaxRows(const LogSoftmaxArgs& args, int64_t begin, int64_t end) {
  const bool past = args.rows * args.columns * int64_t(sizeof(float)) >= kPastCaches;
  for (int64_t i = begin; i < end; i++) {
    const auto row = logitRow<T>(args.logits, i, args.columns, args.temperature);
    const float lse = logsOf(sumRow<false>(row, args.columns, args.chunk)).lse;
    writeLogprobs(row, args.columns, lse, args.logprobs + i * args.columns, past);
  }
  if (past) fencePastCaches();
}

template <class T>
void chosenRows(const ChosenLogprobsArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const auto row = logitRow<T>(args.logits, i, args.columns, args.temperature);
    const RowLogs logs = logsOf(sumRow<true>(row, args.columns, args.chunk));
    args.lse[i] = logs.lse;
    args.entropy[i] = logs.entropy;
    args.logprobs[i] = row.one(args.ids[i]) - logs.lse;
  }
}

template <class Args, class Body>
void eachRange(const Args& args, Workers& workers, Body body) {
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { body(type, begin, end); });
  });
}

inline void logSoftmaxOf(const LogSoftmaxArgs& args, Workers& workers) {
  eachRange(args, workers,
            [&](auto type, int64_t begin, int64_t end) { logSoftmaxRows<decltype(type)>(args, begin, end); });
}

inline void chosenLogprobsOf(const ChosenLogprobsArgs& args, Workers& workers) {
  checkIds("ids", args.ids, args.rows, args.columns);
  eachRange(args, workers,
            [&](auto type, int64_t begin, int64_t end) { chosenRows<decltype(type)>(args, begin, end); });
}

}  // namespace isopolicy::ISA_PASS
