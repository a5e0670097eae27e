// Several products that do not read one another's results, such as those of a layer's experts, in one go.
//
// A product of many rows that is much of the whole is cut by Product itself, whose threads then share what
// they pack. All others are laid end to end, panel of columns by panel, and cut at equal shares of work: a
// share may begin and end within a product, and each part of it is a product of its own on one thread. An
// element is summed as Product sums it wherever the cuts are. Included once a pass, inside it, after
// gemm_product.h and gemm_stream.h: no guard.

namespace isopolicy::ISA_PASS {

// From so many rows on Product cuts one itself: with fewer, to pack them in every share costs little.
inline constexpr int64_t kLeastSharedRows = 128;

// The columns [begin, end) of a product, where begin is that of a panel.
template <class Format>
static GemmArgs columnsOf(const GemmArgs& whole, int64_t begin, int64_t end) {
  const int64_t in = int64_t(bytesOf(whole.in)), out = int64_t(bytesOf(whole.out));
  const int64_t panelBytes = quotientUp(whole.k, Format::kStepLength) * Format::kBytesStored;
  const auto after = [](const void* p, int64_t bytes) { return static_cast<const char*>(p) + bytes; };
  GemmArgs g = whole;
  g.b = after(g.b, g.packedB      ? begin / Format::kColumns * panelBytes
                   : g.transposeB ? begin * g.ldb * in
                                  : begin * in);
  g.c = static_cast<char*>(g.c) + begin * out;
  if (g.bias) g.bias = after(g.bias, begin * in);
  if (g.addend) g.addend += begin;
  g.n = end - begin;
  return g;
}

// `count` products, each without a batch, of operands of dtype `in`; productAt(i) is asked for several times.
template <int Chains>
static void multiplyGroup(DType in, int64_t count, FunctionRef<GemmArgs(int64_t)> productAt,
                          Workers& workers) {
  withFormat<Chains>(in, [&](auto format) {
    using Format = decltype(format);
    constexpr int64_t kColumns = Format::kColumns;
    // Of a panel, counted in multiply-adds of one column.
    const auto panelWork = [](const GemmArgs& g) { return g.m * (g.k + 16); };
    const auto workOf = [&](const GemmArgs& g) { return quotientUp(g.n, kColumns) * panelWork(g); };
    int64_t whole = 0;
    for (int64_t i = 0; i < count; i++) whole += workOf(productAt(i));

    Scratch scratch;
    // Where the work of each product begins among that which is shared out.
    int64_t* begins = scratch.get<int64_t>(count + 1);
    begins[0] = 0;
    for (int64_t i = 0; i < count; i++) {
      const GemmArgs g = productAt(i);
      const int64_t work = workOf(g);
      const bool large = g.m >= kLeastSharedRows && work * 4 * workers.threads() >= whole;
      if (large && work > 0) Product<Format>(g).run(workers);
      begins[i + 1] = begins[i] + (large ? 0 : work);
    }

    workers.parallelFor(begins[count], quotientUp(kProductGrain, kColumns), [&](int64_t begin, int64_t end) {
      Workers alone(1);
      for (int64_t i = 0; i < count && begins[i] < end; i++) {
        if (begins[i + 1] <= begin || begins[i + 1] == begins[i]) continue;
        const GemmArgs g = productAt(i);
        // A panel is whose share its beginning is in.
        const auto columnAt = [&](int64_t at) {
          const int64_t within = at > begins[i] ? at - begins[i] : 0;
          return lesser(quotientUp(within, panelWork(g)) * kColumns, g.n);
        };
        const int64_t from = columnAt(begin), to = columnAt(end);
        if (from < to) Product<Format>(columnsOf<Format>(g, from, to)).run(alone);
      }
    });
  });
}

}  // namespace isopolicy::ISA_PASS
