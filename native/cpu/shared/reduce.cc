// Sums and maxima in an order that no thread count, vector level or number of rows changes: blocks of a fixed
// size, 4 x 16 lanes in a block, partial results of the blocks combined in order in fp64.
#include "cpu/shared/kernel.h"
#include "ops/reduce.h"
#define ISA_KERNELS "cpu/shared/reduce.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS

namespace isopolicy::ISA_PASS {

static constexpr int64_t kReduceBlock = 4096;
static constexpr int kChains = 4;  // independent sums, so that an addition need not wait for the one before

template <class T>
static float sumBlock(const T* x, int64_t n) {
  Vec sums[kChains] = {zero(), zero(), zero(), zero()};
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes)
    for (int c = 0; c < kChains; c++) sums[c] = sums[c] + load(x + i + c * kLanes);
  for (int c = 0; i < n; i += kLanes, c++)
    sums[c] = sums[c] + loadPartial(x + i, int(std::min<int64_t>(kLanes, n - i)));
  return reduceAdd((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
static float maxBlock(const T* x, int64_t n) {
  const Vec infinity = splat(std::numeric_limits<float>::infinity());
  Vec most = splat(-std::numeric_limits<float>::infinity());
  Vec ordered = splat(1.0f);  // 0 in a lane that has met a NaN: neither below infinity nor above zero
  float tail = -std::numeric_limits<float>::infinity();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const Vec v = load(x + i);
    most = selectLess(most, v, v, most);
    ordered = min(ordered, selectLess(v, infinity, splat(1.0f), selectLess(zero(), v, splat(1.0f), zero())));
  }
  for (; i < n; i++) {
    const float v = toFloat(x[i]);
    if (v != v) return v;
    tail = tail < v ? v : tail;
  }
  if (reduceAdd(ordered) < float(kLanes)) return std::numeric_limits<float>::quiet_NaN();
  const float m = reduceMax(most);
  return m < tail ? tail : m;
}

void reduce(const ReduceArgs& args, Workers& workers) {
  const int64_t blocks = (args.width + kReduceBlock - 1) / kReduceBlock;
  Scratch scratch;
  float* partial = scratch.get<float>(args.rows * blocks);
  const int64_t grain =
      std::max<int64_t>(1, 65536 / std::max<int64_t>(1, std::min(args.width, kReduceBlock)));
  dispatchFloat(args.dtype, [&](auto type) {
    const auto* x = static_cast<const decltype(type)*>(args.x);
    workers.parallelFor(args.rows * blocks, grain, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) {
        const int64_t start = b % blocks * kReduceBlock;
        const auto* block = x + b / blocks * args.width + start;
        const int64_t n = std::min(kReduceBlock, args.width - start);
        partial[b] = args.kind == Reduction::max ? maxBlock(block, n) : sumBlock(block, n);
      }
    });
  });
  for (int64_t r = 0; r < args.rows; r++) {
    const float* p = partial + r * blocks;
    if (args.kind == Reduction::max) {
      float m = p[0];
      for (int64_t b = 1; b < blocks && m == m; b++) m = p[b] <= m ? m : p[b];  // a NaN is taken, and stays
      args.out[r] = m;
    } else {
      double sum = 0;
      for (int64_t b = 0; b < blocks; b++) sum += p[b];
      args.out[r] = float(args.kind == Reduction::mean ? sum / double(args.width) : sum);
    }
  }
}

// Partial sums over blocks of rows, a table [row blocks, count], then down the table.
void columnSum(const ColumnSumArgs& args, Workers& workers) {
  constexpr int64_t kRows = 256, kColumns = 64;
  const int64_t rowBlocks = (args.rows + kRows - 1) / kRows;
  const int64_t columnBlocks = (args.count + kColumns - 1) / kColumns;
  Scratch scratch;
  float* partial = scratch.get<float>(rowBlocks * args.count);
  dispatchFloat(args.dtype, [&](auto type) {
    const auto* x = static_cast<const decltype(type)*>(args.x) + args.columnOffset;
    workers.parallelFor(rowBlocks * columnBlocks, 4, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; task++) {
        const int64_t block = task / columnBlocks;
        const int64_t firstColumn = task % columnBlocks * kColumns;
        const int64_t lastRow = std::min(args.rows, (block + 1) * kRows);
        const int64_t lastColumn = std::min(args.count, firstColumn + kColumns);
        for (int64_t c = firstColumn; c < lastColumn; c += kLanes) {
          const int n = int(std::min<int64_t>(kLanes, lastColumn - c));
          Vec sum = zero();
          for (int64_t row = block * kRows; row < lastRow; row++)
            sum = sum + loadPartial(x + row * args.width + c, n);
          storePartial(partial + block * args.count + c, sum, n);
        }
      }
    });
  });
  workers.parallelFor(args.count, 4096, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      double sum = 0;
      for (int64_t block = 0; block < rowBlocks; block++) sum += partial[block * args.count + c];
      args.out[c] = float(double(args.out[c]) + sum);
    }
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerReduce(Registry& registry) {
  registry.add<ReduceArgs>(Family::shared, Device::cpu, ISA_VARIANTS(reduce));
  registry.add<ColumnSumArgs>(Family::shared, Device::cpu, ISA_VARIANTS(columnSum));
}
}  // namespace isopolicy

#endif
