// A counting sort on one thread, which is some microseconds: the same code at every vector level.
#include "ops/group_by_expert.h"

#include <algorithm>

#include "core/registry.h"
#include "core/workers.h"
#include "ops/route.h"

namespace isopolicy {

namespace {

void groupByExpert(const GroupByExpertArgs& args, Workers&) {
  const int64_t choices = args.count * args.k;
  checkExpertIds(args.ids, choices, args.experts);
  std::fill(args.offsets, args.offsets + args.experts + 1, 0);
  for (int64_t i = 0; i < choices; i++) args.offsets[args.ids[i] + 1]++;
  for (int64_t e = 0; e < args.experts; e++) args.offsets[e + 1] += args.offsets[e];
  Scratch scratch;
  int32_t* next = scratch.get<int32_t>(args.experts);
  std::copy(args.offsets, args.offsets + args.experts, next);
  for (int64_t t = 0; t < args.count; t++) {
    for (int64_t i = t * args.k; i < (t + 1) * args.k; i++) {
      const int32_t row = next[args.ids[i]]++;
      args.rows[i] = row;
      args.tokens[row] = int32_t(t);
    }
  }
}

}  // namespace

void registerGroupByExpert(Registry& registry) {
  registry.add<GroupByExpertArgs>(
      Family::shared, {groupByExpert, groupByExpert, groupByExpert, groupByExpert, groupByExpert});
}

}  // namespace isopolicy
