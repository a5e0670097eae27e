#include "ops/grad_stats.h"

#include "ops/op.h"

namespace isopolicy {

// gradStats(x, stats fp32 [n, 2], index): stats[index] = (root mean square, number of non-finite elements).
// The mean square, not the norm: it never exceeds the largest element, so that it always fits fp32.
void gradStatsOp(OpCall& call) {
  const Tensor x = call.tensor("x");
  const Tensor stats = call.tensor("stats");
  const int64_t index = call.integer("index", 0);
  call.expectFloat("x", x);
  call.expectDtype("stats", stats, DType::float32);
  call.expect(stats.shape.rank == 2 && stats.shape[1] == 2, "stats of shape [n, 2]", stats.shape.text());
  call.expect(index < stats.shape[0], "index below n = " + std::to_string(stats.shape[0]),
              std::to_string(index));
  call.enqueue(Family::shared, GradStatsArgs{x.data(), stats.as<float>() + 2 * index, x.elements(), x.dtype},
               {&x, &stats});
}

}  // namespace isopolicy
