// The products of experts on capability 90, on the tiles of gemm_hopper.cuh: each block walks over the tiles
// of all experts and finds its own from the offsets.
//
// A is all rows, and a tile begins at any of them: rows of the next expert in it are multiplied, too, and not
// stored. The weight gradient, whose k is rows, has them cleared in shared memory before they are multiplied.
#include "cuda/shared/gemm_hopper.h"
#include "cuda/shared/gemm_hopper_launch.cuh"
#include "cuda/shared/gemm_tile.cuh"
#include "cuda/shared/grouped_linear.cuh"

namespace isopolicy::cuda {
namespace {

struct GroupedHopper {
  HopperProduct product;
  Experts experts;
  int height;       // rows of a tile: all of it, or those of A that a stage has
  bool accumulate;  // onto the weight gradient
};

// Of a warp that multiplies: the first row and column of its part of a tile, and where it stages results.
template <class Tile>
struct WarpPart {
  int group, row, column;
  unsigned char* staging;

  __device__ __forceinline__ explicit WarpPart(const typename Tile::Queue& queue) {
    // The same in all lanes, as the compiler can then see.
    const int warp = __shfl_sync(0xffffffffu, int(threadIdx.x) / 32, 0);
    constexpr int kAcross = Tile::kN / Tile::kGroupN;
    group = warp / 4;
    row = group / kAcross * 64 + warp % 4 * 16;
    column = group % kAcross * Tile::kGroupN;
    staging = queue.shared + queue.stages * Tile::stageBytes(queue.rowsA) + warp * (2 * 16 * 128);
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    groupedHopperRowsKernel(const __grid_constant__ GroupedHopper g) {
#if ISOPOLICY_HOPPER
  using Queue = typename Tile::Queue;
  const HopperProduct& p = g.product;
  const int lane = int(threadIdx.x) % 32;
  g.experts.check();
  runHopper<Tile>(
      p,
      [&](Queue queue, int) {
        ExpertWalk walk(g.experts, g.height, p.tilesN);
        for (int number = int(blockIdx.x);; number += int(gridDim.x)) {
          const ExpertTile tile = walk.find(number);
          if (tile.number < 0) break;
          if (lane == 0) {
            const TileAt at = tileAt(unsigned(tile.number), walk.tilesDown(tile.expert), p.tilesN);
            const int row = g.experts.boundary(tile.expert) + at.m * g.height;
            for (int block = 0; block < p.blocks; block++) {
              mbarrierWait(queue.empty + queue.stage, queue.parity ^ 1);
              Tile::fetchStage(p, queue, {block * Tile::kK, row, at.n * Tile::kN, 0, tile.expert}, 0);
              queue.advance();
            }
          }
          __syncwarp();
        }
      },
      [&](Queue queue, int) {
        const WarpPart<Tile> part(queue);
        ExpertWalk walk(g.experts, g.height, p.tilesN);
        for (int number = int(blockIdx.x);; number += int(gridDim.x)) {
          const ExpertTile tile = walk.find(number);
          if (tile.number < 0) break;
          const TileAt at = tileAt(unsigned(tile.number), walk.tilesDown(tile.expert), p.tilesN);
          const int begin = g.experts.boundary(tile.expert), first = begin + at.m * g.height;
          const int rows = min(first + g.height, begin + g.experts.load(tile.expert));
          const int row = first + part.row, column = at.n * Tile::kN + part.column;
          typename Tile::Sums sums[1];
          typename Tile::Work work{};
          work.end = p.blocks;
          Tile::accumulate(p, work, queue, part.group, sums);
          Tile::finish(p, 0, row + lane / 4, column + lane % 4 * 2, rows, sums[0]);
          Tile::template store<typename Tile::T>(p, part.staging, 0, row, column, rows,
                                                 p.staged && row + 16 <= rows, sums[0]);
        }
        if (Tile::kStages && lane == 0) tmaStoreWaitRead<0>();
      });
#else
  __trap();
#endif
}

// A tile of the gradient of an expert's weight: without rows a stage that is cleared, or nothing to add.
struct GradientTile {
  int expert, first, rows, blocks;
  TileAt at;

  __device__ __forceinline__ GradientTile(const GroupedHopper& g, int number) {
    const int tiles = g.product.tilesM * g.product.tilesN;
    expert = number / tiles;
    first = g.experts.boundary(expert);
    rows = g.experts.load(expert);
    blocks = rows == 0 && !g.accumulate ? 1 : (rows + 63) / 64;
    at = tileAt(unsigned(number % tiles), g.product.tilesM, g.product.tilesN);
  }
};

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, 1)
    groupedHopperGradientKernel(const __grid_constant__ GroupedHopper g) {
#if ISOPOLICY_HOPPER
  using Queue = typename Tile::Queue;
  static_assert(Tile::kAcrossA && Tile::kAcrossB && Tile::kSlabs == 1 && Tile::kChains == 1);
  const HopperProduct& p = g.product;
  const int lane = int(threadIdx.x) % 32;
  const int works = g.experts.count * p.tilesM * p.tilesN;
  g.experts.check();
  runHopper<Tile>(
      p,
      [&](Queue queue, int) {
        if (lane != 0) return;
        for (int number = int(blockIdx.x); number < works; number += int(gridDim.x)) {
          const GradientTile tile(g, number);
          for (int block = 0; block < tile.blocks; block++) {
            mbarrierWait(queue.empty + queue.stage, queue.parity ^ 1);
            Tile::fetchStage(p, queue,
                             {tile.first + block * 64, tile.at.m * Tile::kM, tile.at.n * Tile::kN, 0, 0}, 0);
            queue.advance();
          }
        }
      },
      [&](Queue queue, int) {
        const WarpPart<Tile> part(queue);
        for (int number = int(blockIdx.x); number < works; number += int(gridDim.x)) {
          const GradientTile tile(g, number);
          if (tile.blocks == 0) continue;
          const int row = tile.at.m * Tile::kM + part.row, column = tile.at.n * Tile::kN + part.column;
          // The rows of others at the end of the last stage, of A and of B.
          const auto clear = [&](const Queue& stages, int block) {
            const int left = tile.rows - block * 64;
            if (left >= 64) return;
            constexpr int kSquares = (Tile::kM + Tile::kN) / 64;
            const int chunks = (64 - left) * 8;  // of 16 bytes, of each square
            for (int i = int(threadIdx.x); i < kSquares * chunks; i += Tile::kMathThreads)
              *reinterpret_cast<uint4*>(stages.a() + i / chunks * Tile::kSquareBytes +
                                        left * Tile::kSlabBytes + i % chunks * 16) = make_uint4(0, 0, 0, 0);
            fenceAsyncProxy();
            barrierSync(1, Tile::kMathThreads);
          };
          typename Tile::Sums sums[1];
          int block = 0;
          Tile::accumulatePiece(queue, part.group, block, tile.blocks, sums, clear);
          Tile::finish(p, tile.expert, row + lane / 4, column + lane % 4 * 2, p.m, sums[0]);
          Tile::template store<float>(p, part.staging, tile.expert, row, column, p.m, p.staged, sums[0]);
        }
        if (Tile::kStages && lane == 0) tmaStoreWaitRead<0>();
      });
#else
  __trap();
#endif
}

template <class T, int kChains>
class GroupedHopperLauncher {
 public:
  // `k` and `piece` are those of the operands, which may have been padded.
  GroupedHopperLauncher(const GroupedGemm& grouped, HopperOperand a, HopperOperand b, int64_t k,
                        int64_t piece, Launcher& gpu)
      : grouped_(grouped), launcher_(grouped.gemm, a, b, k, piece, gpu), gpu_(gpu), k_(k), piece_(piece) {}

  template <bool kAcrossB>
  void rows() {
    const int64_t rows = grouped_.rowsOfExpert();
    if (rows > 64) {
      if constexpr (kChains == 1) {
        if (rows > 192 && piece_ == k_) return launchRows<HopperShape{2, 1, 256, 1}, kAcrossB>();
      }
      return launchRows<HopperShape{2, 1, 128, 1}, kAcrossB>();
    }
    // Some more than the mean, so that most experts have one tile.
    launcher_.setMostRows(rows <= 5 ? 8 : rows <= 12 ? 16 : rows <= 26 ? 32 : 64);
    if constexpr (!kAcrossB) {
      // The weights' way from memory is the limit: the tile of many columns, or enough tiles for all.
      if (grouped_.mostTiles(64, 256) >= 4 * gpu_.properties().multiprocessors)
        return launchRows<HopperShape{1, 2, 128, 1}, false>();
      if (piece_ == k_ || piece_ % 256 == 0) return launchRows<HopperShape{1, 1, 32, 4}, false>();
    }
    launchRows<HopperShape{1, 1, 64, 1}, kAcrossB>();
  }

  void gradient() {
    if (grouped_.gemm.m > 64 && grouped_.gemm.n > 128) return launchGradient<HopperShape{2, 1, 256, 1}>();
    launchGradient<HopperShape{1, 1, 64, 1}>();
  }

 private:
  template <HopperShape kShape, bool kAcrossB>
  void launchRows() {
    using Tile = HopperTile<T, kChains, kShape, false, kAcrossB>;
    GroupedHopper g = launchOf<Tile>();
    g.height = Tile::kFewRows ? g.product.rowsA : Tile::kM;
    launch<Tile>(groupedHopperRowsKernel<Tile>, g, grouped_.mostTiles(g.height, Tile::kN));
  }
  template <HopperShape kShape>
  void launchGradient() {
    using Tile = HopperTile<T, kChains, kShape, true, true>;
    launch<Tile>(groupedHopperGradientKernel<Tile>, launchOf<Tile>(), grouped_.mostTiles(Tile::kM, Tile::kN));
  }
  template <class Tile>
  GroupedHopper launchOf() {
    return {launcher_.product<Tile>(false), grouped_.experts(gpu_), 0, grouped_.gemm.accumulate};
  }
  template <class Tile>
  void launch(void (*kernel)(GroupedHopper), const GroupedHopper& g, int64_t most) {
    const Grid grid{std::min<int64_t>(most, gpu_.properties().multiprocessors)};
    gpu_.launch(kernel, grid, Tile::kThreads, Tile::sharedBytes(g.product.rowsA, g.product.stages), g);
  }

  const GroupedGemm& grouped_;
  HopperLauncher launcher_;
  Launcher& gpu_;
  const int64_t k_, piece_;
};

template <class T, int kChains>
void multiply(const GroupedGemm& grouped, Launcher& gpu) {
  const GemmArgs& g = grouped.gemm;
  HopperOperand a{g.a, g.lda, 0, g.transposeA}, b{g.b, g.ldb, g.strideB, !g.transposeB};
  const auto fits = [&](const HopperOperand& x) {
    return HopperLauncher::fits(g.in, x.data, x.ld, x.stride);
  };
  if constexpr (kChains == 1) {
    if (grouped.isGradient()) {
      // Rows as they are, each as wide as TMA needs it.
      const auto widened = [&](const HopperOperand& x, int64_t columns) {
        if (fits(x)) return x;
        HopperOperand wide = packHopper({x.data, x.ld, 0, false}, grouped.rows, columns, columns, columns,
                                        ceilDiv(columns, 8) * 8, 1, gpu);
        wide.across = true;
        return wide;
      };
      return GroupedHopperLauncher<T, 1>(grouped, widened(a, g.m), widened(b, g.n), g.k, g.k, gpu).gradient();
    }
  }
  // A piece of k ends with a stage, as in gemm_hopper.cu.
  const bool split = g.splitK > 0 && g.splitK < g.k;
  const int64_t piece = split ? g.splitK : g.k, paddedPiece = split ? ceilDiv(piece, 64) * 64 : piece;
  const bool padded = paddedPiece != piece;
  const int64_t k = padded ? ceilDiv(g.k, piece) * paddedPiece : g.k, width = ceilDiv(k, 8) * 8;
  if (padded || !fits(b)) b = packHopper(b, g.n, g.k, piece, paddedPiece, width, g.batch, gpu);
  if (padded || !fits(a)) a = packHopper(a, g.m, g.k, piece, paddedPiece, width, 1, gpu);
  GroupedHopperLauncher<T, kChains> product(grouped, a, b, k, paddedPiece, gpu);
  if constexpr (kChains == 1) {
    if (b.across) return product.template rows<true>();
  }
  product.template rows<false>();
}

}  // namespace

bool hopperTakes(const GroupedGemm& product, const Launcher& gpu) {
  const GemmArgs& g = product.gemm;
  return g.m > 0 && g.n > 0 && hopperTakes(g, gpu);
}

void hopperGroupedGemm(const GroupedGemm& product, int chains, Launcher& gpu) {
  if (product.gemm.in == DType::float16) {
    if (chains == 1) return multiply<Half, 1>(product, gpu);
    return multiply<Half, 2>(product, gpu);
  }
  if (chains == 1) return multiply<BFloat16, 1>(product, gpu);
  multiply<BFloat16, 2>(product, gpu);
}

}  // namespace isopolicy::cuda
