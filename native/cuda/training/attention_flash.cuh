// Flash attention of a block: 16 query rows a warp go through keys and values that pass through a ring of
// slots in shared memory.
#pragma once
#include "cuda/shared/attention_tile.cuh"

namespace isopolicy::cuda {

// kTile is the tile of the online softmax whose scores stay in registers, or 0: any tile, whose scores are
// computed twice, first for their maximum. Heads of more than 128 elements are cut into parts, each computed
// by a warp of its own, from the same scores.
template <class T_, int kDim_, int kTile_, int kRowGroups, int kSlots_, bool kChunks_>
struct Flash {
  using T = T_;
  using Rows = SharedRows<T, kDim_>;
  static constexpr int kDim = kDim_, kTile = kTile_, kSlots = kSlots_;
  static constexpr bool kChunks = kChunks_;  // else one chunk has all keys, and no register its result
  static constexpr int kKeys = kTile == 0 ? 16 : kTile < 64 ? kTile : 64;  // of a step: a slot of the ring
  static constexpr int kSteps = kTile == 0 ? 1 : kTile / kKeys;            // whose scores are in registers
  static constexpr int kParts = kDim > 128 ? kDim / 128 : 1, kOut = kDim / kParts;
  static constexpr int kRows = 16 * kRowGroups, kThreads = 32 * kRowGroups * kParts;
  static constexpr int kBlocks = kThreads == 128 ? 2 : 1;  // a multiprocessor has at least
  static constexpr size_t kSharedBytes = size_t(kRows + kSlots * kKeys) * kDim * sizeof(T);

  // Where this warp has its query rows, and which columns of the output are its.
  static __device__ __forceinline__ int firstRow() { return int(threadIdx.x) / 32 / kParts * 16; }
  static __device__ __forceinline__ int firstColumn() { return int(threadIdx.x) / 32 % kParts * kOut; }
  static __device__ __forceinline__ Rows queries() { return {0}; }
};

// Tiles of the presets, for heads of up to 128 elements of 16 bits, have kernels of their own; body gets a
// Flash.
template <class T, class Body>
void dispatchFlash(int headDim, int chunk, int tile, Body body) {
  const auto ofDim = [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    if constexpr (sizeof(T) == 2 && kDim <= 128) {
      if (tile == 32) return body(Flash<T, kDim, 32, 8, 4, true>{});
      if (tile == 64) return body(Flash<T, kDim, 64, 8, 4, true>{});
      if (tile == 128 && chunk == 0) return body(Flash<T, kDim, 128, 8, 4, false>{});
    }
    return body(Flash<T, kDim, 0, 4, 2, true>{});
  };
  if (headDim <= 64) return ofDim(std::integral_constant<int, 64>{});
  if (headDim <= 128) return ofDim(std::integral_constant<int, 128>{});
  return ofDim(std::integral_constant<int, 256>{});
}

// Keys and values of a sequence and head, rows `stride` elements apart.
template <class T>
struct PackedKeys {
  const T *keys, *values;
  int64_t stride;
  int headDim;
};

// The steps of keys and of values, in the order in which tiles take them.
template <class F>
struct StepCursor {
  int tileBegin = 0, step = 0;

  __device__ __forceinline__ int keySteps(int tile) const {
    return F::kTile == 0 ? tile / F::kKeys : F::kSteps;
  }
  __device__ __forceinline__ bool values(int tile) const {
    const int n = keySteps(tile);
    return step >= n && (F::kTile != 0 || (step - n) % 2 == 1);
  }
  __device__ __forceinline__ int firstKey(int tile) const {
    const int n = keySteps(tile);
    const int of = step < n ? step : F::kTile != 0 ? step - n : (step - n) / 2;
    return tileBegin + of * F::kKeys;
  }
  __device__ __forceinline__ void advance(int tile) {
    if (++step < (F::kTile == 0 ? 3 : 2) * keySteps(tile)) return;
    step = 0;
    tileBegin += tile;
  }
};

// Keys and values of one head, on their way to the block.
template <class F>
class KeyRing {
 public:
  using Rows = typename F::Rows;

  // Keys from `end` on are absent. What the block copied before is of the first group.
  __device__ __forceinline__ KeyRing(const PackedKeys<typename F::T>& source, int end, int tile)
      : source_(source), slots_(F::queries().from(F::kRows)), end_(end), tile_(tile) {
#pragma unroll
    for (int i = 0; i < F::kSlots - 1; i++) load(i);
  }

  // The next step, by all threads of the block; the one before may be overwritten.
  __device__ __forceinline__ Rows next() {
    copyWait<F::kSlots - 2>();
    __syncthreads();
    load(slot_ == 0 ? F::kSlots - 1 : slot_ - 1);
    const Rows now = slots_.from(slot_ * F::kKeys);
    slot_ = slot_ + 1 == F::kSlots ? 0 : slot_ + 1;
    return now;
  }

 private:
  __device__ __forceinline__ void load(int slot) {
    if (cursor_.tileBegin < end_) {
      const int first = cursor_.firstKey(tile_);
      const typename F::T* rows = cursor_.values(tile_) ? source_.values : source_.keys;
      copyRows<F::kKeys, F::kThreads>(slots_.from(slot * F::kKeys), rows + first * source_.stride,
                                      source_.stride, min(F::kKeys, max(0, end_ - first)), source_.headDim);
      cursor_.advance(tile_);
    }
    copyCommit();
  }

  const PackedKeys<typename F::T>& source_;
  const Rows slots_;
  const int end_, tile_;
  int slot_ = 0;
  StepCursor<F> cursor_;
};

// The rows of this warp, once they are done.
template <class F>
struct FlashResult {
  SoftmaxRows rows;
  float out[F::kOut / 8][4] = {};
};

// Rows g and g + 8 of the warp see keys below limit[0] and limit[1]; no limit of the block is above `last`.
// The queries are in shared memory, or their copies are begun but not committed. All threads of the block
// take part.
template <class F>
__device__ __forceinline__ FlashResult<F> attend(const PackedKeys<typename F::T>& source,
                                                 const int (&limit)[2], int last, float scale, int chunk,
                                                 int tile) {
  using Rows = typename F::Rows;
  constexpr int kKeys = F::kKeys, kSteps = F::kSteps, kOut = F::kOut;
  // A tile that is longer than all keys is as good as one that is not.
  tile = F::kTile != 0 ? F::kTile : min(tile, (last + 15) / 16 * 16);
  const Rows queries = F::queries().from(F::firstRow());
  const int column = F::firstColumn();
  const int least = __reduce_min_sync(0xffffffffu, min(limit[0], limit[1]));
  const int most = __reduce_max_sync(0xffffffffu, max(limit[0], limit[1]));
  const float base2 = scale * kLog2E;
  KeyRing<F> ring(source, last, tile);

  const auto score = [&](Rows keys, int first, float(&s)[kKeys / 8][4]) {
    scores<kKeys>(queries, keys, s);
    if (first + kKeys <= least)
      scaleAll<kKeys>(s, base2);
    else
      scaleAndMask<kKeys>(s, base2, first, limit);
  };
  const auto add = [&](Rows values, int first, float(&s)[kKeys / 8][4], FlashResult<F>& to) {
    probabilities<kKeys>(to.rows, s);
    // fp32 skips what a row does not see, and needs no second copy of the loop.
    if constexpr (sizeof(typename F::T) == 4)
      return addSeenRows<kKeys, kOut>(s, values, column, to.out, first, limit);
    else if (first + kKeys <= least || rowsAreFinite<kKeys, kOut>(values, column))
      addRows<kKeys, kOut>(s, values, column, to.out);
    else
      addSeenRows<kKeys, kOut>(s, values, column, to.out, first, limit);
  };
  // Keys begin .. end - 1; steps that no row of the warp sees are passed by.
  const auto attendTiles = [&](int begin, int end, FlashResult<F>& to) {
    for (; begin < end; begin += tile) {
      float s[kSteps][kKeys / 8][4];
      float tileMax[2] = {kMinusInfinity, kMinusInfinity};
      if constexpr (F::kTile != 0) {
#pragma unroll
        for (int step = 0; step < kSteps; step++) {
          const int first = begin + step * kKeys;
          const Rows keys = ring.next();
          if (first >= most) continue;
          score(keys, first, s[step]);
          raise<kKeys>(tileMax, s[step]);
        }
        if (begin < most) beginTile<kOut>(to.rows, tileMax, to.out);
#pragma unroll
        for (int step = 0; step < kSteps; step++) {
          const int first = begin + step * kKeys;
          const Rows values = ring.next();
          if (first < most) add(values, first, s[step], to);
        }
      } else {
        for (int first = begin; first < begin + tile; first += kKeys) {
          const Rows keys = ring.next();
          if (first >= most) continue;
          score(keys, first, s[0]);
          raise<kKeys>(tileMax, s[0]);
        }
        if (begin < most) beginTile<kOut>(to.rows, tileMax, to.out);
        for (int first = begin; first < begin + tile; first += kKeys) {
          const Rows keys = ring.next();
          if (first < most) score(keys, first, s[0]);
          const Rows values = ring.next();
          if (first < most) add(values, first, s[0], to);
        }
      }
    }
    finishSums(to.rows);
  };

  FlashResult<F> whole;
  if constexpr (F::kChunks) {
    for (int begin = 0; begin < last;) {
      const int end = chunk == 0 || last - begin <= chunk ? last : begin + chunk;
      FlashResult<F> part;
      attendTiles(begin, end, part);
      ChunkFactors f[2];
#pragma unroll
      for (int i = 0; i < 2; i++)
        f[i] = joinChunk(whole.rows.max[i], whole.rows.sum[i], part.rows.max[i], part.rows.sum[i]);
#pragma unroll
      for (int j = 0; j < kOut / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) whole.out[j][i] = joined(whole.out[j][i], part.out[j][i], f[i / 2]);
      begin = end;
    }
  } else {
    attendTiles(0, last, whole);
  }
  return whole;
}

// Element pairs of 16 rows in the fragment layout, to their places in shared memory.
template <int kOut, class T, int kDim>
__device__ __forceinline__ void stageRows(const float (&x)[kOut / 8][4], SharedRows<T, kDim> to, int column) {
  const int lane = laneOf(), g = lane / 4, t = lane % 4;
#pragma unroll
  for (int j = 0; j < kOut / 8; j++)
#pragma unroll
    for (int i = 0; i < 2; i++) {
      T* at = to.at(g + 8 * i, column + 8 * j + 2 * t);
      if constexpr (sizeof(T) == 2)
        *reinterpret_cast<uint32_t*>(at) = narrow2<T>(x[j][2 * i], x[j][2 * i + 1]);
      else
        *reinterpret_cast<float2*>(at) = make_float2(x[j][2 * i], x[j][2 * i + 1]);
    }
}

// Columns column .. column + kOut - 1 of the first `count` of 16 rows go to rows of headDim elements,
// `stride` elements apart, by one warp, which had them staged.
template <int kOut, class T, int kDim>
__device__ __forceinline__ void writeRows(SharedRows<T, kDim> from, int column, T* to, int64_t stride,
                                          int count, int headDim) {
  __syncwarp();
  constexpr int kVector = SharedRows<T, kDim>::kVector, kEach = kOut / kVector;
  if (headDim % kVector != 0 || !isAligned16(to)) {
#pragma unroll 1
    for (int i = laneOf(); i < 16 * kOut; i += 32) {
      const int row = i / kOut, at = column + i % kOut;
      if (row < count && at < headDim) to[row * stride + at] = *from.at(row, at);
    }
    return;
  }
#pragma unroll
  for (int i = laneOf(); i < 16 * kEach; i += 32) {
    const int row = i / kEach, at = column + i % kEach * kVector;
    if (row < count && at < headDim) Pack<T>::load(from.at(row, at)).store(to + row * stride + at);
  }
}

}  // namespace isopolicy::cuda
