// How a matrix product is cut into blocks, packed and shared among threads: the same for both families and
// every format of gemm_tile.h.
//
// C is cut into blocks of rows x columns, a task each; k into blocks whose panel of B stays in L1 while the
// rows of a block pass over it. A is packed ahead, for all threads. B is packed ahead where several blocks of
// rows read it, else block by block by the task itself; packed weights are read in place. With splitK each
// chunk of k has chains of its own, and the chunks are added in order. Included once a pass, inside it, after
// gemm_tile.h: no guard.

namespace isopolicy::ISA_PASS {

// Rows and columns of C that a thread takes at a time: the sums (256 KiB), a block of A over all of k and a
// panel of B together stay in L2.
inline constexpr int64_t kProductRows = 256, kProductColumns = 256;
// Bytes that are packed ahead for all threads (a share of L3).
inline constexpr int64_t kPackedAhead = int64_t(8) << 20;
// Multiply-adds worth a thread of its own: some microseconds.
inline constexpr int64_t kProductGrain = int64_t(1) << 18;

// How k is cut: chunks of splitK, and each of them in blocks.
struct Depths {
  int64_t k, chunk, blockLength, blocksAChunk, blocks, stepsAChunk, steps;
  int stepLength;

  Depths(int64_t k, int64_t splitK, int64_t blockLength, int stepLength)
      : k(k), blockLength(blockLength), stepLength(stepLength) {
    chunk = splitK > 0 && splitK < k ? splitK : k;
    const int64_t chunks = chunk > 0 ? quotientUp(k, chunk) : 1;
    const int64_t rest = k - (chunks - 1) * chunk;  // length of the last chunk
    blocksAChunk = chunk > 0 ? quotientUp(chunk, blockLength) : 1;
    stepsAChunk = quotientUp(chunk, stepLength);
    blocks = (chunks - 1) * blocksAChunk + (rest > 0 ? quotientUp(rest, blockLength) : 1);
    steps = (chunks - 1) * stepsAChunk + quotientUp(rest, stepLength);
  }

  struct Block {
    int64_t begin, length;     // of k
    int64_t firstStep, steps;  // counted over all blocks
    int64_t chunk;
    bool chunkBegins, chunkEnds, last;
  };
  Block block(int64_t index) const {
    Block b;
    b.chunk = index / blocksAChunk;
    const int64_t within = index % blocksAChunk;
    const int64_t end = lesser((b.chunk + 1) * chunk, k);
    b.begin = b.chunk * chunk + within * blockLength;
    b.length = lesser(blockLength, end - b.begin);
    b.firstStep = b.chunk * stepsAChunk + within * blockLength / stepLength;
    b.steps = quotientUp(b.length, stepLength);
    b.chunkBegins = within == 0;
    b.chunkEnds = b.begin + b.length == end;
    b.last = index == blocks - 1;
    return b;
  }
};

template <class Format>
class FewRows;

template <class Format>
class Product {
  friend class FewRows<Format>;

 public:
  using T = typename Format::Element;

  explicit Product(const GemmArgs& args)
      : g_(args), depths_(args.k, args.splitK, Format::kBlock, Format::kStepLength) {
    if (g_.accumulate) {
      g_.addend = static_cast<const float*>(g_.c);
      g_.ldAddend = g_.ldc;
    }
  }

  void run(Workers& workers) {
    if (FewRows<Format>::takes(g_)) return FewRows<Format>(*this).run(workers);
    const int64_t perThread = quotientUp(quotientUp(g_.m, kRows), workers.threads()) * kRows;
    blockRows_ = lesser(kProductRows / kRows * kRows,
                        perThread > 2 * kRows ? perThread : kProductRows / kRows * kRows);
    if (g_.batch > 1)
      eachMatrix(workers);
    else
      oneMatrix(workers);
  }

 private:
  static constexpr int kRows = Format::kRows, kColumns = Format::kColumns, kChains = Format::kChains;
  static constexpr int64_t kSums = kRows * kColumns;  // of a chain of a tile

  // Operands as a task finds them: packed ahead, or null where it packs them itself.
  struct Packed {
    char* a = nullptr;
    int64_t aFirstRow = 0, aRows = 0;
    const char* b = nullptr;
    int64_t bFirstColumn = 0;
  };

  void oneMatrix(Workers& workers) {
    const int64_t aBytes = quotientUp(g_.m, kRows) * depths_.steps * Format::kBytesA;
    const int64_t rowBytes = depths_.steps * Format::kBytesA / kRows + 1;
    const int64_t slabRows =
        aBytes <= kPackedAhead ? g_.m : roundUp(lesser(g_.m, kPackedAhead / rowBytes), blockRows_);
    const int64_t panelBytes = depths_.steps * Format::kBytesB + 1;
    // Several blocks of rows read the same panels.
    const bool sharesB = !g_.packedB && g_.m > blockRows_;
    const int64_t slabColumns =
        sharesB ? (kPackedAhead / panelBytes > 1 ? kPackedAhead / panelBytes : 1) * kColumns : g_.n;
    Scratch scratch;
    Packed packed;
    packed.a = scratch.get<char>(quotientUp(lesser(slabRows, g_.m), kRows) * depths_.steps * Format::kBytesA);
    char* bAhead = nullptr;
    if (sharesB)
      bAhead = scratch.get<char>(quotientUp(lesser(slabColumns, g_.n), kColumns) * depths_.steps *
                                 Format::kBytesB);
    packed.b = bAhead;
    for (int64_t n = 0; n < g_.n; n += slabColumns) {
      const int64_t columns = lesser(slabColumns, g_.n - n);
      packed.bFirstColumn = n;
      for (int64_t m = 0; m < g_.m; m += slabRows) {
        packed.aFirstRow = m;
        packed.aRows = lesser(slabRows, g_.m - m);
        const bool packsA = n == 0 || slabRows < g_.m;
        packAhead(workers, packed, packsA, m == 0 ? bAhead : nullptr, n, columns);
        eachBlock(workers, packed, m, packed.aRows, n, columns);
      }
    }
  }

  // A and, where bAhead is not null, B: piece by piece, a piece one tile or panel over one block of k.
  void packAhead(Workers& workers, const Packed& packed, bool packsA, char* bAhead, int64_t n,
                 int64_t columns) {
    const int64_t tiles = packsA ? quotientUp(packed.aRows, kRows) : 0;
    const int64_t panels = bAhead ? quotientUp(columns, kColumns) : 0;
    const int64_t blocks = depths_.blocks;
    workers.parallelFor((tiles + panels) * blocks, quotientUp(int64_t(1) << 15, kRows * Format::kBlock),
                        [&](int64_t begin, int64_t end) {
                          for (int64_t i = begin; i < end; i++) {
                            const Depths::Block k = depths_.block(i % blocks);
                            const int64_t piece = i / blocks;
                            if (piece < tiles) {
                              packRows(0, packed.aFirstRow + piece * kRows, k, aAt(packed, piece * kRows, k));
                            } else {
                              const int64_t panel = piece - tiles;
                              packColumns(0, n + panel * kColumns, k,
                                          bAhead + (panel * depths_.steps + k.firstStep) * Format::kBytesB);
                            }
                          }
                        });
  }

  char* aAt(const Packed& packed, int64_t row, const Depths::Block& k) const {
    const int64_t tiles = quotientUp(packed.aRows, kRows);
    return packed.a + (k.firstStep * tiles + row / kRows * k.steps) * Format::kBytesA;
  }

  void packRows(int64_t matrix, int64_t row, const Depths::Block& k, char* to) const {
    const T* a = static_cast<const T*>(g_.a) + matrix * g_.strideA;
    const T* at = g_.transposeA ? a + k.begin * g_.lda + row : a + row * g_.lda + k.begin;
    Format::packA({at, g_.lda, !g_.transposeA, lesser(kRows, g_.m - row), k.length}, k.steps, to);
  }

  void packColumns(int64_t matrix, int64_t column, const Depths::Block& k, char* to) const {
    const T* b = static_cast<const T*>(g_.b) + matrix * g_.strideB;
    const T* at = g_.transposeB ? b + column * g_.ldb + k.begin : b + k.begin * g_.ldb + column;
    Format::packB({at, g_.ldb, g_.transposeB, lesser(kColumns, g_.n - column), k.length}, k.steps, to);
  }

  // Shares out the blocks of C in rows m .. and columns n ..; smaller blocks where there would be too few.
  void eachBlock(Workers& workers, const Packed& packed, int64_t m, int64_t rows, int64_t n,
                 int64_t columns) {
    int64_t high = blockRows_, wide = kProductColumns;
    const bool few = rows <= 2 * kRows;  // one or two tiles: a panel at a time, so that its sums stay in L1
    if (few) wide = kColumns;
    const auto blocks = [&] { return quotientUp(rows, high) * quotientUp(columns, wide); };
    while (blocks() < 4 * workers.threads() && wide > 2 * kColumns) wide /= 2;
    const int64_t across = quotientUp(columns, wide);
    const int64_t work = lesser(high, rows) * wide * (g_.k + 16);
    workers.parallelFor(blocks(), quotientUp(kProductGrain, work), [&](int64_t begin, int64_t end) {
      [[maybe_unused]] typename Format::Scope scope;
      for (int64_t i = begin; i < end; i++) {
        const int64_t row = m + i / across * high, column = n + i % across * wide;
        block(packed, 0, row, lesser(high, m + rows - row), column, lesser(wide, n + columns - column));
      }
    });
  }

  // A batch: every task packs what it needs.
  void eachMatrix(Workers& workers) {
    const int64_t high = blockRows_, wide = kProductColumns;
    const int64_t down = quotientUp(g_.m, high), across = quotientUp(g_.n, wide);
    const int64_t work = lesser(high, g_.m) * lesser(wide, g_.n) * (g_.k + 16);
    workers.parallelFor(
        g_.batch * down * across, quotientUp(kProductGrain, work), [&](int64_t begin, int64_t end) {
          [[maybe_unused]] typename Format::Scope scope;
          Scratch scratch;
          Packed packed;
          packed.a =
              scratch.get<char>(quotientUp(lesser(high, g_.m), kRows) * depths_.steps * Format::kBytesA);
          for (int64_t i = begin; i < end; i++) {
            const int64_t matrix = i / (down * across);
            packed.aFirstRow = i / across % down * high;
            packed.aRows = lesser(high, g_.m - packed.aFirstRow);
            for (int64_t row = 0; row < packed.aRows; row += kRows)
              for (int64_t b = 0; b < depths_.blocks; b++) {
                const Depths::Block k = depths_.block(b);
                packRows(matrix, packed.aFirstRow + row, k, aAt(packed, row, k));
              }
            const int64_t column = i % across * wide;
            block(packed, matrix, packed.aFirstRow, packed.aRows, column, lesser(wide, g_.n - column));
          }
        });
  }

  // One block of C, over all of k.
  void block(const Packed& packed, int64_t matrix, int64_t m, int64_t rows, int64_t n,
             int64_t columns) const {
    Scratch scratch;
    const int64_t tiles = quotientUp(rows, kRows), panels = quotientUp(columns, kColumns);
    const int64_t tileSums = kChains * kSums;
    float* sums = scratch.get<float>(tiles * panels * tileSums);
    float* totals =
        depths_.blocks > depths_.blocksAChunk ? scratch.get<float>(tiles * panels * kSums) : nullptr;
    const bool direct = g_.packedB && tiles <= Format::kMostDirectTiles;
    char* own = packed.b || direct
                    ? nullptr
                    : scratch.get<char>(Format::kBlock / Format::kStepLength * Format::kBytesB);
    float* bias = scratch.get<float>(g_.bias ? panels * kColumns : 0);
    if (g_.bias) widen(static_cast<const T*>(g_.bias) + n, columns, panels * kColumns, bias);

    const int64_t storedBytes = packed.b ? Format::kBytesB : Format::kBytesStored;
    const int64_t stepBytes = packed.b ? Format::kBytesB : Format::kStoredStep;
    const int64_t half = depths_.steps * stepBytes;  // from a stored left half to the right one
    for (int64_t blockIndex = 0; blockIndex < depths_.blocks; blockIndex++) {
      const Depths::Block k = depths_.block(blockIndex);
      for (int64_t p = 0; p < panels; p++) {
        const int64_t column = n + p * kColumns;
        TileJob job;
        job.steps = k.steps;
        job.resume = !k.chunkBegins;
        job.next = nullptr;
        job.lines = 0;
        job.stepB = Format::kBytesB;
        job.halfB = Format::kBytesB / 2;
        const char* next = nullptr;
        if (g_.packedB || packed.b) {
          const char* from =
              packed.b
                  ? packed.b + (column - packed.bFirstColumn) / kColumns * depths_.steps * Format::kBytesB
                  : static_cast<const char*>(g_.b) + column / kColumns * depths_.steps * Format::kBytesStored;
          const char* at = from + k.firstStep * stepBytes;
          job.b = at;
          if (!packed.b && direct) {
            job.stepB = Format::kStoredStep;
            job.halfB = half;
          }
          if (!packed.b && !direct) {
            Format::prepare(at, half, k.steps, own);
            job.b = own;
          } else if (p + 1 < panels || tiles == 1) {
            // The panel after this one is asked for while this one is multiplied; with few rows, what comes
            // next in it.
            const int64_t lines = quotientUp(k.steps * storedBytes, 64);
            next = tiles == 1 ? at + 8192 : at + depths_.steps * storedBytes;
            job.lines = int(quotientUp(lines, tiles * k.steps));
          }
        } else {
          packColumns(matrix, column, k, own);
          job.b = own;
        }
        const int wide = int(lesser(kColumns, columns - p * kColumns));
        for (int64_t t = 0; t < tiles; t++) {
          const int high = int(lesser(kRows, rows - t * kRows));
          const int64_t at = p * tiles + t;
          job.a = aAt(packed, m - packed.aFirstRow + t * kRows, k);
          job.sums = sums + at * tileSums;
          if (job.lines > 0) {
            const int64_t done = t * job.lines * k.steps * 64, left = k.steps * stepBytes;
            job.next = next + done + (done >= left ? half - left : 0);
          }
          Format::run(high, wide, job, direct);
          if (k.chunkEnds)
            finish(matrix, m + t * kRows, high, column, wide, job.sums,
                   totals ? totals + at * kSums : nullptr, k.chunk > 0, k.last, bias + p * kColumns);
        }
      }
    }
  }

  static void widen(const T* from, int64_t count, int64_t width, float* to) {
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t left = count - i;
      store(to + i, loadPartial(from + i, int(left < 0 ? 0 : lesser(left, kLanes))));
    }
  }

  // A chunk of k is done: its chains are joined and added to the chunks before it; after the last one the
  // result is rounded and stored.
  void finish(int64_t matrix, int64_t m, int rows, int64_t n, int columns, const float* sums, float* totals,
              bool hasTotal, bool last, const float* bias) const {
    const auto total = [&](int r, int v) __attribute__((always_inline)) {
      const int64_t at = r * kColumns + v * kLanes;
      Vec x = load(sums + at);
      if constexpr (kChains == 2) x = x + load(sums + kSums + at);
      return hasTotal ? load(totals + at) + x : x;
    };
    if (!last) {
      for (int r = 0; r < rows; r++)
        for (int v = 0; v < kColumns / kLanes; v++) store(totals + r * kColumns + v * kLanes, total(r, v));
      return;
    }
    const int64_t c = matrix * g_.strideC + m * g_.ldc + n;
    const float* addend =
        g_.addend ? g_.addend + (g_.accumulate ? matrix * g_.strideC : 0) + m * g_.ldAddend + n : nullptr;
    dispatchFloat(g_.out, [&](auto like) {
      using Out = decltype(like);
      Out* to = static_cast<Out*>(g_.c) + c;
      for (int r = 0; r < rows; r++) {
        for (int i = 0; i < columns; i += kLanes) {
          const int wide = columns - i;
          Vec y = total(r, i / kLanes);
          if (g_.bias) y = y + load(bias + i);
          if (wide >= kLanes) {
            if (addend) y = load(addend + r * g_.ldAddend + i) + y;
            store(to + r * g_.ldc + i, y);
          } else {
            if (addend) y = loadPartial(addend + r * g_.ldAddend + i, wide) + y;
            storePartial(to + r * g_.ldc + i, y, wide);
          }
        }
      }
    });
  }

  GemmArgs g_;
  Depths depths_;
  int64_t blockRows_ = 0;
};

// The format of a dtype at this level.
template <int Chains, class F>
ISA_INLINE void withFormat(DType dtype, F&& body) {
  switch (dtype) {
#if ISA_LEVEL >= 4
    case DType::float16:
      return body(Tiles<2, Chains>{});
    case DType::bfloat16:
      return body(Tiles<1, Chains>{});
#else
    case DType::float16:
      return body(Fused<Half, Chains>{});
    case DType::bfloat16:
#if ISA_LEVEL == 3
      return body(Pairs<Chains>{});
#else
      return body(Fused<BFloat16, Chains>{});
#endif
#endif
    default:
      return body(Fused<float, Chains>{});
  }
}

template <int Chains>
static void multiply(const GemmArgs& args, Workers& workers) {
  if (args.m == 0 || args.n == 0 || args.batch == 0) return;
  withFormat<Chains>(args.in, [&](auto format) { Product<decltype(format)>(args).run(workers); });
}

}  // namespace isopolicy::ISA_PASS
