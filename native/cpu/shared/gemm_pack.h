// Packing of matrix blocks into scratch, in 32-bit words: an fp32 value, or two bf16 values for vdpbf16ps.
//
// A block of k is a sequence of steps; a step is one k (Depth 1, any dtype, widened to fp32) or the pair
// k, k + 1 (Depth 2, bf16 bits, k in the low half; an odd last k is paired with zero). Included once a pass,
// inside it: no guard.

namespace isopolicy::ISA_PASS {

ISA_INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
ISA_INLINE int64_t quotientUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

// words[r * stride + step] = X[r][...] for `rows` rows of `length` elements, stored `ld` apart.
template <int Depth, class T>
static void packRows(const T* x, int64_t ld, int64_t rows, int64_t length, float* words, int64_t stride) {
  for (int64_t r = 0; r < rows; r++) {
    const T* from = x + r * ld;
    float* to = words + r * stride;
    if constexpr (Depth == 1) {
      int64_t i = 0;
      for (; i + kLanes <= length; i += kLanes) store(to + i, load(from + i));
      if (i < length) storePartial(to + i, loadPartial(from + i, int(length - i)), int(length - i));
    } else {
      std::memcpy(to, from, size_t(length) * sizeof(T));
      if (length & 1) std::memset(reinterpret_cast<char*>(to) + length * sizeof(T), 0, sizeof(T));
    }
  }
}

// Sixteen words: column i of one step, taken from row k of x and, at Depth 2, from row k + 1.
template <int Depth, class T>
ISA_INLINE Vec stepAcross(const T* x, [[maybe_unused]] int64_t ld, [[maybe_unused]] bool second, int n) {
  if constexpr (Depth == 1) {
    return loadPartial(x, n);
  } else {
#if ISA_LEVEL >= 3
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(laneMask(n), x));
    if (!second) return {_mm512_castsi512_ps(low)};
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(laneMask(n), x + ld));
    return {_mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)))};
#else
    static_assert(Depth == 1, "pairs need AVX512-BF16");
#endif
  }
}

// words[step * width + i] = X[k][i]: `length` rows of x, `columns` of each, zeros up to width (a multiple of
// 16).
template <int Depth, class T>
static void packAcross(const T* x, int64_t ld, int64_t length, int64_t columns, float* words, int64_t width) {
  for (int64_t k = 0; k < length; k += Depth) {
    const T* from = x + k * ld;
    float* to = words + k / Depth * width;
    for (int64_t i = 0; i < width; i += kLanes) {
      const int64_t left = columns - i;
      store(to + i,
            stepAcross<Depth>(from + i, ld, k + 1 < length, int(left < 0 ? 0 : lesser(left, kLanes))));
    }
  }
}

#if ISA_LEVEL >= 2
// rows[i] lane j <-> rows[j] lane i.
ISA_INLINE void transpose16(__m512 (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; i++) {
    const __m512d a = _mm512_castps_pd(t[4 * i]), b = _mm512_castps_pd(t[4 * i + 1]);
    const __m512d c = _mm512_castps_pd(t[4 * i + 2]), d = _mm512_castps_pd(t[4 * i + 3]);
    r[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
    r[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
    r[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
    r[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
  }
  // r[4i + j] holds in quarter q column 4q + j of rows 4i to 4i + 3: gather the quarters.
  for (int j = 0; j < 4; j++) {
    t[j] = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x88);
    t[4 + j] = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xdd);
    t[8 + j] = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x88);
    t[12 + j] = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xdd);
  }
  for (int j = 0; j < 4; j++) {
    r[j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0x88);
    r[8 + j] = _mm512_shuffle_f32x4(t[j], t[8 + j], 0xdd);
    r[4 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0x88);
    r[12 + j] = _mm512_shuffle_f32x4(t[4 + j], t[12 + j], 0xdd);
  }
}

// The same from memory: sixteen words of sixteen rows, `bytes` apart, to sixteen steps `width` words apart.
// Quarters of rows are gathered by loads, which leaves half of the shuffles.
ISA_INLINE void transposeWords(const char* rows, int64_t bytes, float* to, int64_t width) {
  const auto quarter = [&](int row, int q) {
    return _mm_loadu_ps(reinterpret_cast<const float*>(rows + row * bytes) + 4 * q);
  };
  for (int q = 0; q < 4; q++) {
    __m512 r[4];
    for (int j = 0; j < 4; j++) {
      r[j] = _mm512_castps128_ps512(quarter(j, q));
      r[j] = _mm512_insertf32x4(r[j], quarter(4 + j, q), 1);
      r[j] = _mm512_insertf32x4(r[j], quarter(8 + j, q), 2);
      r[j] = _mm512_insertf32x4(r[j], quarter(12 + j, q), 3);
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
    float* at = to + 4 * q * width;
    _mm512_storeu_ps(at, _mm512_castpd_ps(_mm512_unpacklo_pd(a, c)));
    _mm512_storeu_ps(at + width, _mm512_castpd_ps(_mm512_unpackhi_pd(a, c)));
    _mm512_storeu_ps(at + 2 * width, _mm512_castpd_ps(_mm512_unpacklo_pd(b, d)));
    _mm512_storeu_ps(at + 3 * width, _mm512_castpd_ps(_mm512_unpackhi_pd(b, d)));
  }
}

// Sixteen steps of one row as words; elements from n on are zero and not read.
template <int Depth, class T>
ISA_INLINE __m512 stepsAlong(const T* x, int n) {
  if constexpr (Depth == 1) {
    return loadPartial(x, n).v;
  } else {
    const __mmask32 mask = n >= 32 ? 0xffffffffu : (1u << n) - 1u;
    return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, x));
  }
}
#endif

// How far ahead packTransposed asks for the bytes of a row: four vectors of words.
inline constexpr int kAhead = 256;

// words[step * width + i] = X[i][k]: `columns` rows of x, `length` elements of each, zeros up to width.
template <int Depth, class T>
static void packTransposed(const T* x, int64_t ld, int64_t length, int64_t columns, float* words,
                           int64_t width) {
#if ISA_LEVEL >= 2
  const int64_t steps = quotientUp(length, Depth);
  for (int64_t i = 0; i < width; i += kLanes) {
    const int64_t rows = columns - i;
    for (int64_t s = 0; s < steps; s += 16) {
      __m512 r[16];
      const T* from = x + i * ld + s * Depth;
      // Many short streams are more than the hardware's prefetcher follows.
      if (rows >= 16)
        for (int j = 0; j < 16; j++)
          __builtin_prefetch(reinterpret_cast<const char*>(from + j * ld) + kAhead);
      const int n = int(lesser(length - s * Depth, 16 * Depth));
      if (rows >= 16 && n == 16 * Depth) {
        if constexpr (Depth == 2 || std::is_same_v<T, float>) {
          transposeWords(reinterpret_cast<const char*>(from), ld * int64_t(sizeof(T)), words + s * width + i,
                         width);
          continue;
        }
        for (int j = 0; j < 16; j++) r[j] = stepsAlong<Depth>(from + j * ld, 16 * Depth);
      } else {
        for (int j = 0; j < 16; j++)
          r[j] = j < rows ? stepsAlong<Depth>(from + j * ld, n) : _mm512_setzero_ps();
      }
      transpose16(r);
      float* to = words + s * width + i;
      if (s + 16 <= steps) {
        for (int j = 0; j < 16; j++) _mm512_storeu_ps(to + j * width, r[j]);
      } else {
        for (int j = 0; j < steps - s; j++) _mm512_storeu_ps(to + j * width, r[j]);
      }
    }
  }
#else
  // By blocks of sixteen steps: a row is widened as a vector, its lanes are spread over the steps.
  for (int64_t s = 0; s < length; s += kLanes) {
    const int n = int(lesser(length - s, kLanes));
    for (int64_t i = 0; i < width; i++) {
      float lanes[kLanes];
      toArray(i < columns ? loadPartial(x + i * ld + s, n) : zero(), lanes);
      for (int j = 0; j < n; j++) words[(s + j) * width + i] = lanes[j];
    }
  }
#endif
}

}  // namespace isopolicy::ISA_PASS
