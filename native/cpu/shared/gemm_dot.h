// The register tile of the rollout product: dot products along k, sixteen strided partial sums each.
//
// Lane l of a dot product takes k = l, l + 16, l + 32, ...; reduceAdd's tree joins the lanes at the end. A
// tile is several dots at once, so that each loaded vector is used more than once; it changes no sum.
// Included once a pass, inside it, after gemm_pack.h: no guard.

namespace isopolicy::ISA_PASS {

// Rows of A of a tile, and the dots of a tile. With 32 registers 16 dots, which are also what reduceTile
// joins at once; with 16 registers (two for a Vec at AVX2) 4 dots and their operands.
#if ISA_LEVEL >= 2
inline constexpr int kDotRows = 4;
#else
inline constexpr int kDotRows = 2;
#endif

// Rows of B^T of a tile of R rows: at least four dots, so that their chains hide the latency of an FMA, eight
// for the few rows of a decode step at AVX-512; not more, since each row is a stream from memory.
template <int R>
inline constexpr int kDotColumns = ISA_LEVEL < 2 ? 4 / R
                                   : R <= 2      ? 8
                                                 : 4;

#if ISA_LEVEL >= 2
// The sums of the lanes of v[4 * i + j] in lane 4 * j + i, each by the tree of reduceAdd: halves of 8, 4, 2,
// 1. Two vectors are joined at every step: the first half of the result has the sums of one, the second
// half of the other.
ISA_INLINE Vec reduceTile(const Vec (&v)[16]) {
  Vec eighths[8], quarters[4], pairs[2];
  for (int i = 0; i < 8; i++) {
    const __m512 x = v[2 * i].v, y = v[2 * i + 1].v;
    eighths[i] = {_mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xee))};
  }
  for (int i = 0; i < 4; i++) {
    const __m512 x = eighths[2 * i].v, y = eighths[2 * i + 1].v;
    quarters[i] = {_mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd))};
  }
  for (int i = 0; i < 2; i++) {
    const __m512 x = quarters[2 * i].v, y = quarters[2 * i + 1].v;
    pairs[i] = {_mm512_add_ps(_mm512_shuffle_ps(x, y, 0x44), _mm512_shuffle_ps(x, y, 0xee))};
  }
  return {_mm512_add_ps(_mm512_shuffle_ps(pairs[0].v, pairs[1].v, 0x88),
                        _mm512_shuffle_ps(pairs[0].v, pairs[1].v, 0xdd))};
}
#else
// reduceAdd, its tree written out where two registers make a Vec.
ISA_INLINE float joinLanes(Vec x) {
#if ISA_LEVEL == 1
  const __m256 eighth = _mm256_add_ps(x.lo, x.hi);
  const __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(eighth), _mm256_extractf128_ps(eighth, 1));
  const __m128 pair = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
  return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
#else
  return reduceAdd(x);
#endif
}
#endif

// sums[r * stride + c] = or += the dot product of row r of `a` and row c of `b` over `length`, for R rows and
// `columns` <= kDotColumns<R> (at AVX-512 all of these are written: the rest repeats the last one).
template <int R, class B>
static void dotTile(const float* a, int64_t lda, const B* b, int64_t ldb, int columns, int64_t length,
                    float* sums, int64_t stride, bool add) {
  constexpr int C = kDotColumns<R>;
  Vec acc[R][C];
  const float* rowA[R];
  const B* rowB[C];
  for (int r = 0; r < R; r++) {
    rowA[r] = a + r * lda;
    for (int c = 0; c < C; c++) acc[r][c] = zero();
  }
  for (int c = 0; c < C; c++) rowB[c] = b + (c < columns ? c : columns - 1) * ldb;

  int64_t k = 0;
  for (; k + kLanes <= length; k += kLanes) {
    Vec x[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) x[r] = load(rowA[r] + k);
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
      const Vec w = load(rowB[c] + k);
#pragma GCC unroll 8
      for (int r = 0; r < R; r++) acc[r][c] = fma(x[r], w, acc[r][c]);
    }
  }
  if (k < length) {
    const int n = int(length - k);
    for (int c = 0; c < C; c++) {
      const Vec w = loadPartial(rowB[c] + k, n);
      for (int r = 0; r < R; r++) acc[r][c] = fma(loadPartial(rowA[r] + k, n), w, acc[r][c]);
    }
  }

#if ISA_LEVEL >= 2
  Vec flat[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    const int dot = i % 4 * 4 + i / 4;  // dot r * C + c comes out in lane r * C + c
    flat[i] = dot < R * C ? acc[dot / C][dot % C] : zero();
  }
  alignas(64) float joined[16];
  store(joined, reduceTile(flat));
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < C; c += 4) {
      float* to = sums + r * stride + c;
      const __m128 found = _mm_load_ps(joined + r * C + c);
      _mm_storeu_ps(to, add ? _mm_add_ps(_mm_loadu_ps(to), found) : found);
    }
  }
#else
  for (int r = 0; r < R; r++) {
    for (int c = 0; c < columns; c++) {
      const float sum = joinLanes(acc[r][c]);
      float& to = sums[r * stride + c];
      to = add ? to + sum : sum;
    }
  }
#endif
}

}  // namespace isopolicy::ISA_PASS
