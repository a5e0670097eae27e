// Size and health of a gradient in one pass. Squares of fp32 values are exact in fp64 and cannot overflow
// there; blocks of a fixed size are added in order.
#include "cpu/shared/kernel.h"
#include "ops/grad_stats.h"
#define ISA_KERNELS "cpu/shared/grad_stats.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

struct BlockStats {
  double squares;
  int64_t nonFinite;
};

template <class T>
ISA_FLATTEN static BlockStats statsOfBlock(const T* x, int64_t n) {
  Doubles squares = zeroDoubles();
  Vec finite = zero();  // counts, exact: a block has 512 elements a lane
  const Vec infinity = splat(std::numeric_limits<float>::infinity());
  eachVector(
      n,
      [&](int64_t i, auto lanes) {
        const Vec v = lanes.get(x + i), size = abs(v);  // a NaN is not below infinity either
        finite = finite + selectLess(size, infinity, splat(1.0f), zero());
        squares = addSquares(squares, selectLess(size, infinity, v, zero()));
      },
      x);
  double lanes[kLanes];
  toArray(squares, lanes);
  BlockStats total = {0, 0};
  for (const double lane : lanes) total.squares += lane;
  const int64_t padded = (n + kLanes - 1) / kLanes * kLanes;  // the zeros beyond the end count as finite
  total.nonFinite = padded - int64_t(reduceAdd(finite));
  return total;
}

void gradStats(const GradStatsArgs& args, Workers& workers) {
  constexpr int64_t kBlock = 8192;
  const int64_t blocks = (args.count + kBlock - 1) / kBlock;
  Scratch scratch;
  BlockStats* partial = scratch.get<BlockStats>(blocks);
  dispatchFloat(args.dtype, [&](auto type) {
    const auto* x = static_cast<const decltype(type)*>(args.x);
    workers.parallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++)
        partial[b] = statsOfBlock(x + b * kBlock, std::min(kBlock, args.count - b * kBlock));
    });
  });
  BlockStats total = {0, 0};
  for (int64_t b = 0; b < blocks; b++) {
    total.squares += partial[b].squares;
    total.nonFinite += partial[b].nonFinite;
  }
  args.stats[0] = args.count > 0 ? float(std::sqrt(total.squares / double(args.count))) : 0.0f;
  args.stats[1] = float(total.nonFinite);
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerGradStats(Registry& registry) {
  registry.add<GradStatsArgs>(Family::shared, ISA_VARIANTS(gradStats));
}
}  // namespace isopolicy

#endif
