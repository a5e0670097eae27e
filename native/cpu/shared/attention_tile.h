// The two products that attention is made of, on fp32 rows and on groups of 16 keys, and the widening of
// 16-bit keys and values into the form that they read.
//
// Every output element is one chain of fused multiply-adds in the order of its sum, so how many rows or
// vectors are computed together never changes a bit. Included once a pass: no guard.

namespace isopolicy::ISA_PASS {

// Vectors that R rows keep in registers at once.
template <int R>
inline constexpr int kRegisterVectors = ISA_LEVEL >= 2 ? (R == 1 ? 8 : 4) : 4 / R;

inline int roundUp16(int n) { return (n + 15) / 16 * 16; }

// ---- scores[r][16 g + lane] = scale * sum over d of q[r][d] * k[g][d][lane], d in order ----

// Not inlined: shared by every dtype that a caller is compiled for, and addresses that the compiler would
// keep across blocks cost the registers that the sums need.
template <int R, int C, class S>
__attribute__((noinline)) void dotBlock(const float* q, int64_t qStride, const S* const* k, int headDim,
                                        float scale, float* scores, int64_t scoreStride) {
  const S* keys[C];
  for (int c = 0; c < C; c++) keys[c] = k[c];
  Vec sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sum[r][c] = zero();
  for (int64_t d = 0; d < headDim; d++) {
    Vec key[C];
    for (int c = 0; c < C; c++) key[c] = load(keys[c] + d * 16);
    for (int r = 0; r < R; r++) {
      const Vec x = splat(q[r * qStride + d]);
      for (int c = 0; c < C; c++) sum[r][c] = fma(x, key[c], sum[r][c]);
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(scores + r * scoreStride + c * 16, sum[r][c] * splat(scale));
}

template <int R, int C, class S>
ISA_INLINE void dotGroups(const float* q, int64_t qStride, const S* const* k, int groups, int headDim,
                          float scale, float* scores, int64_t scoreStride) {
  for (; groups >= C; groups -= C, k += C, scores += C * 16)
    dotBlock<R, C>(q, qStride, k, headDim, scale, scores, scoreStride);
  if constexpr (C > 1) dotGroups<R, C / 2>(q, qStride, k, groups, headDim, scale, scores, scoreStride);
}

template <int R, class S>
ISA_INLINE void dots(const float* q, int64_t qStride, const S* const* k, int groups, int headDim, float scale,
                     float* scores, int64_t scoreStride) {
  dotGroups<R, kRegisterVectors<R>>(q, qStride, k, groups, headDim, scale, scores, scoreStride);
}

// ---- out[r][d] = out[r][d] * factor[r] + sum over i of weight(r, i) * x[i][d], i in order ----

// Rows of x: 16 at a time from pages, or all from one place.
template <class S>
struct PagedRows {
  using Element = S;
  const S* const* pages;
  int64_t stride;
  const S* at(int i) const { return pages[i >> 4] + (i & 15) * stride; }
  int runEnd(int i) const { return (i | 15) + 1; }
};
struct DenseRows {
  using Element = float;
  const float* base;
  int64_t stride;
  const float* at(int i) const { return base + i * stride; }
  int runEnd(int) const { return std::numeric_limits<int>::max(); }
};

// weight(r, i) = base[r * rowStride + i * stepStride].
struct Weights {
  const float* base;
  int64_t rowStride, stepStride;
};

template <int R, int C, class Rows>
ISA_INLINE void accumulateBlock(float* out, int64_t outStride, const float* factor, Weights weights,
                                const Rows& rows, int64_t column, int begin, int end) {
  Vec sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) {
      sum[r][c] = load(out + r * outStride + c * 16);
      if (factor) sum[r][c] = sum[r][c] * splat(factor[r]);
    }
  for (int i = begin; i < end;) {
    const int stop = std::min(end, rows.runEnd(i));
    const typename Rows::Element* x = rows.at(i) + column;
    const float* w = weights.base + i * weights.stepStride;
    for (; i < stop; i++, x += rows.stride, w += weights.stepStride) {
      Vec row[C];
      for (int c = 0; c < C; c++) row[c] = load(x + c * 16);
      for (int r = 0; r < R; r++) {
        const Vec weight = splat(w[r * weights.rowStride]);
        for (int c = 0; c < C; c++) sum[r][c] = fma(weight, row[c], sum[r][c]);
      }
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(out + r * outStride + c * 16, sum[r][c]);
}

template <int R, int C, class Rows>
ISA_INLINE void accumulateColumns(float* out, int64_t outStride, const float* factor, Weights weights,
                                  const Rows& rows, int vectors, int64_t column, int begin, int end) {
  for (; vectors >= C; vectors -= C, column += C * 16)
    accumulateBlock<R, C>(out + column, outStride, factor, weights, rows, column, begin, end);
  if constexpr (C > 1)
    accumulateColumns<R, C / 2>(out, outStride, factor, weights, rows, vectors, column, begin, end);
}

// `vectors` of 16 columns; factor may be null (1 for every row).
template <int R, class Rows>
__attribute__((noinline)) void accumulate(float* out, int64_t outStride, const float* factor, Weights weights,
                                          const Rows& rows, int vectors, int begin, int end) {
  accumulateColumns<R, kRegisterVectors<R>>(out, outStride, factor, weights, rows, vectors, 0, begin, end);
}

// ---- Widening ----

#if ISA_LEVEL >= 2
ISA_INLINE void transpose16(const Vec (&x)[16], float* out) {
  __m512 a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(x[i].v, x[i + 1].v);
    a[i + 1] = _mm512_unpackhi_ps(x[i].v, x[i + 1].v);
  }
  // b[4 q + e]: column e of each 128-bit lane, rows 4 q to 4 q + 3.
  for (int q = 0; q < 4; q++) {
    b[4 * q] = _mm512_shuffle_ps(a[4 * q], a[4 * q + 2], 0x44);
    b[4 * q + 1] = _mm512_shuffle_ps(a[4 * q], a[4 * q + 2], 0xee);
    b[4 * q + 2] = _mm512_shuffle_ps(a[4 * q + 1], a[4 * q + 3], 0x44);
    b[4 * q + 3] = _mm512_shuffle_ps(a[4 * q + 1], a[4 * q + 3], 0xee);
  }
  for (int e = 0; e < 4; e++) {
    const __m512 low01 = _mm512_shuffle_f32x4(b[e], b[4 + e], 0x44);
    const __m512 high01 = _mm512_shuffle_f32x4(b[e], b[4 + e], 0xee);
    const __m512 low23 = _mm512_shuffle_f32x4(b[8 + e], b[12 + e], 0x44);
    const __m512 high23 = _mm512_shuffle_f32x4(b[8 + e], b[12 + e], 0xee);
    _mm512_storeu_ps(out + 16 * e, _mm512_shuffle_f32x4(low01, low23, 0x88));
    _mm512_storeu_ps(out + 16 * (4 + e), _mm512_shuffle_f32x4(low01, low23, 0xdd));
    _mm512_storeu_ps(out + 16 * (8 + e), _mm512_shuffle_f32x4(high01, high23, 0x88));
    _mm512_storeu_ps(out + 16 * (12 + e), _mm512_shuffle_f32x4(high01, high23, 0xdd));
  }
}
#elif ISA_LEVEL == 1
ISA_INLINE void transpose8(const __m256 (&x)[8], float* out) {
  __m256 a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
  }
  for (int q = 0; q < 2; q++) {
    b[4 * q] = _mm256_shuffle_ps(a[4 * q], a[4 * q + 2], 0x44);
    b[4 * q + 1] = _mm256_shuffle_ps(a[4 * q], a[4 * q + 2], 0xee);
    b[4 * q + 2] = _mm256_shuffle_ps(a[4 * q + 1], a[4 * q + 3], 0x44);
    b[4 * q + 3] = _mm256_shuffle_ps(a[4 * q + 1], a[4 * q + 3], 0xee);
  }
  for (int e = 0; e < 4; e++) {
    _mm256_storeu_ps(out + 16 * e, _mm256_permute2f128_ps(b[e], b[4 + e], 0x20));
    _mm256_storeu_ps(out + 16 * (4 + e), _mm256_permute2f128_ps(b[e], b[4 + e], 0x31));
  }
}
ISA_INLINE void transpose16(const Vec (&x)[16], float* out) {
  for (int half = 0; half < 2; half++) {
    __m256 low[8], high[8];
    for (int i = 0; i < 8; i++) {
      low[i] = x[8 * half + i].lo;
      high[i] = x[8 * half + i].hi;
    }
    transpose8(low, out + 8 * half);
    transpose8(high, out + 16 * 8 + 8 * half);
  }
}
#else
ISA_INLINE void transpose16(const Vec (&x)[16], float* out) {
  for (int i = 0; i < 16; i++) {
    float lanes[16];
    toArray(x[i], lanes);
    for (int j = 0; j < 16; j++) out[16 * j + i] = lanes[j];
  }
}
#endif

// `keys` (1 to 16) rows of headDim elements -> [paddedDim][16 keys] in fp32; absent keys and dims are 0.
template <class T>
inline void widenTransposed(const T* rows, int64_t stride, int keys, int headDim, float* out) {
  for (int d = 0; d < headDim; d += 16) {
    Vec x[16];
    const int n = std::min(16, headDim - d);
    if (n == 16)
      for (int i = 0; i < 16; i++) x[i] = i < keys ? load(rows + i * stride + d) : zero();
    else
      for (int i = 0; i < 16; i++) x[i] = i < keys ? loadPartial(rows + i * stride + d, n) : zero();
    transpose16(x, out + int64_t(d) * 16);
  }
}

// One row of headDim elements -> fp32, zeros up to the next multiple of 16.
template <class T>
ISA_INLINE void widenRow(const T* row, int headDim, float* out) {
  int d = 0;
  for (; d + 16 <= headDim; d += 16) store(out + d, load(row + d));
  if (d < headDim) store(out + d, loadPartial(row + d, headDim - d));
}

// One fp32 row, each element through `map`, rounded once.
template <class T, class F>
ISA_INLINE void storeRow(const float* row, int headDim, T* out, F&& map) {
  int d = 0;
  for (; d + 16 <= headDim; d += 16) store(out + d, map(load(row + d)));
  if (d < headDim) storePartial(out + d, map(load(row + d)), headDim - d);
}

}  // namespace isopolicy::ISA_PASS
