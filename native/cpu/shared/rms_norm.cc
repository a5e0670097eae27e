// RMSNorm of rows, alone or of the fp32 sum of two tensors. Sixteen partial sums of squares a row, added by
// halves: a row's bits depend on nothing but the row, and are the same at every vector level (no fused
// multiply-add).
#include "cpu/shared/kernel.h"
#include "ops/rms_norm.h"
#define ISA_KERNELS "cpu/shared/rms_norm.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

// Rows looked at together: the square root and the divisions of one are hidden behind the sums of the next.
static constexpr int64_t kRows = 4;

template <class T, bool fused>
ISA_FLATTEN static void normRows(const RmsNormArgs& args, bool past, int64_t begin, int64_t end) {
  const int64_t width = args.width;
  const bool rounded = args.roundings == 2;
  const T* x = static_cast<const T*>(args.x);
  const T* delta = fused ? static_cast<const T*>(args.delta) : x;
  T* sum = static_cast<T*>(args.sum);
  // Widened once: the weight for all rows, a row for the second look at it.
  const int64_t stride = (width + kLanes - 1) / kLanes * kLanes;
  Scratch scratch;
  float* weight = scratch.get<float>(width);
  float* wide = scratch.get<float>(kRows * stride);
  eachVector(width, [&](int64_t i, auto lanes) {
    lanes.put(weight + i, lanes.get(static_cast<const T*>(args.weight) + i));
  });
  for (int64_t first = begin; first < end; first += kRows) {
    const int64_t rows = std::min(kRows, end - first);
    float inverse[kRows];
    for (int64_t k = 0; k < rows; k++) {
      const int64_t start = (first + k) * width;
      float* row = wide + k * stride;
      Vec squares = zero();
      const auto look = [&](int64_t i, auto lanes) {
        Vec v = lanes.get(x + start + i);
        if constexpr (fused) {
          v = v + lanes.get(delta + start + i);
          lanes.put(sum + start + i, v);
          if (args.roundedSum) v = roundThrough<T>(v);
        }
        store(row + i, v);
        squares = squares + v * v;
      };
      if (!fused)
        eachVector(width, look, x + start);
      else if (past)
        eachVectorPast(width, sum + start, look, x + start, delta + start);
      else
        eachVector(width, look, x + start, delta + start, sum + start);
      inverse[k] = 1.0f / std::sqrt(reduceAdd(squares) / float(width) + args.eps);
    }
    for (int64_t k = 0; k < rows; k++) {
      const Vec r = splat(inverse[k]);
      const float* row = wide + k * stride;
      T* y = static_cast<T*>(args.y) + (first + k) * width;
      eachVectors(width, y, past, [&](int64_t i, auto lanes) {
        Vec v[lanes.count], w[lanes.count];
        lanes.get(row + i, v);
        lanes.get(weight + i, w);
        for (int n = 0; n < lanes.count; n++) v[n] = v[n] * r;
        if (rounded)
          for (int n = 0; n < lanes.count; n++) v[n] = roundThrough<T>(v[n]);
        for (int n = 0; n < lanes.count; n++) v[n] = v[n] * w[n];
        lanes.put(y + i, v);
      });
    }
  }
  if (past) fencePastCaches();
}

void rmsNorm(const RmsNormArgs& args, Workers& workers) {
  const bool past = goesPast(args.rows, args.width, args.dtype);
  workers.parallelFor(args.rows, 4096 / (args.width + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      if (args.delta)
        normRows<decltype(type), true>(args, past, begin, end);
      else
        normRows<decltype(type), false>(args, past, begin, end);
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRmsNorm(Registry& registry) { registry.add<RmsNormArgs>(Family::shared, ISA_VARIANTS(rmsNorm)); }
}  // namespace isopolicy

#endif
