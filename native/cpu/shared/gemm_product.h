// How a matrix product is cut into blocks, packed and shared among threads: the same for both families and
// every format of gemm_tile.h.
//
// C is cut into blocks of rows x columns; k into blocks whose panel of B stays in L1 while the rows of a
// block pass over it. A task is a block, whose rows of A are packed ahead for all threads, or all blocks of
// some rows, which it packs itself. B is packed ahead where many blocks of rows read it, else block by block
// by the task itself; packed weights are read in place. Of gradients of weights, and of small products
// on several threads, a task packs both operands slice by slice of k; where few columns take A the tiles load
// it as it is stored. With splitK each chunk of k has chains of its own, and the chunks are added in order.
// Included once a pass, inside it, after each_vector.h and gemm_tile.h: no guard.
#include "cpu/shared/gemm_depths.h"
#include "cpu/shared/gemm_output.h"

namespace isopolicy::ISA_PASS {

// Bytes of A that a block of rows may have: over all of k it then stays in L2 beside a panel of B and its
// sums, so that B goes by once, a panel after the other.
inline constexpr int64_t kBlockBytes = int64_t(1) << 20;
// With fewer rows than these B would go by too often. Then k goes block by block over a square of C instead,
// whose sums (half a MiB) stay in L2 with a slice of A and one of B.
inline constexpr int64_t kLeastRows = 192, kSquareRows = 512, kSquareColumns = 256;
// The same of a gradient of weights, whose operands both lie across k: where all columns of some rows have
// few enough sums, a task packs both slice by slice as it comes to them, each read once, in long rows.
inline constexpr int64_t kSlicedBytes = int64_t(1) << 20, kMostSliced = 1024;
// Where packing takes little beside the product, a thread that has so many rows or columns of its own packs
// all that it needs by itself, even if others pack the same: that takes less than to wait for them and to
// read out of their caches. Else it does so with operands of so many bytes.
inline constexpr int64_t kLeastApart = 64, kPackedTwice = int64_t(160) << 10;
// From so many rows a thread on, each thread packs its own and reads all of B; with fewer it does where B is
// this small. Else all pack A ahead and share out the columns, so that B is read once.
template <class Format>
inline constexpr int64_t kLeastOwnRows = Format::kCheapPacking ? 192 : 512;
inline constexpr int64_t kSmallBytes = int64_t(1) << 20;
// With so few columns and so small a k packing A takes longer than what it saves the tiles.
inline constexpr int64_t kFewColumns = 512, kFewDepth = 512;
// Bytes that are packed ahead for all threads (a share of L3).
inline constexpr int64_t kPackedAhead = int64_t(8) << 20;
// Multiply-adds worth a thread of its own: some microseconds.
inline constexpr int64_t kProductGrain = int64_t(1) << 18;

template <class Format>
class FewRows;

template <class Format>
class Product {
  friend class FewRows<Format>;

 public:
  using T = typename Format::Element;

  Product(const Product&) = delete;
  explicit Product(const GemmArgs& args)
      : g_(args),
        depths_(args.k, args.splitK, Format::kBlock, Format::kStepLength),
        output_(g_, g_.packedB ? bytesOfB() : 0) {
    if (g_.accumulate) {
      g_.addend = static_cast<const float*>(g_.c);
      g_.ldAddend = g_.ldc;
    }
  }

  void run(Workers& workers) {
    if (FewRows<Format>::takes(g_)) return FewRows<Format>(*this).run(workers);
    cut(workers.threads());
    if (g_.batch > 1)
      eachRows(workers, Packed{}, 0, g_.n);
    else
      oneMatrix(workers);
  }

 private:
  static constexpr int kRows = Format::kRows, kColumns = Format::kColumns, kChains = Format::kChains;
  static constexpr int64_t kSums = kRows * kColumns;  // of a chain of a tile
  static constexpr int64_t kFewTiles = 3;             // which hardly hide the reading of B

  // Tiles of A and panels of B that are packed together: several where their lanes lie side by side, since
  // memory gives a few lines in a row sooner than as many far apart.
  int64_t tilesPacked() const { return g_.transposeA ? Format::kTilesPacked : 1; }
  int64_t panelsPacked() const { return g_.transposeB ? 1 : Format::kPanelsPacked; }

  // Columns of a plain B that a few rows of A take at a time: long reads, whose sums stay in L2.
  static constexpr int64_t kStreamedColumns = 2048;
  bool streams() const {
    return Format::kStreamedRows > 0 && !g_.packedB && !g_.transposeB && g_.batch == 1 &&
           g_.m <= Format::kStreamedRows;
  }

  // As packed weights have it.
  int64_t bytesOfB() const { return quotientUp(g_.n, kColumns) * depths_.steps * Format::kBytesStored; }

  // Operands as a task finds them: packed ahead, or null where it packs them itself. With aEmpty it packs A
  // there.
  struct Packed {
    char* a = nullptr;
    int64_t aFirstRow = 0, aTiles = 0;
    bool aEmpty = false;
    const char* b = nullptr;
    int64_t bFirstColumn = 0;
  };

  // Settles rows and columns of a block, and who packs A.
  void cut(int threads) {
    const int64_t rowBytes = depths_.steps * Format::kBytesA / kRows + 1;
    const int64_t fitting = kBlockBytes / rowBytes;
    const bool whole = fitting >= lesser(kLeastRows, g_.m);
    shareRows();
    const int64_t high = whole ? fitting / tall_ * tall_ : roundUp(kSquareRows / kChains, tall_);
    int64_t down = quotientUp(g_.m, high > 0 ? high : tall_);
    const int64_t even = roundUp(down, threads);
    ownRows_ = g_.batch * down >= 4 * threads || g_.m >= even * kLeastOwnRows<Format> ||
               (bytesOfB() <= kSmallBytes && g_.m >= even * tall_) || threads == 1;
    if (ownRows_ && g_.batch * down < 4 * threads && g_.batch % threads != 0) down = even;
    high_ = roundUp(quotientUp(g_.m, down), tall_);
    // Of squares a panel packed ahead would be long gone from the caches.
    const bool again = Format::kCheapPacking ? whole && quotientUp(g_.m, high_) > 2 * threads : g_.m > high_;
    sharesB_ = !g_.packedB && g_.batch == 1 && again;
    wide_ = !whole ? kSquareColumns : g_.packedB || sharesB_ ? kColumns : panelsPacked() * kColumns;
    if (streams()) wide_ = lesser(kStreamedColumns, roundUp(quotientUp(g_.n, threads), kColumns));
    if (!g_.packedB && g_.batch == 1 && !streams()) {
      if (!whole && g_.transposeA && !g_.transposeB && g_.n <= kMostSliced)
        cutSliced(threads);
      else if (threads > 1)
        cutApart(threads);
    }
    storedRows_ = Format::kTakesStoredRows && (ownRows_ || sliced_) && !g_.transposeA &&
                  g_.n <= kFewColumns && g_.k <= kFewDepth &&
                  (g_.k | depths_.chunk) % Format::kStepLength == 0 && g_.m % (kRows / 2) == 0 &&
                  (g_.lda | (g_.batch > 1 ? g_.strideA : 0)) * int64_t(sizeof(T)) % 64 == 0 &&
                  reinterpret_cast<uintptr_t>(g_.a) % 64 == 0;
  }

  // A few tiles have as many rows each: in a last one of a row or two each step would wait for the one
  // before.
  void shareRows() {
    if (Format::kSharesRows && !g_.transposeA && !streams() && g_.m <= kFewTiles * kRows)
      tall_ = quotientUp(g_.m, quotientUp(g_.m, kRows));
  }

  void cutSliced(int threads) {
    const int64_t wide = roundUp(g_.n, kColumns), high = kSlicedBytes / (wide * 4 * kChains);
    int64_t down = quotientUp(g_.m, high);
    if (down > 2 * threads) return;
    sliced_ = true;
    wide_ = wide;
    if (down == 1 && g_.n > g_.m)
      wide_ = roundUp(quotientUp(g_.n, threads), kColumns);
    else
      down = roundUp(down, threads);
    high_ = roundUp(quotientUp(g_.m, down), kRows);
  }

  // A small product: each thread has columns, or rows, of its own and packs all that it needs by itself.
  void cutApart(int threads) {
    const bool byColumns = g_.n >= g_.m;
    const int64_t split = byColumns ? g_.n : g_.m, whole = byColumns ? g_.m : g_.n;
    const int64_t part = roundUp(quotientUp(split, threads), byColumns ? kColumns : kRows);
    const bool apart =
        Format::kCheapPacking ? part >= kLeastApart : whole * g_.k * int64_t(sizeof(T)) <= kPackedTwice;
    if (part >= split || !apart || part * whole * 4 * kChains > kSlicedBytes) return;
    sliced_ = true;
    high_ = byColumns ? roundUp(g_.m, kRows) : part;
    wide_ = byColumns ? part : roundUp(g_.n, kColumns);
  }

  void oneMatrix(Workers& workers) {
    if (sliced_) return eachBlock(workers, Packed{}, 0, g_.m, 0, g_.n);
    const int64_t panelBytes = depths_.steps * Format::kBytesB + 1;
    const int64_t slabColumns =
        sharesB_ ? (kPackedAhead / panelBytes > 1 ? kPackedAhead / panelBytes : 1) * kColumns : g_.n;
    const int64_t rowBytes = depths_.steps * Format::kBytesA / kRows + 1;
    const int64_t slabRows = ownRows_ || rowBytes * g_.m <= kPackedAhead
                                 ? g_.m
                                 : roundUp(lesser(g_.m, kPackedAhead / rowBytes), high_);
    Scratch scratch;
    Packed packed;
    if (!ownRows_)
      packed.a =
          scratch.get<char>(quotientUp(lesser(slabRows, g_.m), tall_) * depths_.steps * Format::kBytesA);
    char* bAhead = nullptr;
    if (sharesB_)
      bAhead = scratch.get<char>(quotientUp(lesser(slabColumns, g_.n), kColumns) * depths_.steps *
                                 Format::kBytesB);
    packed.b = bAhead;
    for (int64_t n = 0; n < g_.n; n += slabColumns) {
      const int64_t columns = lesser(slabColumns, g_.n - n);
      packed.bFirstColumn = n;
      if (ownRows_) {
        packAhead(workers, packed, 0, bAhead, n, columns);
        eachRows(workers, packed, n, columns);
        continue;
      }
      for (int64_t m = 0; m < g_.m; m += slabRows) {
        const int64_t rows = lesser(slabRows, g_.m - m);
        packed.aFirstRow = m;
        packed.aTiles = quotientUp(rows, tall_);
        const bool packsA = n == 0 || slabRows < g_.m;
        packAhead(workers, packed, packsA ? rows : 0, m == 0 ? bAhead : nullptr, n, columns);
        eachBlock(workers, packed, m, rows, n, columns);
      }
    }
  }

  // So many rows of A and, where bAhead is not null, B: piece by piece, a piece one tile or panel over one
  // block of k.
  void packAhead(Workers& workers, const Packed& packed, int64_t rows, char* bAhead, int64_t n,
                 int64_t columns) {
    const int64_t high = tilesPacked() * tall_, wide = panelsPacked() * kColumns;
    const int64_t down = quotientUp(rows, high);
    const int64_t across = bAhead ? quotientUp(columns, wide) : 0;
    const int64_t blocks = depths_.blocks, panelBytes = depths_.steps * Format::kBytesB;
    workers.parallelFor((down + across) * blocks, quotientUp(int64_t(1) << 15, kRows * Format::kBlock),
                        [&](int64_t begin, int64_t end) {
                          for (int64_t i = begin; i < end; i++) {
                            const Depths::Block k = depths_.block(i % blocks);
                            const int64_t piece = i / blocks;
                            if (piece < down) {
                              const int64_t row = piece * high;
                              packRows(0, packed.aFirstRow + row, lesser(high, rows - row), k,
                                       aAt(packed, piece * tilesPacked(), k));
                            } else {
                              const int64_t column = (piece - down) * wide;
                              packColumns(
                                  0, n + column, lesser(wide, columns - column), k,
                                  bAhead + column / kColumns * panelBytes + k.firstStep * Format::kBytesB,
                                  panelBytes);
                            }
                          }
                        });
  }

  char* aAt(const Packed& packed, int64_t tile, const Depths::Block& k) const {
    return packed.a + (k.firstStep * packed.aTiles + tile * k.steps) * Format::kBytesA;
  }

  const T* aStored(int64_t matrix, int64_t m, int64_t k) const {
    const T* a = static_cast<const T*>(g_.a) + matrix * g_.strideA;
    return g_.transposeA ? a + k * g_.lda + m : a + m * g_.lda + k;
  }
  const T* bStored(int64_t matrix, int64_t n, int64_t k) const {
    const T* b = static_cast<const T*>(g_.b) + matrix * g_.strideB;
    return g_.transposeB ? b + n * g_.ldb + k : b + k * g_.ldb + n;
  }

  // Rows of tiles that are packed together.
  void packRows(int64_t matrix, int64_t m, int64_t rows, const Depths::Block& k, char* to) const {
    Format::packA({aStored(matrix, m, k.begin), g_.lda, !g_.transposeA, rows, k.length}, k.steps, to);
  }

  void packColumns(int64_t matrix, int64_t column, int64_t columns, const Depths::Block& k, char* to,
                   int64_t panelBytes) const {
    Format::packB({bStored(matrix, column, k.begin), g_.ldb, g_.transposeB, columns, k.length}, k.steps, to,
                  panelBytes);
  }

  // Shares out the blocks of C in rows m .. and columns n ..; smaller blocks where there would be too few.
  void eachBlock(Workers& workers, const Packed& packed, int64_t m, int64_t rows, int64_t n,
                 int64_t columns) {
    int64_t wide = wide_;
    const auto blocks = [&] { return quotientUp(rows, high_) * quotientUp(columns, wide); };
    while (blocks() < 4 * workers.threads() && blocks() % workers.threads() != 0 && wide > kColumns)
      wide /= 2;
    const int64_t across = quotientUp(columns, wide);
    const int64_t work = lesser(high_, rows) * wide * (g_.k + 16);
    workers.parallelFor(blocks(), quotientUp(kProductGrain, work), [&](int64_t begin, int64_t end) {
      [[maybe_unused]] typename Format::Scope scope;
      for (int64_t i = begin; i < end; i++) {
        const int64_t row = m + i / across * high_, column = n + i % across * wide;
        block(packed, 0, row, lesser(high_, m + rows - row), column, lesser(wide, n + columns - column));
      }
      if (output_.past()) fencePastCaches();
    });
  }

  // A block of rows a task, which packs them and goes over all columns: its part of A stays in the thread's
  // caches.
  void eachRows(Workers& workers, const Packed& ahead, int64_t n, int64_t columns) {
    const int64_t down = quotientUp(g_.m, high_), tiles = quotientUp(g_.m, tall_);
    // In equal parts, or in whole tiles.
    const auto firstRow = [&](int64_t i) {
      return Format::kSharesRows ? g_.m * i / down : lesser(g_.m, tiles * i / down * tall_);
    };
    const int64_t work = lesser(high_, g_.m) * columns * (g_.k + 16);
    workers.parallelFor(g_.batch * down, quotientUp(kProductGrain, work), [&](int64_t begin, int64_t end) {
      [[maybe_unused]] typename Format::Scope scope;
      Scratch scratch;
      Packed packed = ahead;
      packed.a = scratch.get<char>(quotientUp(lesser(high_, g_.m), tall_) * depths_.steps * Format::kBytesA);
      for (int64_t i = begin; i < end; i++) {
        const int64_t matrix = i / down;
        packed.aFirstRow = firstRow(i % down);
        const int64_t rows = firstRow(i % down + 1) - packed.aFirstRow;
        packed.aTiles = quotientUp(rows, tall_);
        for (int64_t column = n; column < n + columns; column += wide_) {
          packed.aEmpty = column == n && !storedRows_;
          block(packed, matrix, packed.aFirstRow, rows, column, lesser(wide_, n + columns - column));
        }
      }
      if (output_.past()) fencePastCaches();
    });
  }

  // One block of C, over all of k.
  void block(const Packed& packed, int64_t matrix, int64_t m, int64_t rows, int64_t n,
             int64_t columns) const {
    Scratch scratch;
    const int64_t tiles = quotientUp(rows, tall_), panels = quotientUp(columns, kColumns);
    const int64_t first = (m - packed.aFirstRow) / tall_;  // of packed.a
    const auto tileRows = [&](int64_t t) { return int(lesser(tall_, rows - t * tall_)); };
    const int64_t tileSums = kChains * kSums;
    float* sums = scratch.get<float>(tiles * panels * tileSums);
    float* totals =
        depths_.blocks > depths_.blocksAChunk ? scratch.get<float>(tiles * panels * kSums) : nullptr;
    const bool direct = g_.packedB && tiles <= Format::kMostDirectTiles;
    const int64_t group = g_.packedB ? 1 : panelsPacked();
    char* own = packed.b || direct
                    ? nullptr
                    : scratch.get<char>(group * (Format::kBlock / Format::kStepLength) * Format::kBytesB);
    char* slice = packed.a || storedRows_
                      ? nullptr
                      : scratch.get<char>(tiles * (Format::kBlock / Format::kStepLength) * Format::kBytesA);
    float* bias = scratch.get<float>(g_.bias ? panels * kColumns : 0);
    output_.widenBias(n, columns, panels * kColumns, bias);

    const bool putsTiles = output_.putByTile() && !totals;
    const int64_t storedBytes = packed.b ? Format::kBytesB : Format::kBytesStored;
    const int64_t stepBytes = packed.b ? Format::kBytesB : Format::kStoredStep;
    const int64_t half = depths_.steps * stepBytes;  // from a stored left half to the right one
    for (int64_t blockIndex = 0; blockIndex < depths_.blocks; blockIndex++) {
      const Depths::Block k = depths_.block(blockIndex);
      const auto tileAt = [&](int64_t t) {
        return slice ? slice + t * k.steps * Format::kBytesA : aAt(packed, first + t, k);
      };
      const auto packTile = [&](int64_t t, int64_t together) {
        packRows(matrix, m + t * tall_, lesser(together * tall_, rows - t * tall_), k, tileAt(t));
      };
      const bool packsA = slice || packed.aEmpty;
      // Rows along k are packed tile by tile, each right before it is read; across k, where tiles share
      // lines, all at once.
      const bool packsAll = packsA && (!Format::kLazy || g_.transposeA || streams());
      if (packsAll)
        for (int64_t t = 0; t < tiles; t += tilesPacked()) packTile(t, tilesPacked());
      if constexpr (Format::kStreamedRows > 0) {
        if (streams()) {
          streamBlock(packed, m, rows, n, columns, k, sums, totals, bias);
          continue;
        }
      }
      const int64_t next = k.begin + k.length;
      const int turn = tiles <= kFewTiles ? Format::kTurnOfFew : Format::kTurn;
      const int64_t turns = k.steps / turn, turnsOfA = panels * tiles * turns;
      const int rowsATurn = turns > 0 ? int(quotientUp(kRows, turns)) : 0;
      Ahead nextA;
      if (packsA) {
        const int64_t length = lesser(Format::kBlock, g_.k - next);
        if (!k.last)
          nextA = g_.transposeA ? rowsAhead(aStored(matrix, m, next), g_.lda, length, rows, turnsOfA)
                                : rowsAhead(aStored(matrix, m, next), g_.lda, rows, length, turnsOfA);
      } else if (panels > 1 && !k.last && !storedRows_) {
        nextA = linesAhead(aAt(packed, first, depths_.block(blockIndex + 1)),
                           tiles * k.steps * Format::kBytesA, turnsOfA);
      }
      for (int64_t p = 0; p < panels; p++) {
        const int64_t column = n + p * kColumns;
        TileJob job;
        job.steps = k.steps;
        job.turn = turn;
        job.resume = !k.chunkBegins;
        job.stepB = Format::kBytesB;
        job.halfB = Format::kBytesB / 2;
        job.rowA = storedRows_ ? g_.lda * int64_t(sizeof(T)) : 64;
        job.halfA = storedRows_ ? kRows / 2 * job.rowA : Format::kBytesA / 2;
        job.stepA = storedRows_ ? 64 : Format::kBytesA;
        Ahead nextB;
        int64_t turnOfB = 0;
        if (g_.packedB || packed.b) {
          const int64_t panelBytes = depths_.steps * storedBytes;
          const char* from = packed.b ? packed.b + (column - packed.bFirstColumn) / kColumns * panelBytes
                                      : static_cast<const char*>(g_.b) + column / kColumns * panelBytes;
          const char* at = from + k.firstStep * stepBytes;
          job.b = at;
          if (!packed.b && direct) {
            job.stepB = Format::kStoredStep;
            job.halfB = half;
          }
          if (!packed.b && !direct) {
            Format::prepare(at, half, k.steps, own);
            job.b = own;
          }
          const char* soon = p + 1 < panels ? at + panelBytes
                             : k.last       ? from + panelBytes
                                            : from - p * panelBytes + (k.firstStep + k.steps) * stepBytes;
          nextB = linesAhead(soon, k.steps * storedBytes, tiles * turns, stepBytes < storedBytes ? half : 0);
        } else {
          const int64_t panelBytes = k.steps * Format::kBytesB;
          if (p % group == 0)
            packColumns(matrix, column, lesser(group * kColumns, n + columns - column), k, own, panelBytes);
          job.b = own + p % group * panelBytes;
          nextB = ownAfter(matrix, n, columns, p / group * group, k, group * tiles * turns);
          turnOfB = p % group * tiles * turns;
        }
        const int wide = int(lesser(kColumns, columns - p * kColumns));
        for (int64_t t = 0; t < tiles; t++) {
          const int high = tileRows(t);
          const int64_t at = p * tiles + t;
          if (storedRows_)
            job.a = aStored(matrix, m + t * tall_, k.begin);
          else
            job.a = tileAt(t);
          const bool packsTile = packsA && !packsAll && p == 0;
          if (packsTile) packTile(t, 1);
          if (p == 0 && (panels == 1 || blockIndex == 0) && (packsTile || (storedRows_ && n == 0)))
            job.nextA = rowsAhead(aStored(matrix, m + (t + 1) * tall_, k.begin), g_.lda,
                                  lesser(tall_, g_.m - m - (t + 1) * tall_), k.length, turns)
                            .share(0);
          else
            job.nextA = nextA.share(at * turns);
          job.sums = sums + at * tileSums;
          job.nextB = nextB.share(turnOfB + t * turns);
          if (k.last) {
            const bool lowest = t + 1 == tiles;  // then the next tile is the uppermost of the next panel
            job.nextC = lowest && p + 1 == panels ? SoonWritten{}
                        : lowest
                            ? output_.soon(matrix, m, tileRows(0), column + kColumns, rowsATurn)
                            : output_.soon(matrix, m + (t + 1) * tall_, tileRows(t + 1), column, rowsATurn);
          }
          const bool puts = putsTiles && k.last && high == kRows && wide == kColumns;
          job.out = puts ? output_.tile(matrix, m + t * tall_, column) : TileOut{};
          Format::run(high, wide, job, direct);
          if (k.chunkEnds && !puts)
            output_.finish(matrix, m + t * tall_, high, column, wide, job.sums,
                           totals ? totals + at * kSums : nullptr, k.chunk > 0, k.last, bias + p * kColumns);
        }
      }
    }
  }

  // What a block that packs B itself packs after the panels from `panel` on: the next panels, or the first
  // ones of the next k.
  Ahead ownAfter(int64_t matrix, int64_t n, int64_t columns, int64_t panel, const Depths::Block& k,
                 int64_t turns) const {
    const int64_t wide = panelsPacked() * kColumns;
    const bool deeper = (panel + panelsPacked()) * kColumns >= columns && !k.last;
    const int64_t column = deeper ? n : n + panel * kColumns + wide;
    const int64_t begin = deeper                                           ? k.begin + k.length
                          : (panel + panelsPacked()) * kColumns >= columns ? 0
                                                                           : k.begin;
    const int64_t count = lesser(wide, g_.n - column), length = lesser(Format::kBlock, g_.k - begin);
    if (count <= 0) return {};
    const T* at = bStored(matrix, column, begin);
    return g_.transposeB ? rowsAhead(at, g_.ldb, count, length, turns)
                         : rowsAhead(at, g_.ldb, length, count, turns);
  }

  // A block of k of the same, of a plain B that is read as it lies.
  void streamBlock(const Packed& packed, int64_t m, int64_t rows, int64_t n, int64_t columns,
                   const Depths::Block& k, float* sums, float* totals, const float* bias) const {
    const int64_t tiles = quotientUp(rows, tall_), tileSums = kChains * kSums;
    const int64_t first = (m - packed.aFirstRow) / tall_;
    TileJob job;
    job.b = static_cast<const T*>(g_.b) + k.begin * g_.ldb + n;
    job.steps = k.steps;
    job.resume = !k.chunkBegins;
    for (int64_t t = 0; t < tiles; t++) {
      const int high = int(lesser(tall_, rows - t * tall_));
      job.a = aAt(packed, first + t, k);
      job.sums = sums + t * tileSums;
      Format::stream(high, columns, job, g_.ldb, tiles * tileSums);
      for (int64_t p = 0; k.chunkEnds && p * kColumns < columns; p++) {
        const int64_t at = p * tiles + t, column = p * kColumns;
        output_.finish(0, m + t * tall_, high, n + column, int(lesser(kColumns, columns - column)),
                       sums + at * tileSums, totals ? totals + at * kSums : nullptr, k.chunk > 0, k.last,
                       bias + column);
      }
    }
  }

  GemmArgs g_;
  Depths depths_;
  Output<Format> output_;
  int64_t tall_ = kRows;         // rows of a tile
  int64_t high_ = 0, wide_ = 0;  // rows and columns of a block
  bool sliced_ = false;          // a block packs A slice by slice
  bool storedRows_ = false;      // A is taken as it is stored
  bool ownRows_ = false;         // a task packs its rows of A and has all columns, else A is packed ahead
  bool sharesB_ = false;         // many blocks of rows read the same panels of B, packed ahead
};

// The format of a dtype that this level multiplies in a way of its own.
template <int Chains, class F>
ISA_INLINE void withFormat(DType dtype, F&& body) {
#if ISA_LEVEL >= 4
  if (dtype == DType::float16) return body(Tiles<2, Chains>{});
  return body(Tiles<1, Chains>{});
#elif ISA_LEVEL == 3
  return body(Pairs<Chains>{});
#else
  if (dtype == DType::float16) return body(Fused<Half, Chains>{});
  if (dtype == DType::bfloat16) return body(Fused<BFloat16, Chains>{});
  return body(Fused<float, Chains>{});
#endif
}

template <int Chains>
static void multiply(const GemmArgs& args, Workers& workers) {
  if (args.m == 0 || args.n == 0 || args.batch == 0) return;
  withFormat<Chains>(args.in, [&](auto format) { Product<decltype(format)>(args).run(workers); });
}

}  // namespace isopolicy::ISA_PASS
