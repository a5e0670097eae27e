// Products of few rows with packed weights on tile registers: a tile or two of rows, so that the time is that
// of reading the weights.
//
// A panel of packed weights is two streams far apart, its left and its right sixteen columns over all of k: a
// core has more lines on their way for two streams that are asked for half a kilobyte ahead than for one, and
// fewer for what is asked for further ahead. A panel is walked once, from its first step to its last, with
// its sums in tile registers. fp16 is split into its two parts a step ahead of the tiles that read them, line
// by line between their products: a tile that is loaded from lines just stored would wait for them. All rows
// of A, packed for all threads, stay in L1 or L2. The order of a sum is that of gemm_tile.h. Included once a
// pass, inside it, after gemm_few_rows.h: no guard.

namespace isopolicy::ISA_PASS {

#if ISA_LEVEL >= 4
// The way of a task through its panels, chunk by chunk of k: a step is a tile of each side.
struct Walk {
  const char *a, *left, *right;
  const char *nextLeft, *nextRight;  // where the walk goes on, or any weights where it ends
  int64_t steps;
  float* sums;  // [chain][32 rows][32 columns]
  // Lines of the output, which are asked for on the way: one a row.
  const char* out;
  int64_t outStride;
  int outRows;
};

template <int Parts, int Chains>
class FewRows<Tiles<Parts, Chains>> {
  using Format = Tiles<Parts, Chains>;
  using T = typename Format::Element;

 public:
  explicit FewRows(const Product<Format>& product)
      : p_(product), g_(product.g_), height_(g_.m <= 16 ? int(g_.m) : 32), stepA_(Parts * height_ * 64) {}

  static bool takes(const GemmArgs& g) { return g.packedB && g.batch == 1 && g.m <= 32 && g.k > 0; }

  void run(Workers& workers) const {
    Scratch scratch;
    char* a = scratch.get<char>(p_.depths_.steps * stepA_);
    packRows(workers, a);
    const int64_t work = 32 * kColumns * (g_.k + 16);
    workers.parallelFor(quotientUp(g_.n, kColumns), quotientUp(kProductGrain, work),
                        [&](int64_t begin, int64_t end) { walkPanels(a, begin, end); });
  }

 private:
  static constexpr int kColumns = Format::kColumns;
  static constexpr int64_t kSums = 32 * kColumns;  // of a chain

  // [step][part][row][32 k], as many rows as there are or 32.
  void packRows(Workers& workers, char* to) const {
    const T* a = static_cast<const T*>(g_.a);
    constexpr int64_t kPiece = 32 * kTileDepth;
    workers.parallelFor(
        quotientUp(g_.k, kPiece), quotientUp(1 << 16, g_.m * kPiece), [&](int64_t begin, int64_t end) {
          const int64_t k = begin * kPiece, length = lesser(g_.k, end * kPiece) - k;
          const Source<T> x{g_.transposeA ? a + k * g_.lda : a + k, g_.lda, !g_.transposeA, g_.m, length};
          char* first = to + k / kTileDepth * stepA_;
          eachLane(x, quotientUp(length, kTileDepth) * 16, height_,
                   [&](int64_t row, int64_t pair, Vec words) {
                     Format::put(first + pair / 16 * stepA_ + row * 64, words, height_ * 64);
                   });
        });
  }

  void walkPanels(const char* a, int64_t begin, int64_t end) const {
    const TileScope tiles(g_.m <= 16 ? int(g_.m) : 16);
    const Depths& depths = p_.depths_;
    const int64_t chunks = quotientUp(depths.blocks, depths.blocksAChunk);
    const int64_t side = depths.steps * kTileBytes;
    Scratch scratch;
    float* sums = scratch.get<float>(Chains * kSums);
    float* totals = chunks > 1 ? scratch.get<float>(kSums) : nullptr;
    float* bias = scratch.get<float>(kColumns);
    Ring ring(scratch);
    for (int64_t panel = begin; panel < end; panel++) {
      const int64_t n = panel * kColumns;
      const int columns = int(lesser(kColumns, g_.n - n));
      p_.output_.widenBias(n, columns, kColumns, bias);
      for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t first = chunk * depths.stepsAChunk;
        const bool last = chunk == chunks - 1;
        Walk w;
        w.steps = lesser(depths.stepsAChunk, depths.steps - first);
        w.a = a + first * stepA_;
        w.left = static_cast<const char*>(g_.b) + panel * 2 * side + first * kTileBytes;
        w.right = w.left + side;
        const bool ends = last && panel + 1 == end;
        w.nextLeft = ends ? w.left : w.left + w.steps * kTileBytes + (last ? side : 0);
        w.nextRight = w.nextLeft + side;
        w.sums = sums;
        w.outStride = g_.ldc * int64_t(bytesOf(g_.out));
        w.out = static_cast<const char*>(g_.c) + n * int64_t(bytesOf(g_.out));
        w.outRows = last && !p_.output_.past() ? int(g_.m) : 0;
        if (panel == begin && chunk == 0) ring.begin(w);
        if (g_.m <= 16)
          shallow(w, ring);
        else if constexpr (Chains == 1)
          deep(w, ring);
        else
          deepBySides(w, ring);
        p_.output_.finish(0, 0, int(g_.m), n, columns, sums, totals, chunk > 0, last, bias);
      }
    }
    if (p_.output_.past()) fencePastCaches();
  }

  // How far ahead a stream is asked for.
  static constexpr int64_t kFetchAhead = 512;
  ISA_INLINE static void fetch(const char* at, int lines) {
#pragma GCC unroll 16
    for (int i = 0; i < lines; i++) __builtin_prefetch(at + kFetchAhead + i * 64);
  }

  // Two slots of split tiles, [side][part], one that is read while the other is filled; of bf16 nothing.
  class Ring {
   public:
    explicit Ring(Scratch& scratch)
        : filled_(Parts == 2 ? scratch.get<char>(2 * kSlot) : nullptr), free_(filled_ + kSlot) {}
    void begin(const Walk& w) {
      if constexpr (Parts == 2)
        for (int quarter = 0; quarter < 4; quarter++) fill(filled_, w.left, w.right, quarter);
    }
    const char* filled() const { return filled_; }
    // A quarter of a step's lines, split into the free slot.
    ISA_INLINE void fill(const char* left, const char* right, int quarter) {
      fill(free_, left, right, quarter);
    }
    ISA_INLINE void fillOne(const char* from, int side, int quarter) { fillSide(free_, from, side, quarter); }
    ISA_INLINE void swap() { std::swap(filled_, free_); }

   private:
    static constexpr int64_t kSlot = 4 * kTileBytes;
    ISA_INLINE static void fillSide(char* slot, const char* from, int side, int quarter) {
      fetch(from + quarter * 256, 4);
#pragma GCC unroll 4
      for (int row = quarter * 4; row < quarter * 4 + 4; row++)
        splitStored(from + row * 64, slot + side * 2 * kTileBytes + row * 64);
    }
    ISA_INLINE static void fill(char* slot, const char* left, const char* right, int quarter) {
      fillSide(slot, left, 0, quarter);
      fillSide(slot, right, 1, quarter);
    }
    char *filled_, *free_;
  };

  ISA_INLINE static void begin() {
    writeOut();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }

  // step(odd, next left, next right) for every step of the walk.
  template <class Step>
  ISA_INLINE static void eachStep(const Walk& w, Step&& step) {
    using Even = std::false_type;
    using Odd = std::bool_constant<Chains == 2>;
    const char *left = w.left, *right = w.right, *out = w.out;
    const int rowsAStep = int(quotientUp(w.outRows, w.steps));
    int rows = w.outRows;
    const auto next = [&](auto odd, bool ends) __attribute__((always_inline)) {
      for (int r = 0; r < rowsAStep && rows > 0; r++, rows--, out += w.outStride) __builtin_prefetch(out, 1);
      const char* soonLeft = ends ? w.nextLeft : left + kTileBytes;
      const char* soonRight = ends ? w.nextRight : right + kTileBytes;
      step(odd, left, right, soonLeft, soonRight);
      left += kTileBytes;
      right += kTileBytes;
    };
    int64_t s = 0;
    for (; s + 2 <= w.steps; s += 2) {
      next(Even(), false);
      next(Odd(), s + 2 == w.steps);
    }
    if (s < w.steps) next(Even(), true);
  }

  // Up to 16 rows. Sum 2 c + side is chain c.
  void shallow(const Walk& w, Ring& ring) const {
    begin();
    const char* a = w.a;
    eachStep(
        w, [&](auto odd, const char* left, const char* right, const char* soonLeft, const char* soonRight)
               __attribute__((always_inline)) {
#define ISA_MULTIPLY(part)      \
  if constexpr (odd) {          \
    _tile_dpbf16ps(2, part, 6); \
    _tile_dpbf16ps(3, part, 7); \
  } else {                      \
    _tile_dpbf16ps(0, part, 6); \
    _tile_dpbf16ps(1, part, 7); \
  }
                 _tile_loadd(4, a, 64);
                 if constexpr (Parts == 1) {
                   fetch(left, 16);
                   _tile_loadd(6, left, 64);
                   fetch(right, 16);
                   _tile_loadd(7, right, 64);
                   ISA_MULTIPLY(4)
                 } else {
                   const char* b = ring.filled();
                   _tile_loadd(5, a + height_ * 64, 64);
                   _tile_loadd(6, b, 64);
                   _tile_loadd(7, b + 2 * kTileBytes, 64);
                   ISA_MULTIPLY(4)
                   ring.fill(soonLeft, soonRight, 0);
                   _tile_loadd(6, b + kTileBytes, 64);
                   _tile_loadd(7, b + 3 * kTileBytes, 64);
                   ISA_MULTIPLY(4)
                   ring.fill(soonLeft, soonRight, 1);
                   ISA_MULTIPLY(5)
                   ring.fill(soonLeft, soonRight, 2);
                   _tile_loadd(6, b, 64);
                   _tile_loadd(7, b + 2 * kTileBytes, 64);
                   ISA_MULTIPLY(5)
                   ring.fill(soonLeft, soonRight, 3);
                   ring.swap();
                   writeOut();
                 }
                 a += stepA_;
#undef ISA_MULTIPLY
               });
    _tile_stored(0, w.sums, kStride);
    _tile_stored(1, w.sums + 16, kStride);
    if (Chains == 2) {
      _tile_stored(2, w.sums + kSums, kStride);
      _tile_stored(3, w.sums + kSums + 16, kStride);
    }
  }

  // 17 to 32 rows, one chain: sum 2 r + side has rows 16 r and on.
  void deep(const Walk& w, Ring& ring) const {
    begin();
    const char* a = w.a;
    eachStep(
        w, [&](auto, const char* left, const char* right, const char* soonLeft, const char* soonRight)
               __attribute__((always_inline)) {
                 const auto multiply = [&]() __attribute__((always_inline)) {
                   _tile_dpbf16ps(0, 4, 6);
                   _tile_dpbf16ps(1, 4, 7);
                   _tile_dpbf16ps(2, 5, 6);
                   _tile_dpbf16ps(3, 5, 7);
                 };
                 _tile_loadd(4, a, 64);
                 _tile_loadd(5, a + kTileBytes, 64);
                 if constexpr (Parts == 1) {
                   fetch(left, 16);
                   _tile_loadd(6, left, 64);
                   fetch(right, 16);
                   _tile_loadd(7, right, 64);
                   multiply();
                 } else {
                   const char* b = ring.filled();
                   _tile_loadd(6, b, 64);
                   _tile_loadd(7, b + 2 * kTileBytes, 64);
                   multiply();
                   ring.fill(soonLeft, soonRight, 0);
                   _tile_loadd(6, b + kTileBytes, 64);
                   _tile_loadd(7, b + 3 * kTileBytes, 64);
                   multiply();
                   ring.fill(soonLeft, soonRight, 1);
                   _tile_loadd(4, a + 2 * kTileBytes, 64);
                   _tile_loadd(5, a + 3 * kTileBytes, 64);
                   multiply();
                   ring.fill(soonLeft, soonRight, 2);
                   _tile_loadd(6, b, 64);
                   _tile_loadd(7, b + 2 * kTileBytes, 64);
                   multiply();
                   ring.fill(soonLeft, soonRight, 3);
                   ring.swap();
                   writeOut();
                 }
                 a += stepA_;
               });
    _tile_stored(0, w.sums, kStride);
    _tile_stored(1, w.sums + 16, kStride);
    _tile_stored(2, w.sums + 16 * kColumns, kStride);
    _tile_stored(3, w.sums + 16 * kColumns + 16, kStride);
  }

  // 17 to 32 rows, two chains: one side after the other, since the sums of both would be eight tiles.
  void deepBySides(const Walk& w, Ring& ring) const {
    for (int side = 0; side < 2; side++) {
      begin();
      const char* a = w.a;
      // The other stream of the walk is this side's own.
      Walk one = w;
      one.left = side ? w.right : w.left;
      one.nextLeft = side ? w.nextLeft : w.right;
      if (side == 0) one.outRows = 0;
      eachStep(
          one, [&](auto odd, const char* b, const char*, const char* soon, const char*)
                   __attribute__((always_inline)) {
                     const auto multiply = [&](auto part) __attribute__((always_inline)) {
                       if constexpr (odd && part) {
                         _tile_dpbf16ps(2, 4, 7);
                         _tile_dpbf16ps(3, 5, 7);
                       } else if constexpr (odd) {
                         _tile_dpbf16ps(2, 4, 6);
                         _tile_dpbf16ps(3, 5, 6);
                       } else if constexpr (part) {
                         _tile_dpbf16ps(0, 4, 7);
                         _tile_dpbf16ps(1, 5, 7);
                       } else {
                         _tile_dpbf16ps(0, 4, 6);
                         _tile_dpbf16ps(1, 5, 6);
                       }
                     };
                     _tile_loadd(4, a, 64);
                     _tile_loadd(5, a + kTileBytes, 64);
                     if constexpr (Parts == 1) {
                       fetch(b, 16);
                       _tile_loadd(6, b, 64);
                       multiply(std::false_type());
                     } else {
                       const char* slot = ring.filled();
                       _tile_loadd(6, slot, 64);
                       _tile_loadd(7, slot + kTileBytes, 64);
                       multiply(std::false_type());
                       ring.fillOne(soon, 0, 0);
                       multiply(std::true_type());
                       ring.fillOne(soon, 0, 1);
                       _tile_loadd(4, a + 2 * kTileBytes, 64);
                       _tile_loadd(5, a + 3 * kTileBytes, 64);
                       multiply(std::true_type());
                       ring.fillOne(soon, 0, 2);
                       multiply(std::false_type());
                       ring.fillOne(soon, 0, 3);
                       ring.swap();
                       writeOut();
                     }
                     a += stepA_;
                   });
      float* sums = w.sums + side * 16;
      _tile_stored(0, sums, kStride);
      _tile_stored(1, sums + 16 * kColumns, kStride);
      _tile_stored(2, sums + kSums, kStride);
      _tile_stored(3, sums + kSums + 16 * kColumns, kStride);
    }
  }

  static constexpr int64_t kStride = kColumns * 4;
  const Product<Format>& p_;
  const GemmArgs& g_;
  const int height_;
  const int64_t stepA_;
};
#endif

}  // namespace isopolicy::ISA_PASS
