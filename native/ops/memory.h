// Ops that make, fill, copy and re-window memory, and draw random numbers into it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace isopolicy {

struct FillArgs {
  void* data;
  int64_t count;
  DType dtype;
  double value;
};

struct CopyArgs {
  const void* from;
  void* to;
  size_t bytes;
};

// From host memory that the command keeps alive.
struct UploadArgs {
  const void* from;
  void* to;
  size_t bytes;
};

// Elements 2i and 2i + 1 are the Box-Muller pair of counter (i, 0, stream), so that values do not depend on
// how work is split.
struct RandomNormalArgs {
  void* data;
  int64_t count;
  DType dtype;
  double mean, std;
  uint32_t seed, stream;
};

// Elements 2i and 2i + 1 are of counter (i, 1, stream): its third word tells the draws from those of
// randomNormal.
struct RandomUniformArgs {
  float* data;
  int64_t count;
  double bound;
  uint32_t seed, stream;
};

class OpCall;
class Registry;
void allocateOp(OpCall& call);
void fillOp(OpCall& call);
void copyOp(OpCall& call);
void viewOp(OpCall& call);
void randomNormalOp(OpCall& call);
void randomUniformOp(OpCall& call);
void registerMemory(Registry& registry);

}  // namespace isopolicy
