// Sums and maxima in an order that no thread count, vector level or number of rows changes: blocks of a fixed
// size, 4 x 16 lanes in a block, partial results of the blocks combined in order in fp64.
#include "cpu/shared/kernel.h"
#include "ops/reduce.h"
#define ISA_KERNELS "cpu/shared/reduce.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

static constexpr int64_t kReduceBlock = 4096;
static constexpr int kChains = 4;  // independent ones, so that none waits for the one before

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
  Vec most[kChains], seen = zero();
  for (Vec& m : most) m = splat(-std::numeric_limits<float>::infinity());
  float tail = -std::numeric_limits<float>::infinity();
  const auto look = [&](int c, Vec v) {
    most[c] = max(v, most[c]);  // of a NaN the second
    seen = noteNaN(seen, v);
  };
  int64_t i = 0;
  for (; i + kChains * kLanes <= n; i += kChains * kLanes)
    for (int c = 0; c < kChains; c++) look(c, load(x + i + c * kLanes));
  for (; i + kLanes <= n; i += kLanes) look(0, load(x + i));
  for (; i < n; i++) {
    const float v = toFloat(x[i]);
    if (v != v) return v;
    tail = tail < v ? v : tail;
  }
  if (std::isnan(reduceAdd(seen))) return std::numeric_limits<float>::quiet_NaN();
  const float m = reduceMax(max(max(most[0], most[1]), max(most[2], most[3])));
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

// Adds rows to sums of n columns, each column's in the order of the rows. Some rows at a time, so that sums
// are loaded and stored less often.
template <int N, class T>
static void addRows(const T* rows, int64_t stride, int64_t n, float* sums) {
  eachVector(n, [&](int64_t c, auto lanes) {
    Vec sum = lanes.get(sums + c);
    for (int r = 0; r < N; r++) sum = sum + lanes.get(rows + r * stride + c);
    lanes.put(sums + c, sum);
  });
}

// Partial sums over blocks of rows, a table [row blocks, count], then down the table.
void columnSum(const ColumnSumArgs& args, Workers& workers) {
  // Enough columns that memory is read in long pieces; their sums stay in L1.
  constexpr int64_t kRows = 256, kColumns = 1024;
  const int64_t rowBlocks = (args.rows + kRows - 1) / kRows;
  const int64_t columnBlocks = (args.count + kColumns - 1) / kColumns;
  Scratch scratch;
  float* partial = scratch.get<float>(rowBlocks * args.count);
  dispatchFloat(args.dtype, [&](auto type) {
    const auto* x = static_cast<const decltype(type)*>(args.x) + args.columnOffset;
    workers.parallelFor(rowBlocks * columnBlocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; task++) {
        const int64_t block = task / columnBlocks, column = task % columnBlocks * kColumns;
        const int64_t columns = std::min(args.count - column, kColumns);
        const int64_t lastRow = std::min(args.rows, (block + 1) * kRows);
        float* sums = partial + block * args.count + column;
        std::fill(sums, sums + columns, 0.0f);
        int64_t row = block * kRows;
        for (; row + 4 <= lastRow; row += 4)
          addRows<4>(x + row * args.width + column, args.width, columns, sums);
        for (; row < lastRow; row++) addRows<1>(x + row * args.width + column, args.width, columns, sums);
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
  registry.add<ReduceArgs>(Family::shared, ISA_VARIANTS(reduce));
  registry.add<ColumnSumArgs>(Family::shared, ISA_VARIANTS(columnSum));
}
}  // namespace isopolicy

#endif
