// Tiles of products of 16-bit numbers, by mma.sync (capability 80 and later).
//
// A queue of kStages tiles of A and B in shared memory is filled by cp.async, several tiles ahead; a warp
// loads the fragments of the next step by ldmatrix while it multiplies those of this one. Chunks of 16 bytes
// are swizzled, so that neither the copies nor ldmatrix meet bank conflicts.
#pragma once
#include "cuda/shared/gemm_tile.cuh"

namespace isopolicy::cuda {

// A tile of an operand in shared memory: kOuter rows (of A) or columns (of B) by kDepth of k, as it lies in
// global memory: rows along k, or (kAcross) rows of neighbours in the other dimension.
template <bool kAcross, int kOuter, int kDepth, int kThreads>
struct OperandTile {
  static constexpr int kRows = kAcross ? kDepth : kOuter;
  static constexpr int kChunks = (kAcross ? kOuter : kDepth) / 8;  // of 8 elements, in a row
  static constexpr int kBytes = kOuter * kDepth * 2;
  static constexpr int kRowStep = kThreads / kChunks;
  static_assert(kThreads % kChunks == 0 && kChunks % 4 == 0);

  // Eight rows of the same chunk lie in different banks.
  static __device__ __forceinline__ int offsetOf(int row, int chunk) {
    const int turn = kChunks >= 8 ? row & 7 : row >> 1 & 3;
    return (row * kChunks + (chunk ^ turn)) * 16;
  }

  // What a thread copies of each tile: chunks of kRowStep-th rows.
  template <class T>
  struct Source {
    const T* from;  // this thread's first chunk at k = 0
    int64_t ld;
    int row, chunk;  // of that chunk in the tile
    int outerLeft;   // rows and columns from that chunk's on that exist
    bool aligned;

    __device__ __forceinline__ Source(const T* data, int64_t ld, int first, int count, bool aligned)
        : ld(ld), row(int(threadIdx.x) / kChunks), chunk(int(threadIdx.x) % kChunks), aligned(aligned) {
      const int outer = first + (kAcross ? chunk * 8 : row);
      from = kAcross ? data + row * ld + outer : data + outer * ld + chunk * 8;
      outerLeft = count - outer;
    }

    // Begins to copy the tile from `k` on, of which `left` exist; beyond are zeros.
    template <bool kAnyAlignment>
    __device__ __forceinline__ void copy(unsigned char* tile, int k, int left) const {
      const T* at = from + (kAcross ? k * ld : k);
#pragma unroll
      for (int i = 0; i * kRowStep < kRows; i++, at += kRowStep * ld) {
        const int r = row + i * kRowStep;
        if (kRows % kRowStep != 0 && r >= kRows) break;
        const bool rowExists = kAcross ? r < left : i * kRowStep < outerLeft;
        const int inRow = kAcross ? outerLeft : left - chunk * 8;
        const int elements = rowExists ? max(0, min(8, inRow)) : 0;
        void* to = tile + offsetOf(r, chunk);
        if (!kAnyAlignment || aligned) {
          copyAsync<16>(to, at, elements * 2);
        } else {
          uint32_t words[4] = {};
#pragma unroll
          for (int j = 0; j < 8; j++) {
            if (j < elements) words[j / 2] |= uint32_t(at[j].bits) << j % 2 * 16;
          }
          *static_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
        }
      }
    }
  };

  // Fragments of 16 k, from step `step` of the tile: for rows `outer` to outer + 15 as operand A of mma ...
  static __device__ __forceinline__ void fragmentA(uint32_t (&to)[4], const unsigned char* tile, int outer,
                                                   int step) {
    const int lane = int(threadIdx.x) % 32, r = lane % 8, low = lane / 8 % 2, high = lane / 16;
    const int at = kAcross ? offsetOf(step * 16 + high * 8 + r, outer / 8 + low)
                           : offsetOf(outer + low * 8 + r, step * 2 + high);
    ldmatrix<kAcross>(to, tile + at);
  }
  // ... and for columns `outer` to outer + 8 kCount - 1 as operand B of kCount ones: to[2 i] and to[2 i + 1].
  template <int kCount>
  static __device__ __forceinline__ void fragmentsB(uint32_t (&to)[2 * kCount], const unsigned char* tile,
                                                    int outer, int step) {
    const int lane = int(threadIdx.x) % 32, r = lane % 8, low = lane / 8 % 2, high = lane / 16;
    const int at = kAcross ? offsetOf(step * 16 + low * 8 + r, outer / 8 + (kCount == 2 ? high : 0))
                           : offsetOf(outer + (kCount == 2 ? high * 8 : 0) + r, step * 2 + low);
    ldmatrix<kAcross>(to, tile + at);
  }
};

struct MmaShape {
  int m, n, k;         // of the tile
  int warpsM, warpsN;  // that share it
  int stages;          // of the queue
  int blocks;          // a multiprocessor, at least: bounds the registers
  bool meets = false;  // its blocks may have a piece of k each
  bool anyAlignment = false;
};

// kChains as in gemm_tile.cuh; 2 of them double the registers of sums.
template <class T, int kChains_, MmaShape kShape>
struct MmaTile {
  static constexpr int kM = kShape.m, kN = kShape.n, kK = kShape.k, kStages = kShape.stages;
  static constexpr int kChains = kChains_;
  static constexpr int kWarps = kShape.warpsM * kShape.warpsN, kThreads = 32 * kWarps;
  static constexpr int kBlocks = kShape.blocks;
  static constexpr bool kAnyAlignment = kShape.anyAlignment, kMeets = kShape.meets;
  static constexpr int kWarpM = kM / kShape.warpsM, kWarpN = kN / kShape.warpsN;
  static constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;  // of an mma
  static constexpr int kGroups = kTilesM * kTilesN;
  static constexpr int kSteps = kK / 16;
  static constexpr int kStageBytes = (kM + kN) * kK * 2;
  // The staging of results: 16 rows a warp, padded so that the lanes' pairs lie in different banks.
  static constexpr int kStride = kWarpN + 8;
  static_assert(kWarpM % 16 == 0 && kWarpN % 8 == 0 && kSteps % 2 == 0 && kStages >= 2);
  static_assert(kWarps * 16 * kStride * 4 <= kStages * kStageBytes);

  static constexpr size_t sharedBytes(bool totals) {
    return size_t(kStages) * kStageBytes + (totals ? size_t(kM) * kN * 4 : 0);
  }

  static __device__ __forceinline__ int firstRow(TileAt at) {
    return at.m * kM + int(threadIdx.x) / 32 / kShape.warpsN * kWarpM;
  }
  static __device__ __forceinline__ int warpColumn() {
    return int(threadIdx.x) / 32 % kShape.warpsN * kWarpN;
  }
  // The first row of a group of sums; its other one is 8 below.
  static __device__ __forceinline__ int rowOf(TileAt at, int group) {
    return firstRow(at) + group / kTilesN * 16 + int(threadIdx.x) % 32 / 4;
  }

  template <bool kTransposeA, bool kTransposeB>
  static __device__ __forceinline__ void accumulate(const Product<T>& p, TileAt at, Pieces pieces,
                                                    Sums<kGroups> (&sums)[kChains]) {
    using TileA = OperandTile<kTransposeA, kM, kK, kThreads>;
    using TileB = OperandTile<!kTransposeB, kN, kK, kThreads>;
    unsigned char* const shared = dynamicShared();
    const typename TileA::template Source<T> sourceA(p.a, p.lda, at.m * kM, p.m, p.alignedA);
    const typename TileB::template Source<T> sourceB(p.b, p.ldb, at.n * kN, p.n, p.alignedB);
    const int warpRow = int(threadIdx.x) / 32 / kShape.warpsN * kWarpM, warpColumn = MmaTile::warpColumn();

    clearChains(sums);
    if (pieces.done()) return;
    Totals<kThreads> totals(shared + kStages * kStageBytes);

    Pieces ahead = pieces;  // what is copied
    const auto copyNext = [&](int stage) {
      if (!ahead.done()) {
        unsigned char* const tile = shared + stage * kStageBytes;
        sourceA.template copy<kAnyAlignment>(tile, ahead.k, ahead.left());
        sourceB.template copy<kAnyAlignment>(tile + TileA::kBytes, ahead.k, ahead.left());
        ahead.advance(kK);
      }
      copyCommit();
    };

    uint32_t a[2][kTilesM][4], b[2][kTilesN][2];
    const auto load = [&](int stage, int step) {
      const unsigned char* const tile = shared + stage * kStageBytes;
#pragma unroll
      for (int i = 0; i < kTilesM; i++) TileA::fragmentA(a[step % 2][i], tile, warpRow + i * 16, step);
      if constexpr (kTilesN % 2 == 0) {
#pragma unroll
        for (int j = 0; j < kTilesN; j += 2) {
          uint32_t pair[4];
          TileB::template fragmentsB<2>(pair, tile + TileA::kBytes, warpColumn + j * 8, step);
          b[step % 2][j][0] = pair[0], b[step % 2][j][1] = pair[1];
          b[step % 2][j + 1][0] = pair[2], b[step % 2][j + 1][1] = pair[3];
        }
      } else {
#pragma unroll
        for (int j = 0; j < kTilesN; j++)
          TileB::template fragmentsB<1>(b[step % 2][j], tile + TileA::kBytes, warpColumn + j * 8, step);
      }
    };

#pragma unroll
    for (int stage = 0; stage < kStages - 1; stage++) copyNext(stage);
    copyWait<kStages - 2>();
    __syncthreads();
    load(0, 0);
    int stage = 0, freeStage = kStages - 1;  // what is multiplied, what is filled next
    for (;;) {
#pragma unroll
      for (int step = 0; step < kSteps; step++) {
        if (step == kSteps - 1) {
          // The next tile is there, and every warp has read all of this one: it is free from here on.
          copyWait<kStages - 2>();
          __syncthreads();
          stage = stage + 1 == kStages ? 0 : stage + 1;
        }
        load(stage, (step + 1) % kSteps);
        if (step == 0) {
          copyNext(freeStage);
          freeStage = freeStage + 1 == kStages ? 0 : freeStage + 1;
        }
        // k is padded to pairs of steps, whatever the tile.
        if (step < 2 || step / 2 * 32 < pieces.left()) {
#pragma unroll
          for (int i = 0; i < kTilesM; i++) {
#pragma unroll
            for (int j = 0; j < kTilesN; j++) {
              mma<T>(sums[step % kChains][i * kTilesN + j], a[step % 2][i], b[step % 2][j][0],
                     b[step % 2][j][1]);
            }
          }
        }
      }
      const bool endsPiece = pieces.left() <= kK;
      pieces.advance(kK);
      if (pieces.done()) break;
      if (endsPiece) {
        joinChains(sums);
        totals.add(sums[0]);
        clearChains(sums);
      }
    }
    joinChains(sums);
    totals.addTo(sums[0]);
  }

  // Through shared memory, so that lanes store neighbours: each warp 16 rows at a time, 8 columns a lane.
  static __device__ __forceinline__ void finish(const Product<T>& p, TileAt at, const Sums<kGroups>& sums) {
    constexpr int kLanes = kWarpN / 8, kRows = 32 / kLanes;  // of a row, at a time
    const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
    float* const staged = reinterpret_cast<float*>(dynamicShared()) + warp * 16 * kStride;
    const int column = at.n * kN + warpColumn() + lane % kLanes * 8;
    __syncthreads();  // the last tile has been read
#pragma unroll
    for (int i = 0; i < kTilesM; i++) {
#pragma unroll
      for (int j = 0; j < kTilesN; j++) {
        const float* s = sums[i * kTilesN + j];
        float* to = staged + lane / 4 * kStride + j * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(to) = make_float2(s[0], s[1]);
        *reinterpret_cast<float2*>(to + 8 * kStride) = make_float2(s[2], s[3]);
      }
      __syncwarp();
#pragma unroll
      for (int first = 0; first < 16; first += kRows) {
        const int row = first + lane / kLanes;
        if (row >= 16) break;
        float values[8];
        loadWide<8>(staged + row * kStride + lane % kLanes * 8, values);
        finishRow(p, firstRow(at) + i * 16 + row, column, values);
      }
      __syncwarp();
    }
  }
};

}  // namespace isopolicy::cuda
