// Places in the paged cache, and the checks of slots, positions and pages (ops/attention.h).
//
// On a GPU keys lie like values, by rows of headDim, in every dtype: [pages, numKvHeads, 16, headDim]. A
// token is then written in whole lines, and a page comes to shared memory as 16 rows of packed tokens do.
#pragma once
#include "cuda/shared/kernel.cuh"
#include "ops/attention.h"

namespace isopolicy::cuda {

struct PagedPlaces {
  const int32_t* blockTable;
  const int32_t* slots;
  const int32_t* positions;
  int32_t pages, slotCount, pagesPerSlot;
  Check badSlot, badPosition, badPage;

  // Whether the token has a place. Where not, that is reported unless the row is unused.
  __device__ __forceinline__ bool place(int64_t token, int32_t& slot, int32_t& position) const {
    slot = slots[token];
    position = positions[token];
    if (slot < 0) return false;
    if (slot >= slotCount) {
      report(badSlot, token, slot);
      return false;
    }
    if (position < 0 || position / kPageSize >= pagesPerSlot) {
      report(badPosition, token, position);
      return false;
    }
    return true;
  }
  // The page of a position that has a place, or -1 where the table holds none, which is reported.
  __device__ __forceinline__ int32_t pageOf(int32_t slot, int32_t position) const {
    const int64_t entry = int64_t(slot) * pagesPerSlot + position / kPageSize;
    const int32_t page = blockTable[entry];
    if (page >= 0 && page < pages) return page;
    report(badPage, entry * kPageSize + position % kPageSize, page);
    return -1;
  }
};

inline PagedPlaces pagedPlaces(const KvCache& cache, const int32_t* slots, const int32_t* positions,
                               Launcher& gpu) {
  const std::string capacity = std::to_string(cache.pagesPerSlot * kPageSize);
  return {cache.blockTable,
          slots,
          positions,
          int32_t(cache.pages),
          int32_t(cache.slots),
          int32_t(cache.pagesPerSlot),
          gpu.check("expected slots below " + std::to_string(cache.slots) + ", got %v for token %i"),
          gpu.check("expected positions from 0 to " + std::to_string(cache.pagesPerSlot * kPageSize - 1) +
                    ", got %v for token %i"),
          gpu.check("expected blockTable to hold pages from 0 to " + std::to_string(cache.pages - 1) +
                    ", got %v for position %i%" + capacity + " of slot %i/" + capacity)};
}

}  // namespace isopolicy::cuda
