// What becomes of a product's sums: chains are joined, chunks of k added in their order, and the result is
// rounded and stored. Included once a pass, inside it, after gemm_tile.h: no guard.

namespace isopolicy::ISA_PASS {

// An output of this size is not in a core's caches when it is read, and goes past them, as does one that
// takes this many bytes of packed weights, more than are kept: an ordinary store first reads the line that it
// overwrites.
inline constexpr int64_t kOutputPast = int64_t(2) << 20, kWeightsPast = int64_t(8) << 20;

// The output of a product whose arguments outlive it.
template <class Format>
class Output {
  using T = typename Format::Element;

 public:
  Output(const GemmArgs& args, int64_t packedWeightBytes) : g_(args) {
    const int64_t bytes = int64_t(bytesOf(g_.out)), strides = g_.ldc | (g_.batch > 1 ? g_.strideC : 0);
    const bool large = g_.batch * g_.m * g_.n * bytes >= kOutputPast || packedWeightBytes >= kWeightsPast;
    onLines_ = strides * bytes % 64 == 0 && reinterpret_cast<uintptr_t>(g_.c) % 64 == 0;
    past_ = large && !g_.readSoon && !g_.accumulate && g_.ldc == g_.n && onLines_;
  }

  // It goes past the caches: whoever stores it ends with a fence.
  bool past() const { return past_; }

  // The bias of so many columns from n on, in fp32, with zeros up to `width`; nothing without one.
  void widenBias(int64_t n, int64_t columns, int64_t width, float* to) const {
    if (!g_.bias) return;
    const T* from = static_cast<const T*>(g_.bias) + n;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t left = columns - i;
      store(to + i, loadPartial(from + i, int(left < 0 ? 0 : lesser(left, kLanes))));
    }
  }

  // A whole tile can store its sums itself: it rounds to its own dtype or to none, while fp32 operands may be
  // numbers of an emulated one.
  bool putByTile() const {
    return Format::kPutsTiles && !g_.bias && !g_.addend &&
           (g_.out == DTypeOf<T>::value || g_.out == DType::float32);
  }
  // Where it goes then.
  TileOut tile(int64_t matrix, int64_t m, int64_t n) const {
    return {placeOf(matrix, m, n), g_.ldc, g_.out == DType::float32, past_};
  }

  // What so many rows of a tile will be added to, asked for over some turns, or their part of C: a store that
  // waits for its line holds up others, and loads that look as if they overlapped.
  SoonWritten soon(int64_t matrix, int64_t m, int rows, int64_t n, int rowsATurn) const {
    if (g_.addend)
      return {reinterpret_cast<const char*>(addendAt(matrix, m, n)), g_.ldAddend * 4, rows, rowsATurn, 2};
    if (past_ || (onLines_ && !Format::kLazy)) return {};
    const int64_t bytes = int64_t(bytesOf(g_.out));
    const int lines = bytes * kColumns > 64 || !onLines_ ? 2 : 1;
    return {placeOf(matrix, m, n), g_.ldc * bytes, rows, rowsATurn, lines};
  }

  // A chunk of k is done: its chains are joined and added to the chunks before it; after the last one the
  // result is rounded and stored.
  void finish(int64_t matrix, int64_t m, int rows, int64_t n, int columns, const float* sums, float* totals,
              bool hasTotal, bool last, const float* bias) const {
    const auto total = [&](int r, int i) __attribute__((always_inline)) {
      const int64_t at = r * kColumns + i;
      Vec x = load(sums + at);
      if constexpr (Format::kChains == 2) x = x + load(sums + kSums + at);
      return x;
    };
    const auto whole = [&](int r, int i) __attribute__((always_inline)) {
      return hasTotal ? load(totals + r * kColumns + i) + total(r, i) : total(r, i);
    };
    if (!last) {
      for (int r = 0; r < rows; r++)
        for (int i = 0; i < kColumns; i += kLanes) store(totals + r * kColumns + i, whole(r, i));
      return;
    }
    const float* addend = g_.addend ? addendAt(matrix, m, n) : nullptr;
    dispatchFloat(g_.out, [&](auto like) {
      using Out = decltype(like);
      Out* to = reinterpret_cast<Out*>(placeOf(matrix, m, n));
      if constexpr (kColumns == 2 * kLanes) {
        // With few steps of k it is instructions that limit here: nothing is asked in these loops.
        if (columns == kColumns && !hasTotal && !g_.bias && !addend) {
          const auto eachRow = [&](auto put) __attribute__((always_inline)) {
            for (int r = 0; r < rows; r++) put(to + r * g_.ldc, total(r, 0), total(r, kLanes));
          };
          if (past_)
            return eachRow([](Out * p, Vec a, Vec b) __attribute__((always_inline)) { streamTwo(p, a, b); });
          if (onLines_)
            return eachRow([](Out * p, Vec a, Vec b) __attribute__((always_inline)) { storeTwo(p, a, b); });
          return eachRow([](Out * p, Vec a, Vec b) __attribute__((always_inline)) {
            store(p, a);
            store(p + kLanes, b);
          });
        }
      }
      for (int r = 0; r < rows; r++) {
        for (int i = 0; i < columns; i += kLanes) {
          const int wide = columns - i;
          Vec y = whole(r, i);
          if (g_.bias) y = y + load(bias + i);
          if (wide >= kLanes) {
            if (addend) y = load(addend + r * g_.ldAddend + i) + y;
            past_ ? stream(to + r * g_.ldc + i, y) : store(to + r * g_.ldc + i, y);
          } else {
            if (addend) y = loadPartial(addend + r * g_.ldAddend + i, wide) + y;
            storePartial(to + r * g_.ldc + i, y, wide);
          }
        }
      }
    });
  }

 private:
  static constexpr int kColumns = Format::kColumns;
  static constexpr int64_t kSums = Format::kRows * kColumns;  // of a chain of a tile

  char* placeOf(int64_t matrix, int64_t m, int64_t n) const {
    return static_cast<char*>(g_.c) + (matrix * g_.strideC + m * g_.ldc + n) * int64_t(bytesOf(g_.out));
  }
  const float* addendAt(int64_t matrix, int64_t m, int64_t n) const {
    return g_.addend + (g_.accumulate ? matrix * g_.strideC : 0) + m * g_.ldAddend + n;
  }

  const GemmArgs& g_;
  bool onLines_;  // every row of C begins with a line of the cache
  bool past_;
};

}  // namespace isopolicy::ISA_PASS
