// Products of few rows with weights as they are stored, columns along k: the time is that of reading the
// weights once, so that packing them first, to be read again, would take as long again.
//
// Sixteen columns at a time are walked over all of k, so that memory is read in sixteen long rows. Sixteen
// steps of them are transposed in registers and multiplied right there. The order of a sum is that of
// gemm_tile.h. Included once a pass, inside it, after gemm_product.h: no guard.

namespace isopolicy::ISA_PASS {

// For vectors; tile registers have a walk of their own, over packed weights (gemm_stream.h).
template <class Format>
class FewRows {
  using T = typename Format::Element;

 public:
  // As many as have their sums in registers beside the weights. With sixteen registers they do not, but a
  // transposition that goes to memory and back still takes less than packing, which for bf16 is cheaper.
  static constexpr int kMostRows = ISA_LEVEL >= 2   ? 16 / Format::kChains
                                   : ISA_LEVEL == 0 ? 0
                                                    : (std::is_same_v<T, BFloat16> ? 2 : 4);

  explicit FewRows(const Product<Format>& product) : p_(product), g_(product.g_) {}

  static bool takes(const GemmArgs& g) {
    return !g.packedB && g.transposeB && g.batch == 1 && g.m <= kMostRows && g.k > 0;
  }

  void run(Workers& workers) const {
    if constexpr (kMostRows > 0) runUpTo<1>(workers);
  }

 private:
  static constexpr int kChains = Format::kChains, kDepth = Format::kStepLength;
  // As finish has them: a tile's rows, from a row of sums to the next and from a chain to the next.
  static constexpr int64_t kHigh = Format::kRows, kStride = Format::kColumns, kSums = kHigh * kStride;

  // With the fewest of 1, 2, 4, 8, 12 or 16 rows that are enough.
  template <int Rows>
  void runUpTo(Workers& workers) const {
    if constexpr (Rows < kMostRows) {
      if (g_.m > Rows) return runUpTo<(Rows < 8 ? 2 * Rows : Rows + 4)>(workers);
    }
    run<Rows>(workers);
  }

  // Rows rows, of which those past the last are zeros.
  template <int Rows>
  void run(Workers& workers) const {
    Scratch scratch;
    float* a = scratch.get<float>(p_.depths_.steps * Rows);
    for (int64_t i = 0; i < p_.depths_.blocks; i++) {
      const Depths::Block k = p_.depths_.block(i);
      const Source<T> rows{p_.aStored(0, 0, k.begin), g_.lda, !g_.transposeA, g_.m, k.length};
      eachStep<kDepth>(rows, k.steps, kLanes, [&](int64_t step, int64_t, Vec words) {
        storePartial(a + (k.firstStep + step) * Rows, words, Rows);
      });
    }
    const int64_t work = Rows * kLanes * (g_.k + 16);
    workers.parallelFor(quotientUp(g_.n, kLanes), quotientUp(kProductGrain, work),
                        [&](int64_t begin, int64_t end) { walk<Rows>(a, begin, end); });
  }

  template <int Rows>
  void walk(const float* a, int64_t begin, int64_t end) const {
    const Depths& depths = p_.depths_;
    const int64_t chunks = quotientUp(depths.blocks, depths.blocksAChunk);
    Scratch scratch;
    constexpr int64_t kTiles = quotientUp(Rows, kHigh);
    float* sums = scratch.get<float>(kTiles * kChains * kSums);
    float* totals = chunks > 1 ? scratch.get<float>(kTiles * kSums) : nullptr;
    float* bias = scratch.get<float>(kLanes);
    for (int64_t i = begin; i < end; i++) {
      const int64_t n = i * kLanes;
      const int columns = int(lesser(kLanes, g_.n - n));
      p_.output_.widenBias(n, columns, kLanes, bias);
      for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const bool last = chunk == chunks - 1;
        const int64_t k = chunk * depths.chunk, length = lesser(depths.chunk, g_.k - k);
        const Source<T> weights{p_.bStored(0, n, k), g_.ldb, true, columns, length};
        // From the last elements of a chunk to those that are read next.
        const int64_t leap = !last ? 0 : (i + 1 < end ? kLanes * g_.ldb : 0) - g_.k;
        dots<Rows>(a + chunk * depths.stepsAChunk * Rows, weights, leap, sums);
        for (int64_t t = 0; t * kHigh < g_.m; t++)
          p_.output_.finish(0, t * kHigh, int(lesser(kHigh, g_.m - t * kHigh)), n, columns,
                            sums + t * kChains * kSums, totals ? totals + t * kSums : nullptr, chunk > 0,
                            last, bias);
      }
    }
    if (p_.output_.past()) fencePastCaches();
  }

  // The sums of sixteen columns over a chunk of k.
  template <int Rows>
  static void dots(const float* a, const Source<T>& weights, int64_t leap, float* sums) {
    Vec sum[kChains][Rows];
#pragma GCC unroll 2
    for (int c = 0; c < kChains; c++)
#pragma GCC unroll 16
      for (int r = 0; r < Rows; r++) sum[c][r] = zero();
    const int64_t steps = quotientUp(weights.length, kDepth);
    constexpr int64_t kSoon = kAhead / int64_t(sizeof(T));
    for (int64_t step = 0; step < steps; step += 16, a += 16 * Rows) {
      const int64_t k = step * kDepth;
      const T* soon = weights.at + k + kSoon + (k + kSoon < weights.length ? 0 : leap);
      for (int i = 0; i < 16; i++) __builtin_prefetch(soon + i * weights.ld);
      Vec words[16];
      stepBlock<kDepth>(weights, k, 0, words);
      const auto add = [&](int i, Vec(&to)[Rows]) __attribute__((always_inline)) {
#pragma GCC unroll 16
        for (int r = 0; r < Rows; r++) to[r] = Format::Step::apply(splat(a[i * Rows + r]), words[i], to[r]);
      };
      const int count = int(lesser(16, steps - step));
      if (count == 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) add(i, sum[i % kChains]);
      } else {
        for (int i = 0; i < count; i++) add(i, sum[i % kChains]);
      }
    }
#pragma GCC unroll 2
    for (int c = 0; c < kChains; c++)
#pragma GCC unroll 16
      for (int r = 0; r < Rows; r++)
        store(sums + (r / kHigh * kChains + c) * kSums + r % kHigh * kStride, sum[c][r]);
  }

  const Product<Format>& p_;
  const GemmArgs& g_;
};

}  // namespace isopolicy::ISA_PASS
