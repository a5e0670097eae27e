#pragma once
#include "core/dtype.h"

namespace isopolicy {

// out[i] = table[ids[i]], whole rows.
struct EmbeddingArgs {
  const void* table;
  const int32_t* ids;
  void* out;
  int64_t count, rows, rowBytes;
  bool vocabulary;  // words the message: ids of a vocabulary, or indices of rows
};
// grad[ids[i]] += dOut[i], in the order of i.
struct EmbeddingBackwardArgs {
  const void* dOut;
  const int32_t* ids;
  float* grad;
  int64_t count, rows, width;
  DType dtype;
};
// out[r] = the sum of dOut[i] over index[i] == r, in the order of i; zeros where there is none.
struct ScatterRowsArgs {
  const void* dOut;
  const int32_t* index;
  void* out;
  int64_t count, rows, width;
  DType dtype;
};

// Throws a DeviceError for the first id outside 0..rows - 1.
void checkIds(const int32_t* ids, int64_t count, int64_t rows, bool vocabulary);

class OpCall;
void embeddingOp(OpCall& call);
void gatherRowsOp(OpCall& call);
void embeddingBackwardOp(OpCall& call);
void scatterRowsOp(OpCall& call);

}  // namespace isopolicy
