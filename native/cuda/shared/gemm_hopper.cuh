// Tiles of products of 16-bit numbers by wgmma (capability 90a).
//
// A block is one warpgroup that fetches and one or two that multiply. A queue of stages in shared memory lies
// between them: one thread of the first has TMA fill stages as they become free, so that the memory's latency
// and the results' way out are hidden behind the products of other stages. The grid is as large as the GPU;
// every block (every cluster) takes each so many-th tile.
//
// An operand that lies along k is taken K-major, one that lies across it MN-major: nothing is transposed on
// the way. Beyond the edges of a matrix TMA brings zeros.
#pragma once
#include "cuda/shared/kernel.cuh"
#include "cuda/shared/ptx_hopper.cuh"

namespace isopolicy::cuda {

constexpr int kMostSlabs = 4;  // of 64 k in a stage

struct HopperShape {
  int groupsM, groupsN;  // warpgroups that multiply, side by side; each has 64 rows
  int n;                 // columns of each
  int slabs;             // of a stage
  int cluster = 1;       // blocks, one below the other, that share what they fetch of B
};

// C = op(A) op(B) (+ bias) (+ addend), matrix by matrix of a batch.
struct HopperProduct {
  CUtensorMap a, b;
  CUtensorMap c;        // where `staged`
  const void* bias;     // [n] or null
  const float* addend;  // or null; may be C
  void* to;
  int64_t ldc, strideC, ldAddend, strideAddend;
  int m, n;
  int matrices, tilesM, tilesN;  // tilesM counts those of a cluster as one
  bool sharedA, sharedB;         // one matrix for the whole batch
  int blocks, blocksAPiece;      // stages of k, and those of a piece of splitK
  int pieces;                    // tiles of C that are computed apart, one a piece, and then added; or 1
  int rowsA;                     // of A in a stage: fewer than the tile's 64 where C has so few
  int stages;
  bool wide;    // C is fp32
  bool staged;  // C goes out by TMA
  bool padded;  // k, in some tile if not in this one
  bool paired;  // pairs of columns of C, bias and addend lie at multiples of their size
  // Where pieces > 1: sums of [tile][piece][group of 4][thread], and how many blocks of a tile have come.
  float4* partials;
  unsigned* arrived;
};

// Two neighbours of a row, of which `count` (not 0) exist; `paired`: they lie so that one access has both.
template <class T>
__device__ __forceinline__ float2 loadPair(const T* from, int count, bool paired) {
  if (paired && count >= 2) {
    if constexpr (sizeof(T) == 4)
      return *reinterpret_cast<const float2*>(from);
    else
      return widen2<T>(*reinterpret_cast<const uint32_t*>(from));
  }
  return make_float2(widen(from[0]), count >= 2 ? widen(from[1]) : 0.0f);
}
template <class T>
__device__ __forceinline__ void storePair(T* to, int count, bool paired, float x, float y) {
  if (paired && count >= 2) {
    if constexpr (sizeof(T) == 4)
      *reinterpret_cast<float2*>(to) = make_float2(x, y);
    else
      *reinterpret_cast<uint32_t*>(to) = narrow2<T>(x, y);
    return;
  }
  to[0] = narrow<T>(x);
  if (count >= 2) to[1] = narrow<T>(y);
}

// kChains as in gemm_tile.cuh. kAcrossA: A is stored [k, m]; kAcrossB: B is stored [k, n].
template <class T_, int kChains_, HopperShape kShape, bool kAcrossA_ = false, bool kAcrossB_ = false>
struct HopperTile {
  using T = T_;
  static constexpr int kChains = kChains_;
  static constexpr bool kAcrossA = kAcrossA_, kAcrossB = kAcrossB_;
  static constexpr int kM = 64 * kShape.groupsM, kGroupN = kShape.n, kN = kGroupN * kShape.groupsN;
  static constexpr int kCluster = kShape.cluster, kSlabs = kShape.slabs, kK = 64 * kSlabs;
  static constexpr int kGroups = kShape.groupsM * kShape.groupsN;
  static constexpr int kWarps = 4 * kGroups, kMathThreads = 32 * kWarps, kThreads = kMathThreads + 128;
  static constexpr int kSlabBytes = 128;                   // of a row: 64 elements
  static constexpr int kSquareBytes = 64 * kSlabBytes;     // 64 x 64 elements, one TMA box across k
  static constexpr bool kFewRows = kM == 64 && !kAcrossA;  // may leave rows of A away
  static constexpr bool kStages = kGroupN % 64 == 0;       // C may go out by TMA
  // A warp's results on their way out: 16 rows of 128 bytes, two of them so that one is written while the
  // other is read.
  static constexpr int kStagingBytes = kStages ? kWarps * 2 * 16 * 128 : 0;
  // Several pieces of k are added in registers, which the largest tile has none left for.
  static constexpr bool kSums = kGroupN < 256;
  static_assert(kSums || kChains == 1);
  static_assert(kGroups == 1 || kGroups == 2);
  static_assert(kMostSlabs % kSlabs == 0);
  static_assert(!kAcrossB || kGroupN % 64 == 0);
  static_assert(kCluster == 1 || (kM == 128 && kN / kCluster % 64 == 0));

  static constexpr __host__ __device__ int stageBytes(int rowsA) {
    return (rowsA + kN) * kSlabs * kSlabBytes;
  }
  static constexpr int kMostStages = 16;
  // Behind the queue and the staging: two mbarriers a stage, and a word.
  static constexpr size_t sharedBytes(int rowsA, int stages) {
    return size_t(stages) * stageBytes(rowsA) + kStagingBytes + 2 * 8 * kMostStages + 16;
  }

  // ---- what there is to do ----

  struct Work {
    int m, n, matrix;  // tile
    int tile, piece;   // its number in the batch
    int block, end;    // stages of k
  };
  static __device__ __forceinline__ int countOf(const HopperProduct& p) {
    return p.pieces * p.matrices * p.tilesM * p.tilesN;
  }
  static __device__ __forceinline__ Work workAt(const HopperProduct& p, int number, int rank) {
    // Blocks that run at the same time are to share rows of A and columns of B in L2: bands of about as many
    // rows as the columns that all of them have together.
    constexpr int kBand = (kN >= 256 ? 16 : 12) / kCluster;
    Work w;
    const int tiles = p.tilesM * p.tilesN;
    w.piece = number / (tiles * p.matrices);
    w.tile = number % (tiles * p.matrices);
    w.matrix = w.tile / tiles;
    const int within = w.tile % tiles, ofBand = kBand * p.tilesN, band = within / ofBand,
              at = within % ofBand;
    const int height = min(kBand, p.tilesM - band * kBand);
    w.m = (band * kBand + at % height) * kCluster + rank;
    w.n = at / height;
    w.block = w.piece * p.blocksAPiece;
    w.end = p.pieces > 1 ? min(w.block + p.blocksAPiece, p.blocks) : p.blocks;
    return w;
  }

  // ---- the queue ----

  struct Queue {
    unsigned char* shared;
    uint64_t *full, *empty;
    int rowsA, stages;
    int stage = 0;
    unsigned parity = 0;

    __device__ __forceinline__ Queue(unsigned char* shared, const HopperProduct& p)
        : shared(shared), rowsA(kFewRows ? p.rowsA : kM), stages(p.stages) {
      full = reinterpret_cast<uint64_t*>(shared + stages * stageBytes(rowsA) + kStagingBytes);
      empty = full + kMostStages;
    }
    __device__ __forceinline__ unsigned char* a() const { return shared + stage * stageBytes(rowsA); }
    __device__ __forceinline__ unsigned char* b() const { return a() + rowsA * kSlabs * kSlabBytes; }
    __device__ __forceinline__ void advance() {
      if (++stage == stages) stage = 0, parity ^= 1;
    }
  };

  // One thread: has TMA fill stages.
  static __device__ __forceinline__ void fetch(const HopperProduct& p, Queue queue, int first, int step,
                                               int rank) {
    const int works = countOf(p);
    for (int number = first; number < works; number += step) {
      const Work w = workAt(p, number, rank);
      const int matrixA = p.sharedA ? 0 : w.matrix, matrixB = p.sharedB ? 0 : w.matrix;
      for (int block = w.block; block < w.end; block++) {
        mbarrierWait(queue.empty + queue.stage, queue.parity ^ 1);
        fetchStage(p, queue, {block * kK, w.m * kM, w.n * kN, matrixA, matrixB}, rank);
        queue.advance();
      }
    }
  }
  // What a stage holds: from which k on, of which rows of A and columns of B.
  struct Place {
    int k, row, column, matrixA, matrixB;
  };
  static __device__ __forceinline__ void fetchStage(const HopperProduct& p, const Queue& queue, Place place,
                                                    int rank) {
    uint64_t* const full = queue.full + queue.stage;
    mbarrierArriveExpect(full, unsigned(stageBytes(queue.rowsA)));
#pragma unroll
    for (int slab = 0; slab < kSlabs; slab++) {
      const int k = place.k + slab * 64;
      unsigned char* const a = queue.a() + slab * queue.rowsA * kSlabBytes;
      unsigned char* const b = queue.b() + slab * kN * kSlabBytes;
      if constexpr (kAcrossA) {
#pragma unroll
        for (int i = 0; i < kM / 64; i++)
          tmaLoad(a + i * kSquareBytes, p.a, place.row + i * 64, k, place.matrixA, full);
      } else {
        tmaLoad(a, p.a, k, place.row, place.matrixA, full);
      }
      // Each block of a cluster fetches its share of B for all.
      constexpr int kShare = kN / kCluster;
      const int from = rank * kShare;
      if constexpr (kAcrossB) {
#pragma unroll
        for (int i = 0; i < kShare; i += 64)
          fetchB(b + (from + i) * kSlabBytes, p.b, place.column + from + i, k, place.matrixB, full);
      } else {
        fetchB(b + from * kSlabBytes, p.b, k, place.column + from, place.matrixB, full);
      }
    }
  }
  static __device__ __forceinline__ void fetchB(void* to, const CUtensorMap& map, int x, int y, int z,
                                                uint64_t* full) {
    if constexpr (kCluster == 1)
      tmaLoad(to, map, x, y, z, full);
    else
      tmaLoadMulticast(to, map, x, y, z, full, uint16_t((1 << kCluster) - 1));
  }

  // ---- a warpgroup that multiplies ----

  using Sums = float[kGroupN / 2];

  struct AsFetched {
    __device__ __forceinline__ void operator()(const Queue&, int) const {}
  };
  // Stages of k up to `end`, in chains that begin here. prepare(queue, block) may change a stage that is
  // there, before it is multiplied.
  template <class Prepare = AsFetched>
  static __device__ __forceinline__ void accumulatePiece(Queue& queue, int group, int& block, int end,
                                                         Sums (&chains)[kChains],
                                                         Prepare prepare = Prepare()) {
    const int lane = int(threadIdx.x) % 32;
    const uint32_t rowOffset = uint32_t(group / kShape.groupsN) * kSquareBytes;
    const uint32_t columnOffset = uint32_t(group % kShape.groupsN) * kGroupN * kSlabBytes;
    const auto release = [&](int stage) {
      if constexpr (kCluster == 1) {
        if (lane == 0) mbarrierArrive(queue.empty + stage);
      } else {
        if (lane < kCluster) mbarrierArriveAt(queue.empty + stage, unsigned(lane));
      }
    };
    int before = -1;  // the stage whose products are not known to be done
    for (; block < end; block++) {
      mbarrierWait(queue.full + queue.stage, queue.parity);
      prepare(queue, block);
      const uint64_t a =
          wgmmaDescriptor(smemAddress(queue.a()) + rowOffset, kSquareBytes, 1024, Swizzle::bytes128);
      const uint64_t b =
          wgmmaDescriptor(smemAddress(queue.b()) + columnOffset, kSquareBytes, 1024, Swizzle::bytes128);
      wgmmaFence();
#pragma unroll
      for (int step = 0; step < kK / 16; step++) {
        // The next 16 k of a slab: along k 32 bytes, across it 16 rows.
        const int slab = step / 4, within = step % 4;
        const uint64_t stepA = wgmmaAdvance(
            a, uint32_t(slab * queue.rowsA * kSlabBytes + within * (kAcrossA ? 16 * kSlabBytes : 32)));
        const uint64_t stepB =
            wgmmaAdvance(b, uint32_t(slab * kN * kSlabBytes + within * (kAcrossB ? 16 * kSlabBytes : 32)));
        wgmma<T, kGroupN, kAcrossA, kAcrossB>(chains[step % kChains], stepA, stepB,
                                              before >= 0 || step >= kChains);
      }
      wgmmaCommit();
      if (before >= 0) {
        wgmmaWait<1>();
        release(before);
      }
      before = queue.stage;
      queue.advance();
    }
    wgmmaWait<0>();
    release(before);
#pragma unroll
    for (int c = 0; c < kChains; c++) wgmmaDone(chains[c]);
  }

  // One piece of k after another; their sums are added in order.
  static __device__ __forceinline__ void accumulate(const HopperProduct& p, const Work& w, Queue& queue,
                                                    int group, Sums (&sums)[1]) {
    int block = w.block;
    if constexpr (!kSums) {
      accumulatePiece(queue, group, block, w.end, sums);
    } else {
      for (bool first = true; block < w.end; first = false) {
        Sums chains[kChains];
        // Written anyway; it tells the compiler that they hold nothing between pieces, else it runs out of
        // registers.
#pragma unroll
        for (int c = 0; c < kChains; c++) {
#pragma unroll
          for (int i = 0; i < kGroupN / 2; i++) chains[c][i] = 0.0f;
        }
        accumulatePiece(queue, group, block, min(block + p.blocksAPiece, w.end), chains);
#pragma unroll
        for (int i = 0; i < kGroupN / 2; i++) {
          const float sum = kChains == 2 ? chains[0][i] + chains[kChains - 1][i] : chains[0][i];
          sums[0][i] = first ? sum : sums[0][i] + sum;
        }
      }
    }
  }

  // Where the blocks of a tile, one a piece of k, meet: the last one to arrive adds all their sums in the
  // order of the pieces. True in that block.
  static __device__ __forceinline__ bool meet(const HopperProduct& p, const Work& w, int row, int* last,
                                              Sums& sums) {
    constexpr int kFours = kGroupN / 8;
    const int thread = int(threadIdx.x);
    const auto at = [&](int piece) {
      return p.partials + (int64_t(w.tile) * p.pieces + piece) * (kFours * kMathThreads) + thread;
    };
    const bool used = row < p.m;
    if (used) {
      float4* const own = at(w.piece);
#pragma unroll
      for (int j = 0; j < kFours; j++)
        own[j * kMathThreads] = make_float4(sums[4 * j], sums[4 * j + 1], sums[4 * j + 2], sums[4 * j + 3]);
    }
    __threadfence();
    barrierSync(1, kMathThreads);
    if (thread == 0) {
      *last = atomicAdd(p.arrived + w.tile, 1u) == unsigned(p.pieces - 1);
      if (*last) p.arrived[w.tile] = 0;
    }
    barrierSync(1, kMathThreads);
    const bool isLast = *last != 0;
    barrierSync(1, kMathThreads);  // read by all before the next tile's is written
    if (!isLast) return false;
    __threadfence();
    if (!used) return true;
    const float4* from = at(0);
#pragma unroll
    for (int j = 0; j < kFours; j++) {
      const float4 part = from[j * kMathThreads];
      sums[4 * j] = part.x, sums[4 * j + 1] = part.y, sums[4 * j + 2] = part.z, sums[4 * j + 3] = part.w;
    }
    for (int piece = 1; piece < p.pieces; piece++) {
      from += kFours * kMathThreads;
#pragma unroll
      for (int j = 0; j < kFours; j++) {
        const float4 part = from[j * kMathThreads];
        sums[4 * j] += part.x, sums[4 * j + 1] += part.y, sums[4 * j + 2] += part.z,
            sums[4 * j + 3] += part.w;
      }
    }
    return true;
  }

  // ---- the way out ----

  // Bias and addend; `row` and `column` are of this thread's first sum, `rows` those that C has.
  static __device__ __forceinline__ void finish(const HopperProduct& p, int matrix, int row, int column,
                                                int rows, Sums& sums) {
    // Tiles pad k with zeros by different lengths, and more zeros may make +0 of -0: then it is +0 in all.
    if (p.padded) {
#pragma unroll
      for (int i = 0; i < kGroupN / 2; i++) sums[i] += 0.0f;
    }
    const int count = p.n - column;
    if (p.bias != nullptr) {
      const T* const from = static_cast<const T*>(p.bias) + column;
#pragma unroll
      for (int j = 0; j < kGroupN / 8; j++) {
        if (8 * j >= count) break;
        const float2 pair = loadPair(from + 8 * j, count - 8 * j, p.paired);
        sums[4 * j] += pair.x, sums[4 * j + 1] += pair.y;
        sums[4 * j + 2] += pair.x, sums[4 * j + 3] += pair.y;
      }
    }
    if (p.addend == nullptr) return;
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const float* const from = p.addend + matrix * p.strideAddend + (row + 8 * h) * p.ldAddend + column;
      if (row + 8 * h >= rows) break;
#pragma unroll
      for (int j = 0; j < kGroupN / 8; j++) {
        if (8 * j >= count) break;
        const float2 pair = loadPair(from + 8 * j, count - 8 * j, p.paired);
        sums[4 * j + 2 * h] += pair.x, sums[4 * j + 2 * h + 1] += pair.y;
      }
    }
  }

  template <class Out>
  static __device__ __forceinline__ void store(const HopperProduct& p, unsigned char* staging, int matrix,
                                               int warpRow, int warpColumn, int rows, bool staged,
                                               const Sums& sums) {
    const int lane = int(threadIdx.x) % 32, g = lane / 4, t = lane % 4;
    Out* const to = static_cast<Out*>(p.to) + matrix * p.strideC;
    if constexpr (!kStages) {
#pragma unroll
      for (int i = 0; i < kGroupN / 4; i++) {
        const int j = i / 2, h = i % 2, row = warpRow + g + 8 * h, column = warpColumn + 8 * j + 2 * t;
        if (row < rows && column < p.n)
          storePair(to + row * p.ldc + column, p.n - column, p.paired, sums[4 * j + 2 * h],
                    sums[4 * j + 2 * h + 1]);
      }
      return;
    } else {
      // Each warp its 16 rows, 128 bytes of a row at a time, through shared memory as TMA wants it swizzled.
      constexpr int kColumns = 128 / int(sizeof(Out)), kEights = kColumns / 8, kParts = kGroupN / kColumns;
#pragma unroll
      for (int part = 0; part < kParts; part++) {
        unsigned char* const buffer = staging + part % 2 * (16 * 128);
        // This buffer is free: the store from it is the last but one, or the last where a tile has one part
        // or parts of a tile in between went out another way.
        if (lane == 0) {
          if (kParts % 2 == 0 && staged)
            tmaStoreWaitRead<1>();
          else
            tmaStoreWaitRead<0>();
        }
        __syncwarp();
#pragma unroll
        for (int e = 0; e < kEights; e += 2) {
          const float* const s = sums + 4 * (part * kEights + e);
          if constexpr (sizeof(Out) == 2) {
            // Matrices: rows 0-7 and 8-15 of eight e, then of eight e + 1.
            const int row = lane % 16, chunk = (e + lane / 16) ^ (lane % 8);
            const uint32_t words[4] = {narrow2<Out>(s[0], s[1]), narrow2<Out>(s[2], s[3]),
                                       narrow2<Out>(s[4], s[5]), narrow2<Out>(s[6], s[7])};
            stmatrix(buffer + row * 128 + chunk * 16, words);
          } else {
            // Of row g and row g + 8, chunk 2 e + t / 2 (then of the next eight), pair t % 2 in it.
#pragma unroll
            for (int i = 0; i < 4; i++) {
              const int chunk = (2 * (e + i / 2) + t / 2) ^ g;
              *reinterpret_cast<float2*>(buffer + (g + i % 2 * 8) * 128 + chunk * 16 + t % 2 * 8) =
                  make_float2(s[2 * i], s[2 * i + 1]);
            }
          }
        }
        const int first = warpColumn + part * kColumns;
        if (staged) {
          fenceAsyncProxy();
          __syncwarp();
          if (lane == 0) {
            tmaStore(p.c, buffer, first, warpRow, matrix);
            tmaStoreCommit();
          }
        } else {
          // Rows of C that TMA cannot store to.
          __syncwarp();
          for (int i = lane; i < 16 * kColumns; i += 32) {
            const int row = i / kColumns, column = i % kColumns,
                      chunk = column * int(sizeof(Out)) / 16 ^ row % 8;
            const Out value = reinterpret_cast<const Out*>(buffer + row * 128 +
                                                           chunk * 16)[column % (16 / int(sizeof(Out)))];
            if (warpRow + row < rows && first + column < p.n)
              to[(warpRow + row) * p.ldc + first + column] = value;
          }
        }
      }
    }
  }

  static __device__ __forceinline__ void multiply(const HopperProduct& p, Queue queue, int first, int step,
                                                  int rank) {
    // The same in all lanes, as the compiler can then see: descriptors are in uniform registers.
    const int warp = __shfl_sync(0xffffffffu, int(threadIdx.x) / 32, 0), group = warp / 4;
    const int lane = int(threadIdx.x) % 32;
    unsigned char* const staging =
        queue.shared + queue.stages * stageBytes(queue.rowsA) + warp * (2 * 16 * 128);
    int* const last = reinterpret_cast<int*>(queue.full + 2 * kMostStages);
    const int works = countOf(p);
    for (int number = first; number < works; number += step) {
      const Work w = workAt(p, number, rank);
      const int warpRow = w.m * kM + group / kShape.groupsN * 64 + warp % 4 * 16;
      const int warpColumn = w.n * kN + group % kShape.groupsN * kGroupN;
      const int row = warpRow + lane / 4;
      Sums chain[1];
      accumulate(p, w, queue, group, chain);
      Sums& sums = chain[0];
      if constexpr (kCluster == 1) {
        if (p.pieces > 1 && !meet(p, w, row, last, sums)) continue;
      }
      finish(p, w.matrix, row, warpColumn + lane % 4 * 2, p.m, sums);
      if (p.wide)
        store<float>(p, staging, w.matrix, warpRow, warpColumn, p.m, p.staged, sums);
      else
        store<T>(p, staging, w.matrix, warpRow, warpColumn, p.m, p.staged, sums);
    }
    // Shared memory stays until the last stores have read it.
    if (kStages && lane == 0) tmaStoreWaitRead<0>();
  }
};

// The roles of a block: fetch(queue, rank) is called by one warp, multiply(queue, rank) by the warpgroups
// that multiply.
template <class Tile, class Fetch, class Multiply>
__device__ __forceinline__ void runHopper(const HopperProduct& p, Fetch fetch, Multiply multiply) {
  unsigned char* const shared = dynamicShared();
  const typename Tile::Queue queue(shared, p);
  const int rank = Tile::kCluster == 1 ? 0 : int(clusterRank());
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < queue.stages; stage++) {
      mbarrierInit(queue.full + stage, 1);
      mbarrierInit(queue.empty + stage, Tile::kWarps * Tile::kCluster);
    }
    mbarrierFence();
  }
  if constexpr (Tile::kCluster == 1)
    __syncthreads();
  else
    clusterSync();
  // The registers of the block: 168 a thread at first, where two warpgroups multiply.
  if (int(threadIdx.x) >= Tile::kMathThreads) {
    if constexpr (Tile::kGroups == 2) registersDecrease<40>();
    if (int(threadIdx.x) == Tile::kMathThreads) {
      tmaPrefetch(p.a);
      tmaPrefetch(p.b);
    }
    if (int(threadIdx.x) / 32 == Tile::kWarps) fetch(queue, rank);
  } else {
    if constexpr (Tile::kGroups == 2) registersIncrease<232>();
    multiply(queue, rank);
  }
  if constexpr (Tile::kCluster > 1) {
    // Others of the cluster still arrive at this block's mbarriers.
    __syncwarp();
    clusterSync();
  }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1) hopperKernel(const __grid_constant__ HopperProduct p) {
#if ISOPOLICY_HOPPER
  using Queue = typename Tile::Queue;
  const int first = int(blockIdx.x) / Tile::kCluster, step = int(gridDim.x) / Tile::kCluster;
  runHopper<Tile>(
      p,
      [&](const Queue& queue, int rank) {
        if (threadIdx.x % 32 == 0) Tile::fetch(p, queue, first, step, rank);
      },
      [&](const Queue& queue, int rank) { Tile::multiply(p, queue, first, step, rank); });
#else
  __trap();
#endif
}

}  // namespace isopolicy::cuda
