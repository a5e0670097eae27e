// The products of a layer's experts, each over the rows that were sorted to it, on the tiles of the family's
// gemm: the order of a sum is theirs.
//
// The host knows how many rows there are, not whose. Forward and input gradient: a block for each tile that
// there could be at most (a partial one an expert, beside whole ones), which finds its expert from the
// offsets and leaves where there are fewer; the tiles of an expert follow each other, so that its weight is
// read from memory once. Few rows an expert (decoding) are limited by the weights' way from memory, many by
// the tensor cores. Weight gradient: a block for each tile of each expert, with the expert's rows as k.
#include "cuda/shared/grouped_linear.cuh"

#include "cuda/shared/gemm_launch.cuh"
#include "ops/grouped_linear.h"

namespace isopolicy::cuda {
namespace {

template <class T>
struct GroupedLaunch {
  Product<T> product;  // of the first expert, as if it had all rows
  Experts experts;
  int64_t strideWeight;  // elements from an expert's weight, or its gradient, to the next one's
  int tilesM, tilesN;    // tilesM: of the weight gradient
  bool accumulate;       // onto the weight gradient
};

template <class Tile, bool kTransposeB, class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    groupedRowsKernel(const GroupedLaunch<T> launch) {
  launch.experts.check();
  ExpertWalk walk(launch.experts, Tile::kM, launch.tilesN);
  const ExpertTile tile = walk.find(int(blockIdx.x));
  if (tile.number < 0) return;
  const int64_t first = launch.experts.boundary(tile.expert);
  Product<T> p = launch.product;
  p.m = launch.experts.load(tile.expert);
  p.a += first * p.lda;
  p.b += tile.expert * launch.strideWeight;
  p.c = static_cast<T*>(p.c) + first * p.ldc;
  multiplyTile<Tile, false, kTransposeB>(
      p, tileAt(unsigned(tile.number), walk.tilesDown(tile.expert), launch.tilesN));
}

template <class Tile, class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    groupedGradientKernel(const GroupedLaunch<T> launch) {
  launch.experts.check();
  const unsigned tiles = unsigned(launch.tilesM) * unsigned(launch.tilesN);
  if (tiles == 0) return;
  const int expert = int(blockIdx.x / tiles);
  const int64_t first = launch.experts.boundary(expert);
  Product<T> p = launch.product;
  p.k = launch.experts.load(expert);
  if (p.k == 0 && launch.accumulate) return;
  p.splitK = max(p.k, 1);
  p.a += first * p.lda;
  p.b += first * p.ldb;
  float* grad = static_cast<float*>(p.c) + expert * launch.strideWeight;
  p.c = grad;
  if (launch.accumulate) p.addend = grad;
  multiplyTile<Tile, true, false>(p, tileAt(blockIdx.x % tiles, launch.tilesM, launch.tilesN));
}

// A product and its launch in tiles of any kind.
template <bool kGradient, bool kTransposeB, class T>
class GroupedLauncher {
 public:
  GroupedLauncher(const GroupedGemm& grouped, Launcher& gpu) : grouped_(grouped), gpu_(gpu) {
    const GemmArgs& g = grouped.gemm;
    isSplit_ = g.splitK > 0 && g.splitK < g.k;
    const int piece = isSplit_ ? g.splitK : int(std::max<int64_t>(g.k, 1));
    Product<T>& p = launch_.product;
    p.a = static_cast<const T*>(g.a);
    p.b = static_cast<const T*>(g.b);
    p.c = g.c;
    p.lda = g.lda;
    p.ldb = g.ldb;
    p.ldc = p.ldAddend = g.ldc;
    p.m = int(g.m);
    p.n = int(g.n);
    p.k = int(g.k);
    p.splitK = piece;
    p.alignedA = loadsVectors(p.a, g.lda, 0, !g.transposeA, isSplit_ ? piece : 0);
    p.alignedB = loadsVectors(p.b, g.ldb, g.strideB, g.transposeB, isSplit_ ? piece : 0);
    p.wide = kGradient;
    launch_.experts = grouped.experts(gpu);
    launch_.strideWeight = kGradient ? g.strideC : g.strideB;
    launch_.accumulate = g.accumulate;
  }

  bool isAligned() const { return launch_.product.alignedA && launch_.product.alignedB; }
  int64_t rowsOfExpert() const { return grouped_.rowsOfExpert(); }

  // Relative time in such tiles, which run at `rate` of the best one's speed; infinite where a block has not
  // enough shared memory. Half of the experts' last tiles are taken to be there.
  template <class Tile>
  double cost(double rate) const {
    if (Tile::sharedBytes(isSplit_) > gpu_.properties().sharedMemoryPerBlock)
      return std::numeric_limits<double>::infinity();
    int64_t tiles = grouped_.mostTiles(Tile::kM, Tile::kN);
    if (!kGradient)
      tiles -= std::min(grouped_.gemm.batch, grouped_.rows) / 2 * ceilDiv(grouped_.gemm.n, Tile::kN);
    return double(ceilDiv(tiles, gpu_.properties().multiprocessors)) * Tile::kM * Tile::kN / rate;
  }

  template <class Tile>
  void launch() {
    launch_.tilesM = int(ceilDiv(grouped_.gemm.m, Tile::kM));
    launch_.tilesN = int(ceilDiv(grouped_.gemm.n, Tile::kN));
    // A block at least, which looks at the offsets.
    const Grid grid{std::max<int64_t>(grouped_.mostTiles(Tile::kM, Tile::kN), 1)};
    void (*kernel)(GroupedLaunch<T>) = nullptr;
    if constexpr (kGradient) {
      kernel = groupedGradientKernel<Tile, T>;
    } else {
      kernel = groupedRowsKernel<Tile, kTransposeB, T>;
    }
    gpu_.launch(kernel, grid, Tile::kThreads, Tile::sharedBytes(isSplit_), launch_);
  }

 private:
  const GroupedGemm& grouped_;
  Launcher& gpu_;
  bool isSplit_;
  GroupedLaunch<T> launch_{};
};

// In the tiles that suit the sizes best; all of them add up in the same order.
template <int kChains, bool kGradient, bool kTransposeB, class T>
void multiplyIn(const GroupedGemm& grouped, Launcher& gpu) {
  GroupedLauncher<kGradient, kTransposeB, T> product(grouped, gpu);
  if constexpr (std::is_same_v<T, float>) {
    using Tiles = SimtTiles<kChains>;
    using Large = typename Tiles::Large;
    using Small = typename Tiles::Small;
    if constexpr (!kGradient) {
      if (product.rowsOfExpert() <= 16) return product.template launch<typename Tiles::Skinny>();
    }
    if (product.template cost<Large>(1.0) < product.template cost<Small>(0.7))
      return product.template launch<Large>();
    product.template launch<Small>();
  } else {
    using Tiles = MmaTiles<T, kChains>;
    using Large = typename Tiles::Large;
    using Medium = typename Tiles::Medium;
    using Small = typename Tiles::Small;
    if (!product.isAligned()) return product.template launch<Small>();
    if constexpr (!kGradient && kTransposeB) {
      if (product.rowsOfExpert() <= 16) return product.template launch<typename Tiles::Skinny16>();
      if (product.rowsOfExpert() <= 64) return product.template launch<typename Tiles::Skinny64>();
    }
    const double small = product.template cost<Small>(0.6), medium = product.template cost<Medium>(0.9);
    if constexpr (kChains == 1) {
      if (product.template cost<Large>(1.0) < std::min(small, medium))
        return product.template launch<Large>();
    }
    if (medium < small) return product.template launch<Medium>();
    product.template launch<Small>();
  }
}

template <int kChains, bool kGradient, bool kTransposeB>
void multiply(const GroupedGemm& grouped, Launcher& gpu) {
  const GemmArgs& g = grouped.gemm;
  constexpr int64_t kMost = 0x7fffffff - 1024;
  if (std::max({g.m, g.n, g.k, g.batch}) > kMost)
    throw DeviceError("expected rows, N, K and E of a grouped product to be at most " +
                      std::to_string(kMost));
  if (hopperTakes(grouped, gpu)) return hopperGroupedGemm(grouped, kChains, gpu);
  dispatchFloat(
      g.in, [&](auto zero) { multiplyIn<kChains, kGradient, kTransposeB, decltype(zero)>(grouped, gpu); });
}

template <int kChains>
void forward(const GroupedLinearArgs& args, Launcher& gpu) {
  GemmArgs g;
  g.a = args.x;
  g.b = args.weight;  // on CUDA a packed one is the weight, too
  g.c = args.y;
  g.m = args.rows;
  g.n = g.ldc = args.n;
  g.k = g.lda = g.ldb = args.k;
  g.batch = args.experts;
  g.strideB = args.n * args.k;
  g.transposeB = true;
  g.in = g.out = args.dtype;
  g.splitK = args.splitK;
  multiply<kChains, false, true>({g, args.offsets, args.rows}, gpu);
}

void rolloutGroupedLinear(const GroupedLinearArgs& args, Launcher& gpu) { forward<2>(args, gpu); }
void trainingGroupedLinear(const GroupedLinearArgs& args, Launcher& gpu) { forward<1>(args, gpu); }

void groupedLinearInputGradient(const GroupedLinearInputGradientArgs& args, Launcher& gpu) {
  GemmArgs g;
  g.a = args.dy;
  g.b = args.weight;
  g.c = args.dx;
  g.m = args.rows;
  g.n = g.ldb = g.ldc = args.k;
  g.k = g.lda = args.n;
  g.batch = args.experts;
  g.strideB = args.n * args.k;
  g.in = g.out = args.dtype;
  multiply<1, false, false>({g, args.offsets, args.rows}, gpu);
}

void groupedLinearWeightGradient(const GroupedLinearWeightGradientArgs& args, Launcher& gpu) {
  GemmArgs g;
  g.a = args.dy;
  g.b = args.x;
  g.c = args.grad;
  g.m = g.lda = args.n;
  g.n = g.ldb = g.ldc = args.k;
  g.k = args.rows;
  g.batch = args.experts;
  g.strideC = args.n * args.k;
  g.transposeA = true;
  g.accumulate = args.accumulate;
  g.in = args.dtype;
  multiply<1, true, false>({g, args.offsets, args.rows}, gpu);
}

}  // namespace

void registerGroupedLinear(Registry& registry) {
  addKernel<GroupedLinearArgs>(registry, Family::rollout, rolloutGroupedLinear);
  addKernel<GroupedLinearArgs>(registry, Family::training, trainingGroupedLinear);
  addKernel<GroupedLinearInputGradientArgs>(registry, Family::training, groupedLinearInputGradient);
  addKernel<GroupedLinearWeightGradientArgs>(registry, Family::training, groupedLinearWeightGradient);
}

}  // namespace isopolicy::cuda
