// Gradients of RMSNorm: with v the normalised input (x, or x + delta in fp32) and r = 1 / rms(v),
//   dv = r * (dy * w - v * r^2 * mean(dy * w * v)),  dw = sum over rows of dy * v * r.
// fp32 throughout, dv rounded once. Rows are taken in blocks of a fixed size whose weight gradients are added
// in order, so the sum does not depend on the number of threads.
#include "cpu/shared/kernel.h"
#include "ops/rms_norm.h"
#define ISA_KERNELS "cpu/shared/rms_norm_backward.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

static constexpr int64_t kRowBlock = 32;

// `gradWeight` is the block's own sum, or null.
template <class T, bool fused>
ISA_FLATTEN static void normRowsBackward(const RmsNormBackwardArgs& args, int64_t begin, int64_t end,
                                         float* gradWeight) {
  const int64_t width = args.width;
  const T* weight = static_cast<const T*>(args.weight);
  // What the first look at a row has made of it in fp32, for the second: v and dy * w.
  Scratch scratch;
  float* wide = scratch.get<float>(width);
  float* weighted = scratch.get<float>(width);
  for (int64_t row = begin; row < end; row++) {
    const int64_t start = row * width;
    const T* dSum = args.dSum ? static_cast<const T*>(args.dSum) + start : nullptr;
    const T* dy = static_cast<const T*>(args.dy) + start;
    const T* x = static_cast<const T*>(args.x) + start;
    const T* delta = fused ? static_cast<const T*>(args.delta) + start : x;
    T* dx = static_cast<T*>(args.dx) + start;

    Vec squares = zero(), products = zero();
    eachVector(
        width,
        [&](int64_t i, auto lanes) {
          Vec v = lanes.get(x + i);
          if constexpr (fused) v = v + lanes.get(delta + i);
          const Vec d = lanes.get(dy + i) * lanes.get(weight + i);
          lanes.put(wide + i, v);
          lanes.put(weighted + i, d);
          squares = squares + v * v;
          products = products + d * v;
        },
        x, delta, dy);
    const float inverse = 1.0f / std::sqrt(reduceAdd(squares) / float(width) + args.eps);
    const Vec r = splat(inverse);
    const Vec along = splat(reduceAdd(products) / float(width) * inverse * inverse);
    const auto second = [&](int64_t i, auto lanes) {
      const Vec v = lanes.get(wide + i);
      Vec d = r * (lanes.get(weighted + i) - v * along);
      if (dSum) d = lanes.get(dSum + i) + (fused ? d : roundThrough<T>(d));
      lanes.put(dx + i, d);
      if (gradWeight) lanes.put(gradWeight + i, lanes.get(gradWeight + i) + lanes.get(dy + i) * (v * r));
    };
    if (dSum)
      eachVector(width, second, dx, dSum);
    else
      eachVector(width, second, dx);
  }
}

void rmsNormBackward(const RmsNormBackwardArgs& args, Workers& workers) {
  const int64_t width = args.width, blocks = (args.rows + kRowBlock - 1) / kRowBlock;
  Scratch scratch;
  float* partial = args.gradWeight && blocks > 0 ? scratch.get<float>(blocks * width) : nullptr;
  workers.parallelFor(blocks, 16384 / (kRowBlock * width + 1), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      float* gradWeight = partial ? partial + block * width : nullptr;
      if (gradWeight) std::fill(gradWeight, gradWeight + width, 0.0f);
      const int64_t first = block * kRowBlock, last = std::min(args.rows, first + kRowBlock);
      dispatchFloat(args.dtype, [&](auto type) {
        if (args.delta)
          normRowsBackward<decltype(type), true>(args, first, last, gradWeight);
        else
          normRowsBackward<decltype(type), false>(args, first, last, gradWeight);
      });
    }
  });
  if (partial == nullptr) return;
  workers.parallelFor(width, 65536 / blocks, [&](int64_t begin, int64_t end) {
    eachVector(end - begin, [&](int64_t i, auto lanes) {
      Vec sum = zero();
      for (int64_t block = 0; block < blocks; block++)
        sum = sum + lanes.get(partial + block * width + begin + i);
      float* out = args.gradWeight + begin + i;
      lanes.put(out, lanes.get(out) + sum);
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRmsNormBackward(Registry& registry) {
  registry.add<RmsNormBackwardArgs>(Family::shared, ISA_VARIANTS(rmsNormBackward));
}
}  // namespace isopolicy

#endif
