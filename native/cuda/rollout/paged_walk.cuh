// In which order a block of paged attention copies keys and values, and computes with them.
#pragma once
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {

// A unit is kStep keys, or their values: what is copied at once. A tile of one step is its keys and its
// values; a longer one is first the keys of all steps, for the maximum, then keys and values of each step.
enum class Unit { keysForMax, keys, values };

// The units of every stride-th chunk, of the keys 0 .. seen - 1.
template <int kStep>
class PagedWalk {
 public:
  __device__ __forceinline__ PagedWalk(int chunk, int tile, int seen, int firstChunk, int stride)
      : chunkSize_(chunk), tileSize_(tile), seen_(seen), stride_(stride), chunk_(firstChunk) {
    beginTile(firstChunk * chunk);
  }
  __device__ __forceinline__ bool done() const { return tile_ >= seen_; }
  __device__ __forceinline__ Unit unit() const { return unit_; }
  __device__ __forceinline__ int chunk() const { return chunk_; }
  __device__ __forceinline__ int firstKey() const { return key_; }
  __device__ __forceinline__ int keys() const { return min(kStep, tileEnd() - key_); }
  __device__ __forceinline__ int tileEnd() const { return min(tile_ + tileSize_, seen_); }
  __device__ __forceinline__ bool beginsTile() const { return key_ == tile_; }
  __device__ __forceinline__ bool oneStep() const { return tileSize_ <= kStep; }
  __device__ __forceinline__ bool endsChunk() const {
    return key_ + kStep >= tileEnd() && tile_ + tileSize_ >= chunkEnd();
  }

  __device__ __forceinline__ void next() {
    if (unit_ == Unit::keys) {
      unit_ = Unit::values;
      return;
    }
    key_ += kStep;
    const bool more = key_ < tileEnd();
    if (unit_ == Unit::keysForMax) {
      if (more) return;
      key_ = tile_;
      unit_ = Unit::keys;
    } else if (more) {
      unit_ = Unit::keys;
    } else {
      int following = tile_ + tileSize_;
      if (following >= chunkEnd()) {
        chunk_ += stride_;
        following = chunk_ * chunkSize_;
      }
      beginTile(following);
    }
  }

 private:
  __device__ __forceinline__ int chunkEnd() const { return min(seen_, (chunk_ + 1) * chunkSize_); }
  __device__ __forceinline__ void beginTile(int key) {
    tile_ = key_ = key;
    unit_ = oneStep() ? Unit::keys : Unit::keysForMax;
  }

  int chunkSize_, tileSize_, seen_, stride_;
  int chunk_, tile_ = 0, key_ = 0;
  Unit unit_ = Unit::keys;
};

}  // namespace isopolicy::cuda
