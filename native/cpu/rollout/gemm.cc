// The rollout family's product: dot products along k, each of sixteen strided fp32 partial sums.
//
// This is how a decode kernel reads weights [N, K]: straight from memory, a row a dot product. B in the other
// layout and a transposed A are brought into it by packing, and so is 16-bit data that several tiles would
// widen again. With splitK each chunk of k is a dot product of its own and the chunks are added in order.
#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#define ISA_KERNELS "cpu/rollout/gemm.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/gemm_pack.h"
// In this order: the tile uses the helpers of packing.
#include "cpu/rollout/gemm.h"
#include "cpu/shared/gemm_dot.h"

namespace isopolicy::ISA_PASS {

namespace {

// Words of widened rows of B that a thread keeps at hand (256 KiB: a quarter of L2).
constexpr int64_t kDotPackedWords = int64_t(1) << 16;
// Rows and columns of C that a thread takes at a time.
constexpr int64_t kDotBlockRows = 64, kDotBlockColumns = 64;
// Multiply-adds worth a thread of its own: about 20 microseconds.
constexpr int64_t kDotGrain = int64_t(1) << 20;
// From this many rows on it pays to widen 16-bit weights into scratch first.
constexpr int64_t kWideningRows = 2 * kDotRows + 1;

template <class T>
class DotProduct {
 public:
  explicit DotProduct(const GemmArgs& args) : g_(args) {
    if (g_.accumulate) {
      g_.addend = static_cast<const float*>(g_.c);
      g_.ldAddend = g_.ldc;
    }
    chunk_ = g_.splitK > 0 && g_.splitK < g_.k ? g_.splitK : g_.k;
    packsB_ = !g_.transposeB || (!std::is_same_v<T, float> && g_.m >= kWideningRows);
    packsA_ = g_.transposeA || !std::is_same_v<T, float>;
    // Packed rows are an odd number of lines long: several read at once do not share a cache set.
    packedLength_ = (quotientUp(g_.k, kLanes) | 1) * kLanes;
    blockColumns_ = kDotBlockColumns;
    while (blockColumns_ > 16 && packsB_ && blockColumns_ * packedLength_ > kDotPackedWords)
      blockColumns_ /= 2;
    // Packed rows of B should serve many rows of A.
    blockRows_ = packsB_ ? 4 * kDotBlockRows : kDotBlockRows;
  }

  void run(Workers& workers) {
    const auto blocks = [&] { return quotientUp(g_.m, blockRows_) * quotientUp(g_.n, blockColumns_); };
    while (g_.batch * blocks() < 4 * workers.threads() && blockRows_ > 16) blockRows_ /= 2;
    while (g_.batch * blocks() < 4 * workers.threads() && blockColumns_ > 16) blockColumns_ /= 2;
    const int64_t across = quotientUp(g_.n, blockColumns_);
    const int64_t cost = (lesser(g_.m, blockRows_) + 8) * blockColumns_ * (g_.k + kLanes);
    workers.parallelFor(g_.batch * blocks(), quotientUp(kDotGrain, cost), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t matrix = i / blocks(), row = i % blocks() / across * blockRows_;
        const int64_t column = i % across * blockColumns_;
        block(matrix, row, lesser(blockRows_, g_.m - row), column, lesser(blockColumns_, g_.n - column));
      }
    });
  }

 private:
  void block(int64_t matrix, int64_t m, int64_t rows, int64_t n, int64_t columns) const {
    Scratch scratch;
    const T* a = static_cast<const T*>(g_.a) + matrix * g_.strideA;
    const T* b = static_cast<const T*>(g_.b) + matrix * g_.strideB;
    // Tiles write whole quads of columns, the epilogue reads whole vectors.
    const int64_t sumsStride = quotientUp(columns, kLanes) * kLanes;
    float* sums = scratch.get<float>(kDotRows * sumsStride);
    float* bias = nullptr;
    if (g_.bias) {
      bias = scratch.get<float>(sumsStride);
      packAcross<1>(static_cast<const T*>(g_.bias) + n, 0, 1, columns, bias, sumsStride);
    }
    float* packedB = packsB_ ? scratch.get<float>(columns * packedLength_) : nullptr;
    if (packsB_) {
      if (g_.transposeB)
        packRows<1>(b + n * g_.ldb, g_.ldb, columns, g_.k, packedB, packedLength_);
      else  // the columns of B become rows
        packTransposed<1>(b + n, g_.ldb, columns, g_.k, packedB, packedLength_);
    }
    float* packedA = packsA_ ? scratch.get<float>(kDotRows * packedLength_) : nullptr;
    for (int64_t r = 0; r < rows; r += kDotRows) {
      const int64_t high = lesser(kDotRows, rows - r);
      // The lines of C arrive while the dots run.
      const int64_t bytes = int64_t(bytesOf(g_.out));
      for (int64_t i = 0; i < high; i++) {
        const int64_t at = matrix * g_.strideC + (m + r + i) * g_.ldc + n;
        for (int64_t byte = 0; byte < columns * bytes; byte += 64)
          __builtin_prefetch(static_cast<const char*>(g_.c) + at * bytes + byte, 1);
      }
      const float* aRows = packedA;
      int64_t lda = packedLength_;
      if (g_.transposeA) {
        packTransposed<1>(a + m + r, g_.lda, high, g_.k, packedA, packedLength_);
      } else if constexpr (std::is_same_v<T, float>) {
        aRows = a + (m + r) * g_.lda;
        lda = g_.lda;
      } else {
        packRows<1>(a + (m + r) * g_.lda, g_.lda, high, g_.k, packedA, packedLength_);
      }
      if (packsB_)
        rowsOfDots(high, aRows, lda, packedB, packedLength_, columns, sums, sumsStride);
      else
        rowsOfDots(high, aRows, lda, b + n * g_.ldb, g_.ldb, columns, sums, sumsStride);
      for (int64_t i = 0; i < high; i++)
        finishRow(matrix, m + r + i, n, columns, sums + i * sumsStride, bias);
    }
  }

  // The sums of up to kDotRows rows of C.
  template <class B>
  void rowsOfDots(int64_t rows, const float* a, int64_t lda, const B* b, int64_t ldb, int64_t columns,
                  float* sums, int64_t stride) const {
    switch (rows) {
      case 1:
        return rowOfTiles<1>(a, lda, b, ldb, columns, sums, stride);
      case 2:
        return rowOfTiles<2>(a, lda, b, ldb, columns, sums, stride);
#if ISA_LEVEL >= 2
      case 3:
        return rowOfTiles<3>(a, lda, b, ldb, columns, sums, stride);
      default:
        return rowOfTiles<4>(a, lda, b, ldb, columns, sums, stride);
#endif
    }
  }

  template <int R, class B>
  void rowOfTiles(const float* a, int64_t lda, const B* b, int64_t ldb, int64_t columns, float* sums,
                  int64_t stride) const {
    for (int64_t n = 0; n < columns; n += kDotColumns<R>) {
      const int wide = int(lesser(kDotColumns<R>, columns - n));
      int64_t k = 0;
      do {
        const int64_t length = lesser(chunk_, g_.k - k);
        dotTile<R>(a + k, lda, b + n * ldb + k, ldb, wide, length, sums + n, stride, k > 0);
        k += length;
      } while (k < g_.k);
    }
  }

  void finishRow(int64_t matrix, int64_t row, int64_t n, int64_t columns, const float* sums,
                 const float* bias) const {
    const int64_t at = matrix * g_.strideC + row * g_.ldc + n;
    const float* addend =
        g_.addend ? g_.addend + (g_.accumulate ? matrix * g_.strideC : 0) + row * g_.ldAddend + n : nullptr;
    dispatchFloat(g_.out, [&](auto like) {
      auto* to = static_cast<decltype(like)*>(g_.c) + at;
      for (int64_t i = 0; i < columns; i += kLanes) {
        const int wide = int(lesser(kLanes, columns - i));
        Vec y = load(sums + i);
        if (bias) y = y + load(bias + i);
        if (addend) y = loadPartial(addend + i, wide) + y;
        storePartial(to + i, y, wide);
      }
    });
  }

  GemmArgs g_;
  int64_t chunk_, packedLength_, blockColumns_, blockRows_;
  bool packsA_, packsB_;
};

}  // namespace

void rolloutGemm(const GemmArgs& args, Workers& workers) {
  if (args.m == 0 || args.n == 0 || args.batch == 0) return;
  dispatchFloat(args.in, [&](auto like) { DotProduct<decltype(like)>(args).run(workers); });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutGemm(Registry& registry) {
  registry.add<GemmArgs>(Family::rollout, Device::cpu, ISA_VARIANTS(rolloutGemm));
}
}  // namespace isopolicy

#endif
