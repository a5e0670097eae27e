#pragma once
#include "core/dtype.h"

namespace isopolicy {

// logprobs[i][j] = x - lse with x = logits[i][j] / temperature; the arithmetic is that of
// cpu/shared/log_softmax_row.h in both families.
struct LogSoftmaxArgs {
  const void* logits;  // [rows, columns] of dtype
  float* logprobs;     // [rows, columns]
  int64_t rows, columns;
  int64_t chunk;  // columns a step; 0: the whole row
  float temperature;
  DType dtype;
};

// The same rows, of which only the chosen entry is kept.
struct ChosenLogprobsArgs {
  const void* logits;  // [rows, columns] of dtype
  const int32_t* ids;  // [rows]
  float* logprobs;     // [rows]
  float* lse;          // [rows]
  float* entropy;      // [rows]
  int64_t rows, columns;
  int64_t chunk;
  float temperature;
  DType dtype;
};

struct LogSoftmaxBackwardArgs {
  const float* dOut;      // [rows, columns]
  const float* logprobs;  // [rows, columns]
  void* dLogits;          // [rows, columns] of dtype
  int64_t rows, columns;
  float temperature;
  DType dtype;
};

class OpCall;
void logSoftmaxOp(OpCall& call);
void chosenLogprobsOp(OpCall& call);
void logSoftmaxBackwardOp(OpCall& call);

// A divisor of logits: above 0 in fp32. Used by every op on log-probs.
float readTemperature(OpCall& call);

}  // namespace isopolicy
