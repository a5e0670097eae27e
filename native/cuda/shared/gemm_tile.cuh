// What every tile of a product shares: what is multiplied, the order of tiles, pieces of k and how their sums
// are added, and how a result is finished.
//
// The order of an element's sum is that of its tile's accumulate(): a chain over the steps of k in ascending
// order (two in the rollout family, of the even and of the odd steps, joined at the end), k padded with zeros
// to whole pairs of steps, each piece of splitK a chain of its own. It is the same in every tile, so that a
// tile's size may be chosen by m and n. A step is one k in fp32 and 16 k in 16 bits.
#pragma once
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {

// C = op(A) op(B) (+ bias) (+ addend), as a tile sees it: GemmArgs without the batch.
template <class T>
struct Product {
  const T* a;
  const T* b;
  const T* bias;        // [n] or null
  const float* addend;  // [m, n] or null; may be C
  void* c;
  int64_t lda, ldb, ldc, ldAddend;
  int m, n, k;
  int splitK;               // length of a piece; k where there is one only
  bool alignedA, alignedB;  // 16 bytes at a time can be loaded (loadsVectors below)
  bool wide;                // C is fp32
};

// Whether an operand can be loaded by 16 bytes: every row and, along k, every piece of k begins at a multiple
// of 16 bytes. `step`: the elements from one matrix of a batch to the next, or 0.
template <class T>
bool loadsVectors(const T* data, int64_t ld, int64_t step, bool alongK, int64_t piece) {
  constexpr int64_t kSize = Pack<T>::kSize;
  return isAligned16(data) && ld % kSize == 0 && step % kSize == 0 && (!alongK || piece % kSize == 0);
}

// The tile of that number. Blocks that run at the same time are to share rows of A and columns of B in L2:
// bands of 8 tiles of rows, column by column.
struct TileAt {
  int m, n;
};
__device__ __forceinline__ TileAt tileAt(unsigned number, int tilesM, int tilesN) {
  constexpr unsigned kBand = 8;
  const unsigned ofBand = kBand * unsigned(tilesN), band = number / ofBand, within = number % ofBand;
  const unsigned first = band * kBand, height = min(kBand, unsigned(tilesM) - first);
  return {int(first + within % height), int(within / height)};
}

// A walk over k by steps of a tile that never cross from a piece to the next.
struct Pieces {
  int k, pieceEnd, end, length;

  __device__ __forceinline__ Pieces(int begin, int end, int length)
      : k(begin), pieceEnd(after(begin, end, length)), end(end), length(length) {}
  __device__ __forceinline__ bool done() const { return k >= end; }
  __device__ __forceinline__ int left() const { return pieceEnd - k; }
  __device__ __forceinline__ void advance(int step) {
    k += step;
    if (k >= pieceEnd) {
      k = pieceEnd;
      pieceEnd = after(k, end, length);
    }
  }

 private:
  static __device__ __forceinline__ int after(int begin, int end, int length) {
    return end - begin < length ? end : begin + length;
  }
};

// What a thread holds of a tile: groups of 4 values.
template <int kGroups>
using Sums = float[kGroups][4];

// Joins the chains: their sum goes to chain 0, all are empty then but that.
template <int kChains, int kGroups>
__device__ __forceinline__ void joinChains(Sums<kGroups> (&chains)[kChains]) {
  if constexpr (kChains == 2) {
#pragma unroll
    for (int g = 0; g < kGroups; g++) {
#pragma unroll
      for (int i = 0; i < 4; i++) chains[0][g][i] += chains[1][g][i];
    }
  }
}

template <int kChains, int kGroups>
__device__ __forceinline__ void clearChains(Sums<kGroups> (&chains)[kChains]) {
#pragma unroll
  for (int c = 0; c < kChains; c++) {
#pragma unroll
    for (int g = 0; g < kGroups; g++) {
#pragma unroll
      for (int i = 0; i < 4; i++) chains[c][g][i] = 0.0f;
    }
  }
}

// The sum over the pieces so far, in shared memory that each thread uses for its own values alone (the
// chains fill the registers). add() ends a piece that others follow, addTo() the last one.
template <int kThreads>
struct Totals {
  float4* own;
  bool empty = true;

  __device__ __forceinline__ explicit Totals(void* shared)
      : own(static_cast<float4*>(shared) + threadIdx.x) {}
  template <int kGroups>
  __device__ __forceinline__ void add(Sums<kGroups>& sums) {
    addTo(sums);
#pragma unroll
    for (int g = 0; g < kGroups; g++)
      own[g * kThreads] = make_float4(sums[g][0], sums[g][1], sums[g][2], sums[g][3]);
    empty = false;
  }
  template <int kGroups>
  __device__ __forceinline__ void addTo(Sums<kGroups>& sums) const {
    if (empty) return;
#pragma unroll
    for (int g = 0; g < kGroups; g++) {
      const float4 before = own[g * kThreads];
      sums[g][0] = before.x + sums[g][0];
      sums[g][1] = before.y + sums[g][1];
      sums[g][2] = before.z + sums[g][2];
      sums[g][3] = before.w + sums[g][3];
    }
  }
};

// Where the blocks of a tile, one a piece of k, meet: the last one to arrive adds all their sums in the order
// of the pieces. With one piece there is one block, and no meeting.
struct Meeting {
  float4* partials = nullptr;   // [pieces][kGroups][kThreads] of this tile
  unsigned* arrived = nullptr;  // 0 before and after
  int piece = 0, pieces = 1;
};

// True in the block that has the total; `used(g)` tells which groups have values that matter.
template <int kThreads, int kGroups, class Used>
__device__ __forceinline__ bool meet(const Meeting& meeting, Sums<kGroups>& sums, Used used) {
  constexpr int kPiece = kGroups * kThreads;
  float4* own = meeting.partials + int64_t(meeting.piece) * kPiece + threadIdx.x;
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
    if (used(g)) own[g * kThreads] = make_float4(sums[g][0], sums[g][1], sums[g][2], sums[g][3]);
  }
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    last = atomicAdd(meeting.arrived, 1u) == unsigned(meeting.pieces - 1);
    if (last) *meeting.arrived = 0;
  }
  __syncthreads();
  if (!last) return false;
  __threadfence();
#pragma unroll
  for (int g = 0; g < kGroups; g++) {
    if (!used(g)) continue;
    const float4* from = meeting.partials + g * kThreads + threadIdx.x;
    float4 total = from[0];
#pragma unroll 4
    for (int piece = 1; piece < meeting.pieces; piece++) {
      const float4 next = from[int64_t(piece) * kPiece];
      total = make_float4(total.x + next.x, total.y + next.y, total.z + next.z, total.w + next.w);
    }
    sums[g][0] = total.x;
    sums[g][1] = total.y;
    sums[g][2] = total.z;
    sums[g][3] = total.w;
  }
  return true;
}

// kCount neighbours of a row (8, or 4), of which those before `count` exist: 16 bytes at a time where they
// lie so.
template <int kCount, class T>
__device__ __forceinline__ void addFrom(const T* from, int count, float (&values)[kCount]) {
  float others[kCount] = {};
  if (count >= kCount && kCount % Pack<T>::kSize == 0 && isAligned16(from)) {
    if constexpr (kCount % Pack<T>::kSize == 0) loadWide<kCount>(from, others);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i++) {
      if (i < count) others[i] = widen(from[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kCount; i++) values[i] = values[i] + others[i];
}
template <int kCount, class T>
__device__ __forceinline__ void storeTo(T* to, int count, const float (&values)[kCount]) {
  if (count >= kCount && kCount % Pack<T>::kSize == 0 && isAligned16(to)) {
    if constexpr (kCount % Pack<T>::kSize == 0) storeNarrow<kCount>(to, values);
  } else {
#pragma unroll
    for (int i = 0; i < kCount; i++) {
      if (i < count) to[i] = narrow<T>(values[i]);
    }
  }
}

// Bias, addend, one rounding: the sums of C[row, column ...], of which some may lie outside of C.
template <int kCount, class T>
__device__ __forceinline__ void finishRow(const Product<T>& p, int row, int column, float (&values)[kCount]) {
  const int count = p.n - column;
  if (row >= p.m || count <= 0) return;
  if (p.bias != nullptr) addFrom(p.bias + column, count, values);
  if (p.addend != nullptr) addFrom(p.addend + row * p.ldAddend + column, count, values);
  if (p.wide || std::is_same_v<T, float>) {
    storeTo(static_cast<float*>(p.c) + row * p.ldc + column, count, values);
  } else {
    storeTo(static_cast<T*>(p.c) + row * p.ldc + column, count, values);
  }
}

// One tile of a product; the whole block takes part, with Tile::kThreads threads and Tile::sharedBytes() of
// dynamic shared memory. With a meeting the block has one piece of k, otherwise all of them.
template <class Tile, bool kTransposeA, bool kTransposeB, class T>
__device__ __forceinline__ void multiplyTile(const Product<T>& p, TileAt at, const Meeting& meeting = {}) {
  const bool meets = Tile::kMeets && meeting.pieces > 1;
  const int begin = meets ? meeting.piece * p.splitK : 0;
  const int end = meets && p.k - begin > p.splitK ? begin + p.splitK : p.k;
  Sums<Tile::kGroups> sums[Tile::kChains];
  Tile::template accumulate<kTransposeA, kTransposeB>(p, at, Pieces(begin, end, p.splitK), sums);
  if constexpr (Tile::kMeets) {
    const auto used = [&](int group) { return Tile::rowOf(at, group) < p.m; };
    if (meets && !meet<Tile::kThreads>(meeting, sums[0], used)) return;
  }
  Tile::finish(p, at, sums[0]);
}

}  // namespace isopolicy::cuda
