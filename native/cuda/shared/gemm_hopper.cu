// Products of 16-bit numbers on capability 90: which tiles, and operands that TMA cannot fetch as they lie.
#include "cuda/shared/gemm_hopper.h"

#include "cuda/shared/gemm_hopper_launch.cuh"

namespace isopolicy::cuda {
namespace {

// ---- operands that are copied ----

// What packHopper (gemm_hopper_launch.cuh) copies: through a square in shared memory, so that both sides are
// read and written in rows.
struct PackedOperand {
  const uint16_t* from;
  int64_t ld, stride;
  bool across;
  int lanes, k, piece, paddedPiece, width, matrices;
};
constexpr int kPackThreads = 256, kPackSquare = 32;

__global__ void __launch_bounds__(kPackThreads) packKernel(const PackedOperand p, uint16_t* to) {
  __shared__ uint16_t square[kPackSquare][kPackSquare + 2];
  const int across = (p.width + kPackSquare - 1) / kPackSquare,
            down = (p.lanes + kPackSquare - 1) / kPackSquare;
  const int number = int(blockIdx.x), matrix = number / (across * down);
  const int firstLane = number / across % down * kPackSquare, firstColumn = number % across * kPackSquare;
  const int fast = int(threadIdx.x) % kPackSquare, slow = int(threadIdx.x) / kPackSquare;
  const uint16_t* const from = p.from + matrix * p.stride;
  for (int i = slow; i < kPackSquare; i += kPackThreads / kPackSquare) {
    const int lane = p.across ? fast : i, column = p.across ? i : fast;
    const int piece = (firstColumn + column) / p.paddedPiece, within = (firstColumn + column) % p.paddedPiece;
    const int64_t k = int64_t(piece) * p.piece + within;
    const bool exists = firstLane + lane < p.lanes && within < p.piece && k < p.k;
    const int64_t at = p.across ? k * p.ld + firstLane + lane : (firstLane + lane) * p.ld + k;
    square[lane][column] = exists ? from[at] : uint16_t(0);
  }
  __syncthreads();
  for (int lane = slow; lane < kPackSquare; lane += kPackThreads / kPackSquare) {
    if (firstLane + lane < p.lanes && firstColumn + fast < p.width)
      to[(int64_t(matrix) * p.lanes + firstLane + lane) * p.width + firstColumn + fast] = square[lane][fast];
  }
}

}  // namespace

HopperOperand packHopper(const HopperOperand& x, int64_t lanes, int64_t k, int64_t piece, int64_t paddedPiece,
                         int64_t width, int64_t batch, Launcher& gpu) {
  const int64_t matrices = x.stride == 0 ? 1 : batch;
  uint16_t* const to = gpu.scratch<uint16_t>(matrices * lanes * width);
  const PackedOperand p{static_cast<const uint16_t*>(x.data),
                        x.ld,
                        x.stride,
                        x.across,
                        int(lanes),
                        int(k),
                        int(piece),
                        int(paddedPiece),
                        int(width),
                        int(matrices)};
  gpu.launch(packKernel, Grid{ceilDiv(width, kPackSquare) * ceilDiv(lanes, kPackSquare) * matrices},
             kPackThreads, 0, p, to);
  return {to, width, matrices == 1 ? 0 : lanes * width, false};
}

namespace {

// ---- tiles ----

template <class T, int kChains, bool kAcrossA, bool kAcrossB>
void choose(const HopperLauncher& product, int64_t m) {
  double least = std::numeric_limits<double>::infinity();
  void (HopperLauncher::*launch)(bool) const = nullptr;
  bool apart = false;
  const auto consider = [&]<HopperShape kShape>() {
    using Tile = HopperTile<T, kChains, kShape, kAcrossA, kAcrossB>;
    for (const bool each : {false, true}) {
      const double cost = product.cost<Tile>(each);
      if (cost < least) least = cost, launch = &HopperLauncher::launch<Tile>, apart = each;
    }
  };
  // Tensor cores limit the first ones, for two chains of which 64 x 256 sums a warpgroup are too many ...
  consider.template operator()<HopperShape{2, 1, kChains == 1 ? 256 : 128, 1, 2}>();
  consider.template operator()<HopperShape{2, 1, 128, 1}>();
  // ... too few tiles these ...
  consider.template operator()<HopperShape{1, 1, 64, 1}>();
  // ... and the memory's bandwidth those of few rows, which are weights times the rows of a decode step.
  if constexpr (!kAcrossA && !kAcrossB) {
    if (m <= 64) {
      consider.template operator()<HopperShape{1, 1, 16, 4}>();
      consider.template operator()<HopperShape{1, 1, 32, 4}>();
      consider.template operator()<HopperShape{1, 2, 128, 1}>();
    }
  }
  if (launch == nullptr) throw DeviceError("no tile of this product fits into the shared memory of the GPU");
  (product.*launch)(apart);
}

template <class T, int kChains>
void multiply(const GemmArgs& g, Launcher& gpu) {
  const bool split = g.splitK > 0 && g.splitK < g.k;
  const int64_t piece = split ? g.splitK : g.k;
  // A piece ends with a stage.
  const int64_t paddedPiece = split ? ceilDiv(piece, 64) * 64 : piece;
  const bool padded = paddedPiece != piece;
  const int64_t k = padded ? ceilDiv(g.k, piece) * paddedPiece : g.k;
  const int64_t width = ceilDiv(k, 8) * 8;
  const auto strideOf = [&](int64_t stride) { return g.batch > 1 ? stride : 0; };
  HopperOperand a{g.a, g.lda, strideOf(g.strideA), g.transposeA};
  HopperOperand b{g.b, g.ldb, strideOf(g.strideB), !g.transposeB};
  const auto fits = [&](const HopperOperand& x) {
    return !padded && HopperLauncher::fits(g.in, x.data, x.ld, x.stride);
  };
  // Of the ways operands can lie, those of the products of a network have kernels of their own: y = x W^T
  // and, in the training family, dx = dy W and dW = dy^T x.
  if (!fits(b) || (b.across && kChains == 2))
    b = packHopper(b, g.n, g.k, piece, paddedPiece, width, g.batch, gpu);
  if (!fits(a) || (a.across && !b.across))
    a = packHopper(a, g.m, g.k, piece, paddedPiece, width, g.batch, gpu);
  const HopperLauncher product(g, a, b, k, paddedPiece, gpu);
  if constexpr (kChains == 1) {
    if (a.across) return choose<T, kChains, true, true>(product, g.m);
    if (b.across) return choose<T, kChains, false, true>(product, g.m);
  }
  choose<T, kChains, false, false>(product, g.m);
}

// ---- whether this build has them ----

// A build for other architectures runs on this device, too, but has no wgmma for it. The bound of this kernel
// tells which of the build's architectures the driver took the code of.
#if defined(ISOPOLICY_EMULATED)
bool hasCode() { return true; }
#else
constexpr int kBoundWithout = 32, kBoundWith = 64;
__global__ void __launch_bounds__(ISOPOLICY_HOPPER ? kBoundWith : kBoundWithout) codeProbe() {}

bool hasCode() {
  static const bool has = [] {
    cudaFuncAttributes attributes;
    expectSuccess(cudaFuncGetAttributes(&attributes, codeProbe), "asking for the code of a kernel");
    return attributes.maxThreadsPerBlock == kBoundWith;
  }();
  return has;
}
#endif

}  // namespace

bool hopperTakes(const GemmArgs& args, const Launcher& gpu) {
  return gpu.properties().capability == 90 && bytesOf(args.in) == 2 && args.k > 0 && hasCode();
}

void hopperGemm(const GemmArgs& args, int chains, Launcher& gpu) {
  constexpr int64_t kMost = 0x7fffffff - 1024;
  if (args.m > kMost || args.n > kMost || args.k > kMost)
    throw DeviceError("expected m, n and k of a product to be at most " + std::to_string(kMost));
  if (args.in == DType::float16) {
    if (chains == 1) return multiply<Half, 1>(args, gpu);
    return multiply<Half, 2>(args, gpu);
  }
  if (chains == 1) return multiply<BFloat16, 1>(args, gpu);
  multiply<BFloat16, 2>(args, gpu);
}

}  // namespace isopolicy::cuda
