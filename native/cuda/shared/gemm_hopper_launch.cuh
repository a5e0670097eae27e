// The launch of a product in tiles of gemm_hopper.cuh, and what it is expected to cost.
#pragma once
#include "cuda/shared/gemm_hopper.cuh"
#include "ops/gemm.h"

namespace isopolicy::cuda {

// An operand as TMA fetches it: every row begins at a multiple of 16 bytes.
struct HopperOperand {
  const void* data;
  int64_t ld, stride;  // stride: from one matrix to the next, 0 where all share one
  bool across;         // it lies across k
};

// Copies an operand of `batch` matrices (of one, where its stride is 0) to [matrices, lanes, width], along k.
// Each piece of k begins at a multiple of paddedPiece there; what is between are zeros.
HopperOperand packHopper(const HopperOperand& x, int64_t lanes, int64_t k, int64_t piece, int64_t paddedPiece,
                         int64_t width, int64_t batch, Launcher& gpu);

class HopperLauncher {
 public:
  // `k` and `piece` (the length of a piece, k where there is one) are those of the operands, which may have
  // been padded.
  HopperLauncher(const GemmArgs& args, HopperOperand a, HopperOperand b, int64_t k, int64_t piece,
                 Launcher& gpu)
      : g_(args), a_(a), b_(b), k_(k), piece_(piece), pieces_(ceilDiv(k, piece)), gpu_(gpu) {}

  // Cycles, about; infinite where the product cannot be made so. `apart`: a block for each piece of k of each
  // tile.
  template <class Tile>
  double cost(bool apart) const {
    constexpr double kNever = std::numeric_limits<double>::infinity();
    const bool possible = (pieces_ == 1 || piece_ % Tile::kK == 0) &&
                          (!apart || (pieces_ > 1 && Tile::kCluster == 1)) &&
                          (apart || pieces_ == 1 || Tile::kSums) && stagesOf<Tile>() >= 3 &&
                          (!apart || (tiles<Tile>() <= Launcher::kCounters && pieces_ <= kMostApart)) &&
                          g_.m > (Tile::kCluster - 1) * Tile::kM && (g_.m > 64 || Tile::kM == 64);
    if (!possible) return kNever;
    // Bytes a cycle and multiprocessor, from L2 and from memory. A wgmma takes no less than 32 cycles, and a
    // small tile has the next one wait for it.
    constexpr double kL2 = 48, kMemory = 20, kLeast = 2;
    constexpr double kRate = Tile::kGroupN >= 256 ? 0.95 : Tile::kM == 128 ? 0.85 : 0.5;
    const double multiprocessors = gpu_.properties().multiprocessors;
    const double fetched = rowsOf<Tile>() + Tile::kN / Tile::kCluster;
    const double perK = std::max({Tile::kM * Tile::kN / 2048.0 / kRate, fetched * 2 / kL2, kLeast});
    const int64_t works = tiles<Tile>() * (apart ? pieces_ : 1);
    const double turns = double(ceilDiv(works, gpu_.properties().multiprocessors / Tile::kCluster));
    const double operands = double(g_.batch) * double(g_.m + g_.n) * double(k_) * 2;
    // Where memory is the limit, those tiles are best that would need the least time without it.
    const double ofTiles = turns * (double(apart ? piece_ : k_) * perK + 300);
    double cycles = std::max(ofTiles, operands / (kMemory * multiprocessors)) + ofTiles / 16;
    if (apart)
      cycles += 1500 + double(works) * double(std::min<int64_t>(g_.m, Tile::kM)) * Tile::kN * 8 /
                           (kMemory * multiprocessors);
    return cycles;
  }

  template <class Tile>
  void launch(bool apart) const {
    const HopperProduct p = product<Tile>(apart);
    const int64_t works = tiles<Tile>() * p.pieces;
    const int64_t blocks =
        std::min<int64_t>(works, gpu_.properties().multiprocessors / Tile::kCluster) * Tile::kCluster;
    gpu_.launchCluster(hopperKernel<Tile>, Tile::kCluster, Grid{blocks}, Tile::kThreads,
                       Tile::sharedBytes(p.rowsA, p.stages), p);
  }

  template <class Tile>
  HopperProduct product(bool apart) const {
    using T = typename Tile::T;
    const DType in = DTypeOf<T>::value;
    HopperProduct p{};
    p.rowsA = rowsOf<Tile>();
    p.stages = stagesOf<Tile>();
    p.a = operandMap(a_, in, g_.m, p.rowsA);
    p.b = operandMap(b_, in, g_.n, Tile::kN / Tile::kCluster);
    p.bias = g_.bias;
    p.addend = g_.accumulate ? static_cast<const float*>(g_.c) : g_.addend;
    p.to = g_.c;
    p.ldc = g_.ldc;
    p.strideC = g_.strideC;
    p.ldAddend = g_.accumulate ? g_.ldc : g_.ldAddend;
    p.strideAddend = g_.accumulate ? g_.strideC : 0;
    p.m = int(g_.m);
    p.n = int(g_.n);
    p.matrices = int(g_.batch);
    p.tilesM = int(tilesM<Tile>());
    p.tilesN = int(ceilDiv(g_.n, Tile::kN));
    p.sharedA = a_.stride == 0;
    p.sharedB = b_.stride == 0;
    p.blocks = int(ceilDiv(k_, Tile::kK));
    p.blocksAPiece = pieces_ == 1 ? p.blocks : int(piece_ / Tile::kK);
    p.pieces = apart ? int(pieces_) : 1;
    p.wide = g_.out == DType::float32;
    p.padded = k_ % (64 * kMostSlabs) != 0;
    p.staged = Tile::kStages && fits(g_.out, g_.c, g_.ldc, g_.batch > 1 ? g_.strideC : 0);
    const auto even = [](const void* data, size_t bytes, int64_t strides) {
      return reinterpret_cast<uintptr_t>(data) % (2 * bytes) == 0 && strides % 2 == 0;
    };
    p.paired = even(p.to, bytesOf(g_.out), p.ldc | p.strideC) && even(p.bias, bytesOf(in), 0) &&
               even(p.addend, sizeof(float), p.ldAddend | p.strideAddend);
    if (p.staged) {
      const auto bytes = int64_t(bytesOf(g_.out));
      const int64_t matrices = g_.strideC == 0 ? 1 : g_.batch;
      p.c = map(g_.out, g_.c, g_.n, g_.m, matrices, g_.ldc, g_.strideC, int(128 / bytes), 16);
    }
    p.arrived = gpu_.counters();
    if (apart)
      p.partials = gpu_.scratch<float4>(tiles<Tile>() * pieces_ * Tile::kMathThreads * Tile::kGroupN / 8);
    return p;
  }

  // Rows of A in a stage, at most: for tiles of rows that are more than C's.
  void setMostRows(int64_t rows) { mostRows_ = rows; }

  static bool fits(DType dtype, const void* data, int64_t ld, int64_t stride) {
    const auto elements = int64_t(16 / bytesOf(dtype));
    return isAligned16(data) && ld % elements == 0 && stride % elements == 0;
  }

 private:
  static constexpr int64_t kMostApart = 64;  // pieces that one block adds

  template <class Tile>
  int64_t tilesM() const {
    return ceilDiv(g_.m, Tile::kM * Tile::kCluster);
  }
  template <class Tile>
  int64_t tiles() const {
    return tilesM<Tile>() * ceilDiv(g_.n, Tile::kN) * g_.batch;
  }
  // Where C has fewer rows than the tile, the tensor cores multiply whatever lies behind those of A, and
  // nobody looks at the results. It has to lie within the stage: what they read must not change meanwhile.
  template <class Tile>
  int rowsOf() const {
    const int64_t few = std::min(g_.m, mostRows_);
    const int rows = Tile::kFewRows && few < Tile::kM ? int(ceilDiv(few, 8) * 8) : Tile::kM;
    const int last = (Tile::kSlabs - 1) * rows * Tile::kSlabBytes + Tile::kM * Tile::kSlabBytes;
    return last <= Tile::stageBytes(rows) ? rows : Tile::kM;
  }
  template <class Tile>
  int stagesOf() const {
    const auto left = int64_t(gpu_.properties().sharedMemoryPerBlock) - int64_t(Tile::sharedBytes(0, 0));
    return int(std::clamp<int64_t>(left / Tile::stageBytes(rowsOf<Tile>()), 0, Tile::kMostStages));
  }

  CUtensorMap operandMap(const HopperOperand& x, DType in, int64_t lanes, int boxLanes) const {
    const int64_t matrices = x.stride == 0 ? 1 : g_.batch;
    return x.across ? map(in, x.data, lanes, k_, matrices, x.ld, x.stride, 64, 64)
                    : map(in, x.data, k_, lanes, matrices, x.ld, x.stride, 64, boxLanes);
  }
  static CUtensorMap map(DType dtype, const void* data, int64_t width, int64_t height, int64_t matrices,
                         int64_t ld, int64_t stride, int boxWidth, int boxHeight) {
    const auto bytes = int64_t(bytesOf(dtype));
    // The stride of a single matrix is not used, but looked at.
    return tensorMap(data, dtype, width, height, matrices, ld * bytes, (matrices == 1 ? ld : stride) * bytes,
                     boxWidth, boxHeight, 1, Swizzle::bytes128);
  }

  const GemmArgs& g_;
  const HopperOperand a_, b_;
  const int64_t k_, piece_, pieces_;
  int64_t mostRows_ = std::numeric_limits<int64_t>::max();
  Launcher& gpu_;
};

}  // namespace isopolicy::cuda
