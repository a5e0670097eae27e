// Which tiles a product is made of, and their launch: by multiply<1> of training/gemm.cu and multiply<2> of
// rollout/gemm.cu.
#pragma once
#include "cuda/shared/gemm.cuh"
#include "cuda/shared/gemm_hopper.h"
#include "cuda/shared/gemm_mma.cuh"
#include "cuda/shared/gemm_simt.cuh"

namespace isopolicy::cuda {

template <class T>
struct GemmLaunch {
  Product<T> product;  // the first of the batch
  int64_t strideA, strideB, strideC, strideAddend;
  int tilesM, tilesN;
  int pieces;        // blocks a tile
  float4* partials;  // where there are several
  unsigned* arrived;
};

template <class Tile, bool kTransposeA, bool kTransposeB, class T>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks) gemmKernel(const GemmLaunch<T> launch) {
  Product<T> p = launch.product;
  const unsigned tiles = unsigned(launch.tilesM) * unsigned(launch.tilesN), matrix = blockIdx.x / tiles;
  p.a += matrix * launch.strideA;
  p.b += matrix * launch.strideB;
  p.c = static_cast<char*>(p.c) + matrix * launch.strideC * int64_t(p.wide ? sizeof(float) : sizeof(T));
  if (p.addend != nullptr) p.addend += matrix * launch.strideAddend;
  Meeting meeting;
  if constexpr (Tile::kMeets) {
    constexpr int kPiece = Tile::kGroups * Tile::kThreads;
    meeting.partials = launch.partials + int64_t(blockIdx.x) * launch.pieces * kPiece;
    meeting.arrived = launch.arrived + blockIdx.x;
    meeting.piece = int(blockIdx.y);
    meeting.pieces = launch.pieces;
  }
  multiplyTile<Tile, kTransposeA, kTransposeB>(p, tileAt(blockIdx.x % tiles, launch.tilesM, launch.tilesN),
                                               meeting);
}

// Tiles of 16-bit products, by kind. Tensor cores limit the large ones, memory the skinny ones, which read
// few rows of A and stream B through a long queue; the wide one reads A half as often.
template <class T, int kChains>
struct MmaTiles {
  // 8 warps of 64 x 64; with two chains the sums of that would not fit into registers.
  using Large = MmaTile<T, kChains, MmaShape{128, 256, 32, 2, 4, 4, 1}>;
  // 64 x 64 a warp with one chain, 64 x 32 with two.
  using Medium =
      MmaTile<T, kChains,
              kChains == 1 ? MmaShape{128, 128, 32, 2, 2, 3, 2} : MmaShape{128, 128, 32, 2, 4, 4, 1}>;
  using Small = MmaTile<T, kChains, MmaShape{64, 64, 32, 2, 2, 4, 3, true, true}>;
  using Skinny16 = MmaTile<T, kChains, MmaShape{16, 32, 64, 1, 4, 6, 6, true}>;
  using Skinny32 = MmaTile<T, kChains, MmaShape{32, 32, 64, 1, 4, 6, 4, true}>;
  using Skinny64 = MmaTile<T, kChains, MmaShape{64, 64, 64, 2, 2, 4, 3, true}>;
  using SkinnyWide = MmaTile<T, kChains, MmaShape{64, 128, 64, 1, 4, 3, 2, true}>;
};
template <int kChains>
struct SimtTiles {
  using Large = SimtTile<kChains, SimtShape{128, 128, 16, 8, 8, 1}>;
  using Small = SimtTile<kChains, SimtShape{64, 64, 16, 4, 4, 2, true}>;
  using Skinny = SimtTile<kChains, SimtShape{16, 64, 32, 2, 4, 4, true}>;
};

class GemmLauncher {
 public:
  GemmLauncher(const GemmArgs& args, Launcher& gpu) : args_(args), gpu_(gpu) {
    constexpr int64_t kMost = 0x7fffffff - 1024;
    if (args.m > kMost || args.n > kMost || args.k > kMost)
      throw DeviceError("expected m, n and k of a product to be at most " + std::to_string(kMost));
    split_ = args.splitK > 0 && args.splitK < args.k;
  }

  // Whether a block has enough shared memory; some of it goes to what a kernel has beside the tile's.
  template <class Tile>
  bool fits() const {
    constexpr size_t kBeside = 1024;
    return Tile::sharedBytes(split_) + kBeside <= gpu_.properties().sharedMemoryPerBlock;
  }

  // Relative time of the product in such tiles, which run at `rate` of the best one's speed; infinite where
  // they do not fit.
  template <class Tile>
  double cost(double rate) const {
    if (!fits<Tile>()) return std::numeric_limits<double>::infinity();
    return double(ceilDiv(tiles<Tile>(), gpu_.properties().multiprocessors)) * Tile::kM * Tile::kN / rate;
  }

  // Whether such tiles give every multiprocessor some blocks.
  template <class Tile>
  bool fills() const {
    return tiles<Tile>() * blocksOfTile<Tile>() >= kEnough * gpu_.properties().multiprocessors;
  }

  template <class Tile, bool kTransposeA, bool kTransposeB, class T>
  void launch() const {
    const GemmArgs& g = args_;
    const int64_t piece = split_ ? g.splitK : std::max<int64_t>(g.k, 1);
    GemmLaunch<T> launch{};
    launch.product = {static_cast<const T*>(g.a),
                      static_cast<const T*>(g.b),
                      static_cast<const T*>(g.bias),
                      g.accumulate ? static_cast<const float*>(g.c) : g.addend,
                      g.c,
                      g.lda,
                      g.ldb,
                      g.ldc,
                      g.accumulate ? g.ldc : g.ldAddend,
                      int(g.m),
                      int(g.n),
                      int(g.k),
                      int(piece),
                      alignedA<T>(),
                      alignedB<T>(),
                      g.out == DType::float32};
    launch.strideA = g.strideA;
    launch.strideB = g.strideB;
    launch.strideC = g.strideC;
    launch.strideAddend = g.accumulate ? g.strideC : 0;
    launch.tilesM = int(ceilDiv(g.m, Tile::kM));
    launch.tilesN = int(ceilDiv(g.n, Tile::kN));
    launch.pieces = int(blocksOfTile<Tile>());
    launch.arrived = gpu_.counters();
    if (launch.pieces > 1)
      launch.partials = gpu_.scratch<float4>(tiles<Tile>() * launch.pieces * Tile::kM * Tile::kN / 4);
    gpu_.launch(gemmKernel<Tile, kTransposeA, kTransposeB, T>, Grid{tiles<Tile>(), launch.pieces},
                Tile::kThreads, Tile::sharedBytes(split_ && launch.pieces == 1), launch);
  }

  template <class T>
  bool alignedA() const {
    return loadsVectors(static_cast<const T*>(args_.a), args_.lda, args_.batch > 1 ? args_.strideA : 0,
                        !args_.transposeA, split_ ? args_.splitK : 0);
  }
  template <class T>
  bool alignedB() const {
    return loadsVectors(static_cast<const T*>(args_.b), args_.ldb, args_.batch > 1 ? args_.strideB : 0,
                        args_.transposeB, split_ ? args_.splitK : 0);
  }

 private:
  static constexpr int kEnough = 2;  // blocks a multiprocessor

  template <class Tile>
  int64_t tiles() const {
    return ceilDiv(args_.m, Tile::kM) * ceilDiv(args_.n, Tile::kN) * args_.batch;
  }
  // Where there are too few tiles for the multiprocessors, a block for each piece of each.
  template <class Tile>
  int64_t blocksOfTile() const {
    constexpr int64_t kMostPieces = 64;
    if (!Tile::kMeets || !split_ || tiles<Tile>() > Launcher::kCounters ||
        tiles<Tile>() >= kEnough * gpu_.properties().multiprocessors)
      return 1;
    const int64_t pieces = ceilDiv(args_.k, args_.splitK);
    return pieces <= kMostPieces ? pieces : 1;
  }

  const GemmArgs& args_;
  Launcher& gpu_;
  bool split_;
};

template <int kChains, class T, bool kTransposeA, bool kTransposeB>
void multiplyMma(const GemmArgs& args, Launcher& gpu) {
  using Tiles = MmaTiles<T, kChains>;
  const GemmLauncher product(args, gpu);
  const auto launch = [&]<class Tile>() { product.launch<Tile, kTransposeA, kTransposeB, T>(); };
  const bool aligned = product.alignedA<T>() && product.alignedB<T>();
  if constexpr (!kTransposeA && kTransposeB) {
    if (aligned && args.m <= 16) return launch.template operator()<typename Tiles::Skinny16>();
    if (aligned && args.m <= 32) return launch.template operator()<typename Tiles::Skinny32>();
    if (aligned && args.m <= 64 && product.fits<typename Tiles::SkinnyWide>() &&
        product.fills<typename Tiles::SkinnyWide>())
      return launch.template operator()<typename Tiles::SkinnyWide>();
    if (aligned && args.m <= 64) return launch.template operator()<typename Tiles::Skinny64>();
  }
  const double small = product.cost<typename Tiles::Small>(0.6);
  const double medium =
      aligned ? product.cost<typename Tiles::Medium>(0.9) : std::numeric_limits<double>::infinity();
  if constexpr (kChains == 1 && !(kTransposeA && kTransposeB)) {
    const double large =
        aligned ? product.cost<typename Tiles::Large>(1.0) : std::numeric_limits<double>::infinity();
    if (large < std::min(small, medium)) return launch.template operator()<typename Tiles::Large>();
  }
  if (medium < small) return launch.template operator()<typename Tiles::Medium>();
  launch.template operator()<typename Tiles::Small>();
}

template <int kChains, bool kTransposeA, bool kTransposeB>
void multiplySimt(const GemmArgs& args, Launcher& gpu) {
  using Tiles = SimtTiles<kChains>;
  const GemmLauncher product(args, gpu);
  if (args.m <= 16) return product.launch<typename Tiles::Skinny, kTransposeA, kTransposeB, float>();
  if (product.cost<typename Tiles::Large>(1.0) < product.cost<typename Tiles::Small>(0.7))
    return product.launch<typename Tiles::Large, kTransposeA, kTransposeB, float>();
  product.launch<typename Tiles::Small, kTransposeA, kTransposeB, float>();
}

template <int kChains, bool kTransposeA, bool kTransposeB>
void multiplyAs(const GemmArgs& args, Launcher& gpu) {
  switch (args.in) {
    case DType::float16:
      return multiplyMma<kChains, Half, kTransposeA, kTransposeB>(args, gpu);
    case DType::bfloat16:
      return multiplyMma<kChains, BFloat16, kTransposeA, kTransposeB>(args, gpu);
    default:
      return multiplySimt<kChains, kTransposeA, kTransposeB>(args, gpu);
  }
}

// The choice of a path and of tiles. Whatever depends on m, n or the batch here must not change the order of
// sums; what changes it may depend on the device, the dtype, alignment and k.
template <int kChains>
void multiply(const GemmArgs& args, Launcher& gpu) {
  if (args.m == 0 || args.n == 0 || args.batch == 0) return;
  if (hopperTakes(args, gpu)) return hopperGemm(args, kChains, gpu);
  if (args.transposeA && args.transposeB) return multiplyAs<kChains, true, true>(args, gpu);
  if (args.transposeA) return multiplyAs<kChains, true, false>(args, gpu);
  if (args.transposeB) return multiplyAs<kChains, false, true>(args, gpu);
  multiplyAs<kChains, false, false>(args, gpu);
}

}  // namespace isopolicy::cuda
