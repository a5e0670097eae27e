// Matrix products: C = op(A) op(B) (+ bias) (+ C), row-major, fp32 sums.
#pragma once
#include "core/dtype.h"

namespace isopolicy {

// op(A) is [m, k], op(B) is [k, n], C is [m, n]; a leading dimension is the distance of two rows as stored.
// A and B have dtype `in`, as has the bias; C has `in` or fp32.
//
// The order in which an element of C is summed depends on k and splitK alone: never on m, n, the batch, the
// transposes or the number of threads.
struct GemmArgs {
  const void* a = nullptr;
  const void* b = nullptr;
  const void* bias = nullptr;  // [n] or null
  void* c = nullptr;
  int64_t m = 0, n = 0, k = 0;
  int64_t lda = 0, ldb = 0, ldc = 0;
  int64_t batch = 1;
  int64_t strideA = 0, strideB = 0, strideC = 0;  // elements from one matrix of the batch to the next
  bool transposeA = false;                        // A is stored [k, m]
  bool transposeB = false;                        // B is stored [n, k], as the weight of y = x W^T is
  bool packedB = false;     // B is a packed weight [n, k] (ops/pack_weight.h), its strides unused; no batch
  bool readSoon = false;    // C is read at once and is to stay in caches, however large it is
  bool accumulate = false;  // C += instead of C =; needs an fp32 C
  DType in = DType::float32, out = DType::float32;
  int splitK = 0;  // length of k that is summed before the partial sums are added in order; 0: no split
  // fp32 [m, n] added to the result before it is rounded to C's dtype, or null; accumulate means addend = C.
  const float* addend = nullptr;
  int64_t ldAddend = 0;
};

// dx = sum over i of dy_i W_i, where dy_i is a block of columns of dy: each product summed on its own, the
// sums added in fp32 in the order of i, one rounding at the end.
struct LinearInputGradientArgs {
  static constexpr int kMaxWeights = 16;
  const void* dy;
  void* dx;
  int64_t rows, k, dyColumns;
  DType in, out;
  int count;
  const void* weights[kMaxWeights];  // [n_i, k]
  int32_t n[kMaxWeights];
};

// The product with weight i, whose block of dy begins at `column`. `sums` [rows, k] in fp32 has the sum of
// the products before it and takes that of all but the last, which is dx; it may be dx where that is fp32.
GemmArgs inputGradientProduct(const LinearInputGradientArgs& args, int i, int64_t column, float* sums);

class OpCall;
void gemmOp(OpCall& call);
void linearOp(OpCall& call);
void linearInputGradientOp(OpCall& call);
void linearWeightGradientOp(OpCall& call);

}  // namespace isopolicy
