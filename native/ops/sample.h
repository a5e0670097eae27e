#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct SampleArgs {
  const void* logits;   // [rows, columns] of dtype
  const int32_t* keys;  // [rows, 4]: prompt, sample, position, slot
  int32_t* ids;         // [rows]
  float* logprobs;      // [rows]
  int64_t rows, columns;
  int64_t chunk;
  int64_t topK;  // 0: off
  double topP;   // 1: off
  float temperature;
  uint32_t seedLow, seedHigh;
  DType dtype;
};

class OpCall;
void sampleOp(OpCall& call);

}  // namespace isopolicy
