#include "ops/group_by_expert.h"

#include "ops/op.h"

namespace isopolicy {

// groupByExpert(ids int32 [tokens, k], experts) -> rows int32 [tokens, k], tokens int32 [tokens k], offsets
// int32 [experts + 1].
void groupByExpertOp(OpCall& call) {
  const Tensor ids = call.tensor("ids");
  call.expectDtype("ids", ids, DType::int32);
  call.expectRank("ids", ids, 2, "[tokens, k]");
  const int64_t experts = call.integer("experts", 1);
  const int64_t count = ids.shape[0], k = ids.shape[1];
  const Tensor rows = call.output(DType::int32, ids.shape);
  const Tensor tokens = call.output(DType::int32, {count * k});
  const Tensor offsets = call.output(DType::int32, {experts + 1});
  call.enqueue(Family::shared,
               GroupByExpertArgs{ids.as<int32_t>(), rows.as<int32_t>(), tokens.as<int32_t>(),
                                 offsets.as<int32_t>(), count, k, experts},
               {&ids});
}

}  // namespace isopolicy
