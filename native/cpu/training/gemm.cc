// The training family's product: one chain of fp32 fused multiply-adds an element, k from 0 to k - 1.
//
// With splitK each chunk of k has a chain of its own and the chunks are added in order. bf16 at level
// avx512bf16 takes pairs of k by vdpbf16ps, which treats subnormals as zero (see PairStep); every other case
// is a plain FMA in fp32, and keeps them. B is packed in panels as wide as a tile; A is read in place where
// its words are already fp32 values or bf16 pairs along k, else packed too. k is cut into blocks whose panel
// of B stays in the caches; the accumulators are carried from block to block in fp32, unrounded.
#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#define ISA_KERNELS "cpu/training/gemm.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/gemm_pack.h"
#include "cpu/shared/gemm_tile.h"
#include "cpu/training/gemm.h"

namespace isopolicy::ISA_PASS {

namespace {

// Steps of a block of k: one panel of B (64 KiB at AVX-512, 16 KiB below) is read once for each tile of
// rows, and stays in L2 or L1 for the next.
constexpr int64_t kBlockSteps = 256;
// The same for few rows, where a panel is packed for one or two tiles and must not leave L1 in between.
constexpr int64_t kNarrowBlockSteps = 128;
// Panels of B that one block of A must serve for its packing to pay where it could be read in place: packed
// rows lie close together and do not compete for cache sets.
constexpr int64_t kPanelsWorthPacking = 3;
// Rows and columns of C that a thread takes at a time: a block of A, one of B and the carried tiles together
// fill about half of an L2 of 1 MiB.
constexpr int64_t kBlockRows = 96, kBlockColumns = 256;
// Words of B that are packed ahead for all threads (8 MiB: a share of L3).
constexpr int64_t kPackedWords = int64_t(1) << 21;
// Multiply-adds worth a thread of its own: about 20 microseconds.
constexpr int64_t kGrain = int64_t(1) << 20;
// Cost of packing a word of B, in multiply-adds.
constexpr int64_t kPackingCost = 8;

// How k is cut: chunks of splitK, and each of them in blocks.
struct Depths {
  int64_t k, chunk, chunks, blockLength, blocksAChunk, stepsAChunk, blocks, steps;

  Depths(int64_t k, int64_t splitK, int64_t blockLength, int depth) : k(k), blockLength(blockLength) {
    chunk = splitK > 0 && splitK < k ? splitK : k;
    chunks = chunk > 0 ? quotientUp(k, chunk) : 1;
    blocksAChunk = chunk > 0 ? quotientUp(chunk, blockLength) : 1;
    stepsAChunk = quotientUp(chunk, depth);
    const int64_t rest = k - (chunks - 1) * chunk;  // length of the last chunk
    blocks = (chunks - 1) * blocksAChunk + (rest > 0 ? quotientUp(rest, blockLength) : 1);
    steps = (chunks - 1) * stepsAChunk + quotientUp(rest, depth);
  }

  struct Block {
    int64_t begin, length;  // of k
    int64_t firstStep;      // counted over all blocks
    int64_t chunk;
    bool chunkBegins, chunkEnds;
  };
  Block block(int64_t index, int depth) const {
    Block b;
    b.chunk = index / blocksAChunk;
    const int64_t within = index % blocksAChunk;
    const int64_t end = lesser((b.chunk + 1) * chunk, k);
    b.begin = b.chunk * chunk + within * blockLength;
    b.length = lesser(blockLength, end - b.begin);
    b.firstStep = b.chunk * stepsAChunk + within * blockLength / depth;
    b.chunkBegins = within == 0;
    b.chunkEnds = b.begin + b.length == end;
    return b;
  }
};

template <class T, class Step>
class Product {
 public:
  explicit Product(const GemmArgs& args)
      : g_(args), depths_(args.k, args.splitK, blockStepsOf(args) * kDepth, kDepth) {
    if (g_.accumulate) {
      g_.addend = static_cast<const float*>(g_.c);
      g_.ldAddend = g_.ldc;
    }
  }

  void run(Workers& workers) {
    const bool manyRows = g_.m > 2 * kBlockRows;
    const bool fewPanels = g_.m > 4 * kTileRows && quotientUp(g_.n, kTileColumns) < 2 * workers.threads();
    if (g_.batch == 1 && (manyRows || (workers.threads() > 1 && fewPanels)))
      runPacked(workers);
    else
      runTasks(workers);
  }

 private:
  static constexpr int kDepth = Step::kDepth;

  static int64_t blockStepsOf(const GemmArgs& g) {
    return g.m <= 2 * kTileRows ? kNarrowBlockSteps : kBlockSteps;
  }

  // B is packed once, for all threads; then the threads share out blocks of C.
  void runPacked(Workers& workers) {
    const int64_t panelWords = depths_.steps * kTileColumns;
    const int64_t panelsAtATime = panelWords > 0 ? kPackedWords / panelWords : 1;
    const int64_t width = (panelsAtATime > 1 ? panelsAtATime : 1) * kTileColumns;
    Scratch scratch;
    float* packed = scratch.get<float>(lesser(width, roundUp(g_.n)) * depths_.steps);
    for (int64_t n = 0; n < g_.n; n += width) {
      const int64_t columns = lesser(width, g_.n - n);
      const int64_t panels = quotientUp(columns, kTileColumns);
      workers.parallelFor(panels * depths_.blocks, quotientUp(kGrain, kPackingCost * 64 * kBlockSteps),
                          [&](int64_t begin, int64_t end) {
                            for (int64_t i = begin; i < end; i++)
                              packAhead(packed, n, columns, i / depths_.blocks, i % depths_.blocks);
                          });
      int64_t blockRows = kBlockRows, blockColumns = kBlockColumns;
      // Smaller blocks where there would not be several for every thread.
      const auto blocks = [&] { return quotientUp(g_.m, blockRows) * quotientUp(columns, blockColumns); };
      while (blocks() < 4 * workers.threads() && blockColumns > kTileColumns) blockColumns /= 2;
      while (blocks() < 4 * workers.threads() && blockRows > 24) blockRows /= 2;
      const int64_t across = quotientUp(columns, blockColumns);
      workers.parallelFor(blocks(), quotientUp(kGrain, blockRows * blockColumns * (depths_.steps + 1)),
                          [&](int64_t begin, int64_t end) {
                            for (int64_t i = begin; i < end; i++) {
                              const int64_t row = i / across * blockRows, column = i % across * blockColumns;
                              block(0, row, lesser(blockRows, g_.m - row), n + column,
                                    lesser(blockColumns, columns - column), packed + column * depths_.steps);
                            }
                          });
    }
  }

  // Every block of C packs what it needs of B, panel by panel: few rows, or a batch.
  void runTasks(Workers& workers) {
    const int64_t blockRows = 2 * kBlockRows, blockColumns = kTileColumns;
    const int64_t down = quotientUp(g_.m, blockRows), across = quotientUp(g_.n, blockColumns);
    const int64_t cost = (lesser(blockRows, g_.m) + kPackingCost) * blockColumns * (depths_.steps + 1);
    workers.parallelFor(g_.batch * down * across, quotientUp(kGrain, cost), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t column = i % across * blockColumns, row = i / across % down * blockRows;
        block(i / (across * down), row, lesser(blockRows, g_.m - row), column,
              lesser(blockColumns, g_.n - column), nullptr);
      }
    });
  }

  static int64_t roundUp(int64_t columns) { return quotientUp(columns, kLanes) * kLanes; }

  void packPanel(const T* b, const Depths::Block& k, int64_t n, int64_t columns, float* to) const {
    if (g_.transposeB)
      packTransposed<kDepth>(b + n * g_.ldb + k.begin, g_.ldb, k.length, columns, to, roundUp(columns));
    else
      packAcross<kDepth>(b + k.begin * g_.ldb + n, g_.ldb, k.length, columns, to, roundUp(columns));
  }

  // Panel p of the columns from n on holds all its steps, in order.
  void packAhead(float* packed, int64_t n, int64_t columns, int64_t p, int64_t blockIndex) const {
    const Depths::Block k = depths_.block(blockIndex, kDepth);
    const int64_t first = p * kTileColumns, wide = lesser(kTileColumns, columns - first);
    packPanel(static_cast<const T*>(g_.b), k, n + first, wide,
              packed + first * depths_.steps + k.firstStep * roundUp(wide));
  }

  // One block of C, over all of k. `packed` holds the panels of its columns, or is null.
  void block(int64_t matrix, int64_t m, int64_t rows, int64_t n, int64_t columns, const float* packed) const {
    Scratch scratch;
    const T* a = static_cast<const T*>(g_.a) + matrix * g_.strideA;
    const T* b = static_cast<const T*>(g_.b) + matrix * g_.strideB;
    const int64_t c = matrix * g_.strideC + m * g_.ldc + n;
    const int64_t panels = quotientUp(columns, kTileColumns);

    const int64_t tileWords = quotientUp(rows, kTileRows) * kTileRows * roundUp(columns);
    float* carry = depths_.blocks > depths_.chunks ? scratch.get<float>(tileWords) : nullptr;
    float* total = depths_.chunks > 1 ? scratch.get<float>(tileWords) : nullptr;
    float* own = packed ? nullptr : scratch.get<float>(kBlockSteps * kTileColumns);
    float* bias = nullptr;
    if (g_.bias) {
      bias = scratch.get<float>(roundUp(columns));
      packAcross<1>(static_cast<const T*>(g_.bias) + n, 0, 1, columns, bias, roundUp(columns));
    }
    // Rows of packed A lie an odd number of lines apart, so that six of them do not share a cache set.
    const bool packs = !kInPlace || panels >= kPanelsWorthPacking;
    const bool mayPack = packs || g_.transposeA || kDepth > 1;
    const int64_t aStride = g_.transposeA ? roundUp(rows) : kBlockSteps + kLanes;
    float* packedA =
        mayPack ? scratch.get<float>(g_.transposeA ? kBlockSteps * aStride : rows * aStride) : nullptr;

    TileJob job{};
    job.out = g_.out;
    job.ldc = g_.ldc;
    job.ldAddend = g_.ldAddend;
    for (int64_t blockIndex = 0; blockIndex < depths_.blocks; blockIndex++) {
      const Depths::Block k = depths_.block(blockIndex, kDepth);
      const int64_t steps = quotientUp(k.length, kDepth);
      const char* aWords;
      if (g_.transposeA) {
        packAcross<kDepth>(a + k.begin * g_.lda + m, g_.lda, k.length, rows, packedA, aStride);
        aWords = reinterpret_cast<const char*>(packedA);
        job.rowBytes = 4;
        job.stepBytes = aStride * 4;
      } else if (packs || k.length % kDepth != 0) {
        packRows<kDepth>(a + m * g_.lda + k.begin, g_.lda, rows, k.length, packedA, aStride);
        aWords = reinterpret_cast<const char*>(packedA);
        job.rowBytes = aStride * 4;
        job.stepBytes = 4;
      } else {
        aWords = reinterpret_cast<const char*>(a + m * g_.lda + k.begin);
        job.rowBytes = g_.lda * int64_t(sizeof(T));
        job.stepBytes = 4;
      }
      job.steps = steps;
      job.resume = !k.chunkBegins;
      job.chunkEnds = k.chunkEnds;
      job.hasTotal = k.chunk > 0;
      job.last = blockIndex == depths_.blocks - 1;
      for (int64_t p = 0; p < panels; p++) {
        const int64_t first = p * kTileColumns;
        job.columns = lesser(kTileColumns, columns - first);
        const int64_t wide = roundUp(job.columns);
        if (packed) {
          job.b = packed + first * depths_.steps + k.firstStep * wide;
        } else {
          packPanel(b, k, n + first, job.columns, own);
          job.b = own;
        }
        job.bias = bias ? bias + first : nullptr;
        for (int64_t r = 0; r < rows; r += kTileRows) {
          const int64_t high = lesser(kTileRows, rows - r);
          const int64_t tileAt = quotientUp(rows, kTileRows) * kTileRows * first + r * wide;
          job.a = aWords + r * job.rowBytes;
          job.carry = carry + tileAt;
          job.total = total + tileAt;
          job.c = static_cast<char*>(g_.c) + (c + r * g_.ldc + first) * int64_t(bytesOf(g_.out));
          job.addend = g_.addend ? g_.addend + addendOffset(matrix, m + r, n + first) : nullptr;
          tileOf<Step>(high, wide / kLanes)(job);
        }
      }
    }
  }

  int64_t addendOffset(int64_t matrix, int64_t row, int64_t column) const {
    return (g_.accumulate ? matrix * g_.strideC : 0) + row * g_.ldAddend + column;
  }

  // The words of A are what a step takes: fp32 values, or bf16 pairs.
  static constexpr bool kInPlace = std::is_same_v<T, float> || kDepth == 2;

  GemmArgs g_;
  Depths depths_;
};

}  // namespace

void trainingGemm(const GemmArgs& args, Workers& workers) {
  if (args.m == 0 || args.n == 0 || args.batch == 0) return;
  switch (args.in) {
    case DType::float16:
      return Product<Half, FusedStep>(args).run(workers);
    case DType::bfloat16:
#if ISA_LEVEL >= 3
      return Product<BFloat16, PairStep>(args).run(workers);
#else
      return Product<BFloat16, FusedStep>(args).run(workers);
#endif
    default:
      return Product<float, FusedStep>(args).run(workers);
  }
}

void trainingLinearInputGradient(const LinearInputGradientArgs& args, Workers& workers) {
  // The sums of all but the last product are kept in fp32: in dx itself where that is fp32.
  Scratch scratch;
  const bool own = args.count > 1 && args.out != DType::float32;
  float* sums = own ? scratch.get<float>(args.rows * args.k) : static_cast<float*>(args.dx);
  int64_t column = 0;
  for (int i = 0; i < args.count; i++) {
    const bool last = i == args.count - 1;
    GemmArgs g;
    g.a = static_cast<const char*>(args.dy) + column * int64_t(bytesOf(args.in));
    g.b = args.weights[i];
    g.c = last ? args.dx : sums;
    g.m = args.rows;
    g.n = args.k;
    g.k = args.n[i];
    g.lda = args.dyColumns;
    g.ldb = args.k;
    g.ldc = args.k;
    g.in = args.in;
    g.out = last ? args.out : DType::float32;
    g.addend = i > 0 ? sums : nullptr;
    g.ldAddend = args.k;
    trainingGemm(g, workers);
    column += args.n[i];
  }
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingGemm(Registry& registry) {
  registry.add<GemmArgs>(Family::training, Device::cpu, ISA_VARIANTS(trainingGemm));
  registry.add<LinearInputGradientArgs>(Family::training, Device::cpu,
                                        ISA_VARIANTS(trainingLinearInputGradient));
}
}  // namespace isopolicy

#endif
