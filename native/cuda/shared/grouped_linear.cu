// The products of a layer's experts, each over the rows that were sorted to it, on the tiles of the family's
// gemm: the order of a sum is theirs.
//
// The host knows how many rows there are, not whose. Forward and input gradient: a block for each tile that
// there could be at most (a partial one an expert, beside whole ones), which finds its expert from the
// offsets and leaves where there are fewer; the tiles of an expert follow each other, so that its weight is
// read from memory once. Few rows an expert (decoding) are limited by the weights' way from memory, many by
// the tensor cores. Weight gradient: a block for each tile of each expert, with the expert's rows as k.
#include "ops/grouped_linear.h"

#include "cuda/shared/gemm_launch.cuh"

namespace isopolicy::cuda {
namespace {

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
  int number;  // of the expert's tiles; -1 where there are fewer tiles than blocks
};

// A block's tile of kM rows, where each kM rows of an expert have tilesN tiles. A warp finds it.
template <int kM>
__device__ __forceinline__ ExpertTile expertTile(const Experts& experts, int tilesN) {
  const int lane = int(threadIdx.x) % 32, block = int(blockIdx.x);
  int before = 0;
  for (int base = 0; base < experts.count; base += 32) {
    const int e = base + lane;
    const int tiles = e < experts.count ? (experts.load(e) + kM - 1) / kM * tilesN : 0;
    int upTo = tiles;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const int below = __shfl_up_sync(0xffffffffu, upTo, by);
      if (lane >= by) upTo += below;
    }
    const unsigned behind = __ballot_sync(0xffffffffu, block < before + upTo);
    if (behind != 0) {
      const int owner = __ffs(int(behind)) - 1;
      return {base + owner, block - before - __shfl_sync(0xffffffffu, upTo - tiles, owner)};
    }
    before += __shfl_sync(0xffffffffu, upTo, 31);
  }
  return {0, -1};
}

template <class T>
struct GroupedLaunch {
  Product<T> product;  // of the first expert, as if it had all rows
  Experts experts;
  int64_t strideWeight;  // elements from an expert's weight, or its gradient, to the next one's
  int tilesM, tilesN;    // tilesM: of the weight gradient
  bool accumulate;       // onto the weight gradient
};

// A block's product, in shared memory: what the last step of a tile needs of it keeps no registers meanwhile.
template <class T>
struct ExpertProduct {
  Product<T> product;
  TileAt at;
  bool exists;
};

template <class Tile, bool kTransposeB, class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) rowsKernel(const GroupedLaunch<T> launch) {
  __shared__ ExpertProduct<T> own;
  launch.experts.check();
  if (threadIdx.x < 32) {
    const ExpertTile tile = expertTile<Tile::kM>(launch.experts, launch.tilesN);
    if (threadIdx.x == 0) {
      const int64_t first = launch.experts.boundary(tile.expert);
      Product<T> p = launch.product;
      p.m = launch.experts.load(tile.expert);
      p.a += first * p.lda;
      p.b += tile.expert * launch.strideWeight;
      p.c = static_cast<T*>(p.c) + first * p.ldc;
      own.product = p;
      own.exists = tile.number >= 0;
      if (own.exists) own.at = tileAt(unsigned(tile.number), (p.m + Tile::kM - 1) / Tile::kM, launch.tilesN);
    }
  }
  __syncthreads();
  if (own.exists) multiplyTile<Tile, false, kTransposeB>(own.product, own.at);
}

template <class Tile, class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    weightGradientKernel(const GroupedLaunch<T> launch) {
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

enum class Kind { forward, inputGradient, weightGradient };

// A product of all experts, to be launched in tiles of any kind.
template <Kind kKind, class T>
struct GroupedProduct {
  static constexpr bool kOfRows = kKind != Kind::weightGradient;

  GroupedProduct(const int32_t* offsets, int64_t experts, int64_t rows, Launcher& gpu)
      : experts(experts), rows(rows), gpu(gpu) {
    constexpr int64_t kMost = 0x7fffffff - 1024;
    if (rows > kMost || experts > kMost)
      throw DeviceError("expected rows and E of a grouped product to be at most " + std::to_string(kMost));
    launch.experts = {offsets, int(experts), int(rows),
                      gpu.check("expected offsets that rise from 0 to the " + std::to_string(rows) +
                                " rows, got %v at position %i")};
  }

  bool isAligned() const { return launch.product.alignedA && launch.product.alignedB; }
  bool isSplit() const { return launch.product.splitK < launch.product.k; }
  int64_t rowsOfExpert() const { return ceilDiv(rows, experts); }  // on the average

  // Tiles that there could be, and that there are about.
  template <class Tile>
  int64_t mostTiles() const {
    const int64_t tilesN = ceilDiv(launch.product.n, Tile::kN);
    if constexpr (!kOfRows) return experts * ceilDiv(launch.product.m, Tile::kM) * tilesN;
    return (rows / Tile::kM + std::min(experts, rows)) * tilesN;
  }
  template <class Tile>
  int64_t likelyTiles() const {
    if constexpr (!kOfRows) return mostTiles<Tile>();
    return (rows / Tile::kM + (experts + 1) / 2) * ceilDiv(launch.product.n, Tile::kN);
  }
  // Relative time in such tiles, which run at `rate` of the best one's speed; infinite where a block has not
  // enough shared memory.
  template <class Tile>
  double cost(double rate) const {
    if (Tile::sharedBytes(isSplit()) > gpu.properties().sharedMemoryPerBlock)
      return std::numeric_limits<double>::infinity();
    return double(ceilDiv(likelyTiles<Tile>(), gpu.properties().multiprocessors)) * Tile::kM * Tile::kN /
           rate;
  }

  template <class Tile>
  void launchAs() {
    launch.tilesM = int(ceilDiv(launch.product.m, Tile::kM));
    launch.tilesN = int(ceilDiv(launch.product.n, Tile::kN));
    // A block at least, which looks at the offsets.
    const Grid grid{std::max<int64_t>(mostTiles<Tile>(), 1)};
    void (*kernel)(GroupedLaunch<T>) = nullptr;
    if constexpr (kOfRows) {
      kernel = rowsKernel<Tile, kKind == Kind::forward, T>;
    } else {
      kernel = weightGradientKernel<Tile, T>;
    }
    gpu.launch(kernel, grid, Tile::kThreads, Tile::sharedBytes(isSplit()), launch);
  }

  GroupedLaunch<T> launch{};
  const int64_t experts, rows;
  Launcher& gpu;
};

// In the tiles that suit the sizes best; all of them add up in the same order.
template <int kChains, Kind kKind>
void multiply(GroupedProduct<kKind, float>& product) {
  using Tiles = SimtTiles<kChains>;
  using Large = typename Tiles::Large;
  using Small = typename Tiles::Small;
  if constexpr (kKind != Kind::weightGradient) {
    if (product.rowsOfExpert() <= 16) return product.template launchAs<typename Tiles::Skinny>();
  }
  if (product.template cost<Large>(1.0) < product.template cost<Small>(0.7))
    return product.template launchAs<Large>();
  product.template launchAs<Small>();
}
template <int kChains, Kind kKind, class T>
void multiply(GroupedProduct<kKind, T>& product) {
  using Tiles = MmaTiles<T, kChains>;
  using Large = typename Tiles::Large;
  using Medium = typename Tiles::Medium;
  using Small = typename Tiles::Small;
  if (!product.isAligned()) return product.template launchAs<Small>();
  if constexpr (kKind == Kind::forward) {
    if (product.rowsOfExpert() <= 16) return product.template launchAs<typename Tiles::Skinny16>();
    if (product.rowsOfExpert() <= 64) return product.template launchAs<typename Tiles::Skinny64>();
  }
  const double small = product.template cost<Small>(0.6), medium = product.template cost<Medium>(0.9);
  if constexpr (kChains == 1) {
    if (product.template cost<Large>(1.0) < std::min(small, medium))
      return product.template launchAs<Large>();
  }
  if (medium < small) return product.template launchAs<Medium>();
  product.template launchAs<Small>();
}

template <int kChains>
void forward(const GroupedLinearArgs& args, Launcher& gpu) {
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    GroupedProduct<Kind::forward, T> product(args.offsets, args.experts, args.rows, gpu);
    const bool split = args.splitK > 0 && args.splitK < args.k;
    Product<T>& p = product.launch.product;
    p.a = static_cast<const T*>(args.x);
    p.b = static_cast<const T*>(args.weight);
    p.c = args.y;
    p.n = int(args.n);
    p.k = int(args.k);
    p.lda = p.ldb = args.k;
    p.ldc = args.n;
    p.splitK = split ? args.splitK : int(std::max<int64_t>(args.k, 1));
    // Packed or not: on CUDA a packed weight is the weight.
    product.launch.strideWeight = args.n * args.k;
    p.alignedA = loadsVectors(p.a, p.lda, 0, true, split ? args.splitK : 0);
    p.alignedB = loadsVectors(p.b, p.ldb, product.launch.strideWeight, true, split ? args.splitK : 0);
    multiply<kChains>(product);
  });
}

void rolloutGroupedLinear(const GroupedLinearArgs& args, Launcher& gpu) { forward<2>(args, gpu); }
void trainingGroupedLinear(const GroupedLinearArgs& args, Launcher& gpu) { forward<1>(args, gpu); }

void groupedLinearInputGradient(const GroupedLinearInputGradientArgs& args, Launcher& gpu) {
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    GroupedProduct<Kind::inputGradient, T> product(args.offsets, args.experts, args.rows, gpu);
    Product<T>& p = product.launch.product;
    p.a = static_cast<const T*>(args.dy);
    p.b = static_cast<const T*>(args.weight);
    p.c = args.dx;
    p.n = int(args.k);
    p.k = int(args.n);
    p.lda = args.n;
    p.ldb = p.ldc = args.k;
    p.splitK = int(std::max<int64_t>(args.n, 1));
    product.launch.strideWeight = args.n * args.k;
    p.alignedA = loadsVectors(p.a, p.lda, 0, true, 0);
    p.alignedB = loadsVectors(p.b, p.ldb, product.launch.strideWeight, false, 0);
    multiply<1>(product);
  });
}

void groupedLinearWeightGradient(const GroupedLinearWeightGradientArgs& args, Launcher& gpu) {
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    GroupedProduct<Kind::weightGradient, T> product(args.offsets, args.experts, args.rows, gpu);
    Product<T>& p = product.launch.product;
    p.a = static_cast<const T*>(args.dy);
    p.b = static_cast<const T*>(args.x);
    p.c = args.grad;
    p.m = int(args.n);
    p.n = int(args.k);
    p.k = p.splitK = 1;  // the expert's rows
    p.lda = args.n;
    p.ldb = p.ldc = p.ldAddend = args.k;
    p.wide = true;
    product.launch.accumulate = args.accumulate;
    product.launch.strideWeight = args.n * args.k;
    p.alignedA = loadsVectors(p.a, p.lda, 0, false, 0);
    p.alignedB = loadsVectors(p.b, p.ldb, 0, false, 0);
    multiply<1>(product);
  });
}

}  // namespace

void registerGroupedLinear(Registry& registry) {
  addKernel<GroupedLinearArgs>(registry, Family::rollout, rolloutGroupedLinear);
  addKernel<GroupedLinearArgs>(registry, Family::training, trainingGroupedLinear);
  addKernel<GroupedLinearInputGradientArgs>(registry, Family::training, groupedLinearInputGradient);
  addKernel<GroupedLinearWeightGradientArgs>(registry, Family::training, groupedLinearWeightGradient);
}

}  // namespace isopolicy::cuda
