// Expert ids in device memory: what route.cu and group_by_expert.cu ask of them.
#pragma once
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {

inline std::string expertIdMessage(int64_t experts) {
  return "expected expert ids from 0 to E - 1 = " + std::to_string(experts - 1) + ", got %v at position %i";
}

// The id, or the first expert's where it is no expert's: bad data is reported, and memory stays in bounds.
__device__ __forceinline__ int expertWithin(int32_t id, int experts) {
  return unsigned(id) < unsigned(experts) ? id : 0;
}

// Reports ids that are no expert's. The `count` ids are those from position `first` on; thread `member` of
// `members` looks at each members-th.
__device__ __forceinline__ void checkExpertIds(const int32_t* ids, int64_t first, int64_t count, int experts,
                                               int member, int members, const Check& check) {
  for (int64_t i = member; i < count; i += members)
    if (unsigned(ids[i]) >= unsigned(experts)) report(check, first + i, ids[i]);
}

}  // namespace isopolicy::cuda
