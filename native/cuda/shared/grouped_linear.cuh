// What the products of experts share: whose rows are whose, which is known to the GPU alone.
#pragma once
#include "cuda/shared/kernel.cuh"
#include "ops/gemm.h"

namespace isopolicy::cuda {

// The rows of each expert. Bad offsets are reported, and rows stay in bounds.
struct Experts {
  const int32_t* offsets;
  int count, rows;
  Check badOffset;

  __device__ __forceinline__ int boundary(int e) const { return min(max(offsets[e], 0), rows); }
  __device__ __forceinline__ int load(int e) const { return max(boundary(e + 1) - boundary(e), 0); }

  // By the first block.
  __device__ __forceinline__ void check() const {
    if (blockIdx.x != 0) return;
    for (int e = int(threadIdx.x); e <= count; e += int(blockDim.x)) {
      const int32_t offset = offsets[e], before = e == 0 ? 0 : offsets[e - 1];
      const int32_t least = e == count ? rows : before, most = e == 0 ? 0 : rows;
      if (offset < least || offset > most) report(badOffset, e, offset);
    }
  }
};

struct ExpertTile {
  int expert;
  int number;  // of the expert's tiles; -1 where there is none
};

// Finds tiles by their number among those of all experts, in ascending order; each `height` rows of an expert
// have tilesN. A whole warp takes part: a lane has an expert, 32 are looked at together.
class ExpertWalk {
 public:
  __device__ __forceinline__ ExpertWalk(const Experts& experts, int height, int tilesN)
      : experts_(experts), height_(height), tilesN_(tilesN) {
    count();
  }
  __device__ __forceinline__ ExpertTile find(int number) {
    for (;;) {
      const unsigned behind = __ballot_sync(kAllLanes, number < before_ + upTo_);
      if (behind != 0) {
        const int owner = __ffs(int(behind)) - 1;
        return {base_ + owner, number - before_ - __shfl_sync(kAllLanes, upTo_ - tiles_, owner)};
      }
      if (base_ + 32 >= experts_.count) return {0, -1};
      before_ += __shfl_sync(kAllLanes, upTo_, 31);
      base_ += 32;
      count();
    }
  }
  __device__ __forceinline__ int tilesDown(int expert) const {
    return (experts_.load(expert) + height_ - 1) / height_;
  }

 private:
  static constexpr unsigned kAllLanes = 0xffffffffu;

  __device__ __forceinline__ void count() {
    const int lane = int(threadIdx.x) % 32, e = base_ + lane;
    tiles_ = e < experts_.count ? tilesDown(e) * tilesN_ : 0;
    upTo_ = tiles_;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const int below = __shfl_up_sync(kAllLanes, upTo_, by);
      if (lane >= by) upTo_ += below;
    }
  }

  const Experts& experts_;
  const int height_, tilesN_;
  int base_ = 0, before_ = 0;  // the first of the 32 experts, the tiles of those before
  int tiles_, upTo_;           // of this lane's expert; of those up to it
};

// A product an expert, each over its own rows. `gemm` is that of one expert as if all rows were its own: rows
// are m (forward and input gradient, whose batch is the weights, strideB apart) or k (weight gradient, whose
// batch is the gradients, strideC apart).
struct GroupedGemm {
  GemmArgs gemm;
  const int32_t* offsets;
  int64_t rows;

  bool isGradient() const { return gemm.transposeA; }  // of the weight
  // On the average of those that have some.
  int64_t rowsOfExpert() const { return rows == 0 ? 0 : ceilDiv(rows, std::min(gemm.batch, rows)); }
  // Tiles of so many rows and columns that there are at most.
  int64_t mostTiles(int64_t height, int64_t width) const {
    const int64_t down =
        isGradient() ? gemm.batch * ceilDiv(gemm.m, height) : rows / height + std::min(gemm.batch, rows);
    return down * ceilDiv(gemm.n, width);
  }
  Experts experts(Launcher& gpu) const {
    return {offsets, int(gemm.batch), int(rows),
            gpu.check("expected offsets that rise from 0 to the " + std::to_string(rows) +
                      " rows, got %v at position %i")};
  }
};

// On capability 90, for 16-bit numbers (grouped_linear_hopper.cu): whether such a product goes that way, as
// that of gemm does, and the product.
bool hopperTakes(const GroupedGemm& product, const Launcher& gpu);
void hopperGroupedGemm(const GroupedGemm& product, int chains, Launcher& gpu);

}  // namespace isopolicy::cuda
