// Tiles of products of fp32 numbers, by fused multiply-adds of the threads: no tensor core keeps fp32.
//
// Two buffers in shared memory, k by k, whatever the transposes; the next tile comes through registers while
// this one is multiplied. Limited by the multiply-adds: 64 for every 4 loads of 16 bytes in the largest tile.
#pragma once
#include "cuda/shared/gemm_tile.cuh"

namespace isopolicy::cuda {

// What a thread loads of each tile of an operand, and where it puts it: at [k][row or column].
template <bool kAcross, int kOuter, int kDepth, int kThreads>
struct SimtOperand {
  static constexpr int kStride = kOuter + 4;  // 16 bytes aligned, other banks for other k
  static constexpr int kChunks = (kAcross ? kOuter : kDepth) / 4, kRows = kAcross ? kDepth : kOuter;
  static constexpr int kRowStep = kThreads / kChunks;
  static constexpr int kLoads = (kRows + kRowStep - 1) / kRowStep;
  static_assert(kThreads % kChunks == 0);

  const float* from;
  int64_t ld;
  int row, chunk, outerLeft;
  bool aligned;
  float4 loaded[kLoads];

  __device__ __forceinline__ SimtOperand(const float* data, int64_t ld, int first, int count, bool aligned)
      : ld(ld), row(int(threadIdx.x) / kChunks), chunk(int(threadIdx.x) % kChunks), aligned(aligned) {
    const int outer = first + (kAcross ? chunk * 4 : row);
    from = kAcross ? data + row * ld + outer : data + outer * ld + chunk * 4;
    outerLeft = count - outer;
  }
  __device__ __forceinline__ void load(int k, int left) {
    const float* begin = from + (kAcross ? k * ld : k);
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      const float* at = begin + i * kRowStep * ld;
      const bool rowExists = kAcross ? row + i * kRowStep < min(left, kRows)
                                     : i * kRowStep < outerLeft && row + i * kRowStep < kRows;
      const int inRow = rowExists ? (kAcross ? outerLeft : left - chunk * 4) : 0;
      float4& to = loaded[i];
      if (aligned && inRow >= 4) {
        to = *reinterpret_cast<const float4*>(at);
      } else {
        to.x = inRow > 0 ? at[0] : 0.0f;
        to.y = inRow > 1 ? at[1] : 0.0f;
        to.z = inRow > 2 ? at[2] : 0.0f;
        to.w = inRow > 3 ? at[3] : 0.0f;
      }
    }
  }
  __device__ __forceinline__ void store(float* tile) const {
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      const int r = row + i * kRowStep;
      if (kRows % kRowStep != 0 && r >= kRows) break;
      if constexpr (kAcross) {
        *reinterpret_cast<float4*>(tile + r * kStride + chunk * 4) = loaded[i];
      } else {
        float* to = tile + chunk * 4 * kStride + r;
        to[0] = loaded[i].x;
        to[kStride] = loaded[i].y;
        to[2 * kStride] = loaded[i].z;
        to[3 * kStride] = loaded[i].w;
      }
    }
  }
};

struct SimtShape {
  int m, n, k;           // of the tile
  int threadM, threadN;  // of a thread
  int blocks;            // a multiprocessor, at least: bounds the registers
  bool meets = false;    // its blocks may have a piece of k each
};

template <int kChains_, SimtShape kShape>
struct SimtTile {
  static constexpr int kM = kShape.m, kN = kShape.n, kK = kShape.k, kChains = kChains_;
  static constexpr int kThreadM = kShape.threadM, kThreadN = kShape.threadN;
  static constexpr int kBlocks = kShape.blocks;
  static constexpr bool kMeets = kShape.meets;
  static constexpr int kAcross = kN / kThreadN, kThreads = kAcross * (kM / kThreadM);
  // Rows of a thread lie in runs, as do its columns, the runs far apart: lanes then read neighbours.
  static constexpr int kRun = kThreadM < 4 ? kThreadM : 4;
  static constexpr int kRunsM = kThreadM / kRun, kRunsN = kThreadN / 4;
  static constexpr int kGroups = kThreadM * kRunsN;
  static_assert(kThreadN % 4 == 0 && kThreadM % kRun == 0 && kK % 4 == 0);
  using PlainA = SimtOperand<false, kM, kK, kThreads>;
  using PlainB = SimtOperand<false, kN, kK, kThreads>;
  static constexpr int kTileFloats = (PlainA::kStride + PlainB::kStride) * kK;

  static constexpr size_t sharedBytes(bool totals) {
    return size_t(2) * kTileFloats * 4 + (totals ? size_t(kM) * kN * 4 : 0);
  }

  static __device__ __forceinline__ int rowInTile(int i) {
    return i / kRun * (kM / kRunsM) + int(threadIdx.x) / kAcross * kRun + i % kRun;
  }
  static __device__ __forceinline__ int columnInTile(int run) {
    return run * (kN / kRunsN) + int(threadIdx.x) % kAcross * 4;
  }
  static __device__ __forceinline__ int rowOf(TileAt at, int group) {
    return at.m * kM + rowInTile(group / kRunsN);
  }

  template <bool kTransposeA, bool kTransposeB>
  static __device__ __forceinline__ void accumulate(const Product<float>& p, TileAt at, Pieces pieces,
                                                    Sums<kGroups> (&sums)[kChains]) {
    using OperandA = SimtOperand<kTransposeA, kM, kK, kThreads>;
    using OperandB = SimtOperand<!kTransposeB, kN, kK, kThreads>;
    float* const shared = reinterpret_cast<float*>(dynamicShared());
    OperandA operandA(p.a, p.lda, at.m * kM, p.m, p.alignedA);
    OperandB operandB(p.b, p.ldb, at.n * kN, p.n, p.alignedB);
    clearChains(sums);
    if (pieces.done()) return;
    Totals<kThreads> totals(shared + 2 * kTileFloats);

    Pieces ahead = pieces;
    int buffer = 0;
    const auto loadNext = [&] {
      operandA.load(ahead.k, ahead.left());
      operandB.load(ahead.k, ahead.left());
      ahead.advance(kK);
    };
    const auto storeNext = [&](int to) {
      operandA.store(shared + to * kTileFloats);
      operandB.store(shared + to * kTileFloats + OperandA::kStride * kK);
    };
    loadNext();
    storeNext(0);
    __syncthreads();
    for (;;) {
      const bool more = !ahead.done();
      if (more) loadNext();
      const float* const tileA = shared + buffer * kTileFloats;
      const float* const tileB = tileA + OperandA::kStride * kK;
      // k is padded to pairs of steps, whatever the tile.
      const int steps = min(kK, (pieces.left() + 1) / 2 * 2);
#pragma unroll 4
      for (int pair = 0; pair < steps; pair += 2) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
          float a[kThreadM], b[kThreadN];
          readRun<kRun, kRunsM>(a, tileA + (pair + step) * OperandA::kStride + rowInTile(0), kM / kRunsM);
          readRun<4, kRunsN>(b, tileB + (pair + step) * OperandB::kStride + columnInTile(0), kN / kRunsN);
#pragma unroll
          for (int i = 0; i < kThreadM; i++) {
#pragma unroll
            for (int j = 0; j < kThreadN; j++) {
              float& sum = sums[step % kChains][i * kRunsN + j / 4][j % 4];
              sum = fmaf(a[i], b[j], sum);
            }
          }
        }
      }
      const bool endsPiece = pieces.left() <= kK;
      pieces.advance(kK);
      if (!more) break;
      if (endsPiece) {
        joinChains(sums);
        totals.add(sums[0]);
        clearChains(sums);
      }
      buffer ^= 1;
      storeNext(buffer);
      __syncthreads();
    }
    joinChains(sums);
    totals.addTo(sums[0]);
  }

  static __device__ __forceinline__ void finish(const Product<float>& p, TileAt at, Sums<kGroups>& sums) {
#pragma unroll
    for (int g = 0; g < kGroups; g++)
      finishRow(p, rowOf(at, g), at.n * kN + columnInTile(g % kRunsN), sums[g]);
  }

 private:
  template <int kLength, int kRuns, int kCount>
  static __device__ __forceinline__ void readRun(float (&to)[kCount], const float* from, int distance) {
#pragma unroll
    for (int run = 0; run < kRuns; run++) {
      if constexpr (kLength == 4) {
        const float4 v = *reinterpret_cast<const float4*>(from + run * distance);
        to[run * 4] = v.x, to[run * 4 + 1] = v.y, to[run * 4 + 2] = v.z, to[run * 4 + 3] = v.w;
      } else {
#pragma unroll
        for (int i = 0; i < kLength; i++) to[run * kLength + i] = from[run * distance + i];
      }
    }
  }
};

}  // namespace isopolicy::cuda
