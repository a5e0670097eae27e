// The register tile of the training product: outer products of a column of A and a row of B, step by step.
//
// Every element of C has one accumulator and takes the steps of k in order, so its sum does not depend on the
// shape of the tile, on how the matrix is cut into tiles, or on what else is in the tile. Included once a
// pass, inside it: no guard.

namespace isopolicy::ISA_PASS {

// Rows and vectors of 16 columns of a tile. The limit is the registers: accumulators, the row of B and one
// broadcast must stay in them, and at least 8 independent chains are needed to hide the latency of an FMA.
#if ISA_LEVEL >= 2
inline constexpr int kTileRows = 6, kTileVectors = 4;  // 24 + 4 + 1 of 32 zmm
#elif ISA_LEVEL == 1
inline constexpr int kTileRows = 6, kTileVectors = 1;  // 12 + 2 + 1 of 16 ymm
#else
inline constexpr int kTileRows = 2, kTileVectors = 1;  // 8 + 4 + 1 of 16 xmm
#endif
inline constexpr int kTileColumns = kTileVectors * kLanes;

// One k: acc = fma(a, b, acc).
struct FusedStep {
  static constexpr int kDepth = 1;
  ISA_INLINE static Vec apply(const char* a, Vec b, Vec acc) {
    float x;
    std::memcpy(&x, a, sizeof x);
    return fma(splat(x), b, acc);
  }
};

#if ISA_LEVEL >= 3
// The bf16 pair k, k + 1. The instruction adds the product of the odd k first, then that of the even one,
// each with a rounding of its own, and takes and gives subnormals as zero.
struct PairStep {
  static constexpr int kDepth = 2;
  ISA_INLINE static Vec apply(const char* a, Vec b, Vec acc) {
    int32_t pair;
    std::memcpy(&pair, a, sizeof pair);
    return {_mm512_dpbf16_ps(acc.v, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)b.v)};
  }
};
#endif

// A tile's place in the product, and what is to be done before and after its steps.
struct TileJob {
  const char* a;  // the word of (row 0, step 0)
  int64_t rowBytes, stepBytes;
  const float* b;  // packed: V * 16 words a step
  int64_t steps;

  float* carry;  // V * 16 a row: the accumulators between blocks of k
  float* total;  // the same: the sum of the chunks of splitK before this one
  bool resume;   // accumulators start from carry, else from zero
  bool chunkEnds, hasTotal;
  bool last;  // the result goes to C

  DType out;
  void* c;  // (row 0, column 0)
  int64_t ldc;
  const float* bias;    // widened, V * 16 of them; or null
  const float* addend;  // (row 0, column 0); or null
  int64_t ldAddend;
  int64_t columns;  // of C in this tile, above (V - 1) * 16
};

template <class Step, int R, int V>
static void runTile(const TileJob& job) {
  if (job.last) {
    // The lines of C arrive while the steps run.
    const int64_t bytes = int64_t(bytesOf(job.out));
    for (int r = 0; r < R; r++)
      for (int64_t at = 0; at < V * kLanes * bytes; at += 64)
        __builtin_prefetch(static_cast<const char*>(job.c) + r * job.ldc * bytes + at, 1);
  }
  Vec acc[R][V];
  if (job.resume) {
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) acc[r][v] = load(job.carry + (r * V + v) * kLanes);
  } else {
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) acc[r][v] = zero();
  }

  // Two bases, so that each row's address is a base plus once or twice the stride.
  const char* a = job.a;
  const char* a3 = a + 3 * job.rowBytes;
  const int64_t row = job.rowBytes, step = job.stepBytes;
  const float* b = job.b;
  for (int64_t s = 0; s < job.steps; s++) {
    Vec across[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) across[v] = load(b + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const char* at = r < 3 ? a + r * row : a3 + (r - 3) * row;
#pragma GCC unroll 8
      for (int v = 0; v < V; v++) acc[r][v] = Step::apply(at, across[v], acc[r][v]);
    }
    a += step;
    a3 += step;
    b += V * kLanes;
  }

  if (!job.chunkEnds) {
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) store(job.carry + (r * V + v) * kLanes, acc[r][v]);
    return;
  }
  if (job.hasTotal) {
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) acc[r][v] = load(job.total + (r * V + v) * kLanes) + acc[r][v];
  }
  if (!job.last) {
    for (int r = 0; r < R; r++)
      for (int v = 0; v < V; v++) store(job.total + (r * V + v) * kLanes, acc[r][v]);
    return;
  }
  if (job.bias) {
    for (int v = 0; v < V; v++) {
      const Vec bias = load(job.bias + v * kLanes);
      for (int r = 0; r < R; r++) acc[r][v] = acc[r][v] + bias;
    }
  }
  const int tail = int(job.columns - (V - 1) * kLanes);
  if (job.addend) {
    for (int r = 0; r < R; r++) {
      const float* from = job.addend + r * job.ldAddend;
      for (int v = 0; v < V - 1; v++) acc[r][v] = load(from + v * kLanes) + acc[r][v];
      acc[r][V - 1] = loadPartial(from + (V - 1) * kLanes, tail) + acc[r][V - 1];
    }
  }
  dispatchFloat(job.out, [&](auto like) {
    using Out = decltype(like);
    for (int r = 0; r < R; r++) {
      Out* to = static_cast<Out*>(job.c) + r * job.ldc;
      for (int v = 0; v < V - 1; v++) store(to + v * kLanes, acc[r][v]);
      storePartial(to + (V - 1) * kLanes, acc[r][V - 1], tail);
    }
  });
}

// The tile of `rows` rows and `vectors` vectors.
template <class Step>
static void (*tileOf(int64_t rows, int64_t vectors))(const TileJob&) {
  using Tile = void (*)(const TileJob&);
#define ISOPOLICY_TILE_ROW(R) \
  { runTile<Step, R, 1>, runTile<Step, R, 2>, runTile<Step, R, 3>, runTile<Step, R, 4> }
#if ISA_LEVEL >= 2
  static constexpr Tile tiles[kTileRows][kTileVectors] = {ISOPOLICY_TILE_ROW(1), ISOPOLICY_TILE_ROW(2),
                                                          ISOPOLICY_TILE_ROW(3), ISOPOLICY_TILE_ROW(4),
                                                          ISOPOLICY_TILE_ROW(5), ISOPOLICY_TILE_ROW(6)};
#elif ISA_LEVEL == 1
  static constexpr Tile tiles[kTileRows][kTileVectors] = {{runTile<Step, 1, 1>}, {runTile<Step, 2, 1>},
                                                          {runTile<Step, 3, 1>}, {runTile<Step, 4, 1>},
                                                          {runTile<Step, 5, 1>}, {runTile<Step, 6, 1>}};
#else
  static constexpr Tile tiles[kTileRows][kTileVectors] = {{runTile<Step, 1, 1>}, {runTile<Step, 2, 1>}};
#endif
#undef ISOPOLICY_TILE_ROW
  return tiles[rows - 1][vectors - 1];
}

}  // namespace isopolicy::ISA_PASS
