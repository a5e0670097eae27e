// The forms in which attention keeps queries, keys, values and probabilities while it multiplies them, and
// the way there from rows of qkv and from pages of the cache. Included once a pass, after tiles.h: no guard.
//
//   wide:   fp32, for fused multiply-adds. Every dtype where nothing below applies.
//   pairs:  bf16, two neighbours along the sum in one 32-bit lane, as vdpbf16ps and AMX take them.
//   halves: fp16 on AMX. A number is exactly the sum of two bf16, its upper 8 bits and the rest, so a product
//   of
//           two is a sum of four that AMX forms without an error. What is not finite becomes NaN.
//
// 16 keys lie side by side: [headDim][16] wide, [headDim / 2][16][2] in pairs, which is also how bf16 pages
// lie. Values lie by rows: [keys][headDim] wide, [keys / 2][headDim][2] in pairs.
#include "cpu/shared/transpose.h"

namespace isopolicy::ISA_PASS {

template <class T>
struct Form {
  static constexpr bool kStepped = false;  // attention_stepped.h
  static constexpr bool kTiles = ISA_LEVEL >= 4 && !kFourBytes<T>;
  static constexpr bool kPairs = kTiles || (ISA_LEVEL >= 3 && std::is_same_v<T, BFloat16>);
  static constexpr int kPlanes = kTiles && std::is_same_v<T, Half> ? 2 : 1;
  using Element = std::conditional_t<kPairs, BFloat16, float>;
  // Sums along headDim are filled up with zeros to whole steps.
  static constexpr int kStep = kPairs ? 32 : 16;
};

inline int roundUp(int n, int step) { return (n + step - 1) / step * step; }
inline int roundUp16(int n) { return roundUp(n, 16); }

// Remembers whether everything it has seen is finite.
class FiniteCheck {
 public:
  // Not implicit: the compiler would make that one outside the pass.
  FiniteCheck() { reset(); }
  void reset() {
    zeros_ = zero();
    found_ = 0;
  }
  ISA_INLINE void see(Vec x) { zeros_ = fma(x, zero(), zeros_); }
#if ISA_LEVEL >= 2
  template <class T>
  ISA_INLINE void seeBits(__m512i x) {
    const __m512i magnitude = _mm512_and_si512(x, _mm512_set1_epi16(0x7fff));
    const __m512i infinity = _mm512_set1_epi16(std::is_same_v<T, Half> ? 0x7c00 : 0x7f80);
    found_ |= _mm512_cmpge_epi16_mask(magnitude, infinity);
  }
#endif
  bool finite() const { return found_ == 0 && reduceAdd(zeros_) == 0.0f; }

 private:
  Vec zeros_;
  uint32_t found_;
};

// ---- Wide ----

// `keys` (1 to 16) rows of headDim elements -> [headDim rounded up to 16][16 keys]; what is absent is 0.
template <class T>
inline void widenTransposed(const T* rows, int64_t stride, int keys, int headDim, float* out) {
  for (int d = 0; d < headDim; d += 16) {
    Vec x[16], columns[16];
    const int n = std::min(16, headDim - d);
    if (n == 16)
      for (int i = 0; i < 16; i++) x[i] = i < keys ? load(rows + i * stride + d) : zero();
    else
      for (int i = 0; i < 16; i++) x[i] = i < keys ? loadPartial(rows + i * stride + d, n) : zero();
    transpose16(x, columns);
    for (int i = 0; i < 16; i++) store(out + (d + i) * int64_t(16), columns[i]);
  }
}

// One row of headDim elements -> fp32, zeros up to the next multiple of 16.
template <class T, class See>
ISA_INLINE void widenRow(const T* row, int headDim, float* out, See&& see) {
  int d = 0;
  for (; d + 16 <= headDim; d += 16) {
    const Vec x = load(row + d);
    see(x);
    store(out + d, x);
  }
  if (d < headDim) {
    const Vec x = loadPartial(row + d, headDim - d);
    see(x);
    store(out + d, x);
  }
}
template <class T>
ISA_INLINE void widenRow(const T* row, int headDim, float* out) {
  widenRow(row, headDim, out, [](Vec) {});
}

// 16 pairs of bf16 -> the first and the second of each.
ISA_INLINE void loadPairs(const BFloat16* p, Vec& first, Vec& second) {
#if ISA_LEVEL >= 2
  const __m512i bits = _mm512_loadu_si512(p);
  first = {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
  second = {_mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(int(0xffff0000u))))};
#elif ISA_LEVEL == 1
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 16));
  const __m256i upper = _mm256_set1_epi32(int(0xffff0000u));
  first = {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
  second = {_mm256_castsi256_ps(_mm256_and_si256(low, upper)),
            _mm256_castsi256_ps(_mm256_and_si256(high, upper))};
#else
  float even[16], odd[16];
  for (int i = 0; i < 16; i++) {
    even[i] = toFloat(p[2 * i]);
    odd[i] = toFloat(p[2 * i + 1]);
  }
  first = load(even);
  second = load(odd);
#endif
}

// `columns` pairs -> the row of the firsts and, unless null, the row of the seconds.
template <class See>
ISA_INLINE void widenPairs(const BFloat16* pairs, int columns, float* first, float* second, See&& see) {
  for (int c = 0; c < columns; c += 16) {
    BFloat16 part[32] = {};
    const bool whole = c + 16 <= columns;
    if (!whole) std::memcpy(part, pairs + 2 * c, size_t(columns - c) * 4);
    Vec a, b;
    loadPairs(whole ? pairs + 2 * c : part, a, b);
    see(a);
    store(first + c, a);
    if (second == nullptr) continue;
    see(b);
    store(second + c, b);
  }
}

// ---- Pairs and halves ----

#if ISA_LEVEL >= 2
ISA_INLINE __m512i loadBits(const void* p) { return _mm512_loadu_si512(p); }
ISA_INLINE __m512i loadBits(const void* p, int elements) {
  if (elements >= 32) return loadBits(p);
  return _mm512_maskz_loadu_epi16((__mmask32(1) << elements) - 1, p);
}

// a0 b0 a1 b1 .. a15 b15, and a16 b16 .. a31 b31.
ISA_INLINE void interleave(__m512i a, __m512i b, __m512i& low, __m512i& high) {
  const __m512i first =
      _mm512_set_epi32(0x2f000f, 0x2e000e, 0x2d000d, 0x2c000c, 0x2b000b, 0x2a000a, 0x290009, 0x280008,
                       0x270007, 0x260006, 0x250005, 0x240004, 0x230003, 0x220002, 0x210001, 0x200000);
  low = _mm512_permutex2var_epi16(a, first, b);
  high = _mm512_permutex2var_epi16(a, _mm512_add_epi16(first, _mm512_set1_epi16(16)), b);
}

// 32 fp32 rounded to T. bf16 takes subnormals as zeros, as the products do.
template <class T>
ISA_INLINE __m512i roundBits(Vec low, Vec high) {
#if ISA_LEVEL >= 3
  if constexpr (std::is_same_v<T, BFloat16>) return __m512i(_mm512_cvtne2ps_pbh(high.v, low.v));
#endif
  return _mm512_inserti64x4(_mm512_castsi256_si512(toHalfBits(low)), toHalfBits(high), 1);
}

// Stores 32 elements: bf16 as it is, fp16 as its upper 8 bits here and the rest a plane further.
template <class T>
ISA_INLINE void storeSplit(__m512i bits, BFloat16* out, [[maybe_unused]] int64_t plane) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    _mm512_storeu_si512(out, bits);
  } else {
#if ISA_LEVEL >= 4
    __m512i upper, rest;
    splitHalves(bits, upper, rest);
    _mm512_storeu_si512(out, upper);
    _mm512_storeu_si512(out + plane, rest);
#endif
  }
}

// One row of headDim 16-bit elements, zeros up to `width`, a multiple of 32.
template <class T>
ISA_INLINE void packRow(const T* row, int headDim, int width, BFloat16* out, int64_t plane) {
  for (int d = 0; d < width; d += 32)
    storeSplit<T>(loadBits(row + d, std::max(0, std::min(32, headDim - d))), out + d, plane);
}

// `count` (1 to 16) rows -> [width / 2][16][2]: pairs along the row, rows side by side.
template <class T>
inline void packColumns(const T* rows, int64_t stride, int count, int headDim, int width, BFloat16* out,
                        int64_t plane) {
  for (int d = 0; d < width; d += 32) {
    Vec x[16], columns[16];
    const int n = std::max(0, std::min(32, headDim - d));
    for (int i = 0; i < 16; i++)
      x[i] = {_mm512_castsi512_ps(i < count ? loadBits(rows + i * stride + d, n) : _mm512_setzero_si512())};
    transpose16(x, columns);
    for (int i = 0; i < 16; i++)
      storeSplit<T>(_mm512_castps_si512(columns[i].v), out + (d / 2 + i) * 32, plane);
  }
}

// `columns` pairs of bf16 as they are, zeros up to `width`, a multiple of 16; the seconds of pairs only if
// `present` is 2.
template <class See>
ISA_INLINE void copyPairs(const BFloat16* pairs, int columns, int width, BFloat16* out, int present,
                          See&& see) {
  const __m512i mask = _mm512_set1_epi32(present == 2 ? -1 : 0xffff);
  for (int c = 0; c < width; c += 16) {
    const __m512i x =
        _mm512_and_si512(loadBits(pairs + 2 * c, std::max(0, std::min(32, 2 * (columns - c)))), mask);
    see(x);
    _mm512_storeu_si512(out + 2 * c, x);
  }
}

// `count` (1 to 32) rows -> [width][32]: columns become rows, `stride` elements apart, with zeros where rows
// are absent. width is a multiple of 16.
template <class T>
inline void packTransposed(const T* rows, int64_t rowStride, int count, int headDim, int width, BFloat16* out,
                           int64_t stride, int64_t plane) {
  for (int d = 0; d < width; d += 32) {
    const int n = std::max(0, std::min(32, headDim - d));
    Vec low[16], high[16], columns[16];
    for (int i = 0; i < 16; i++) {
      const auto row = [&](int j) {
        return j < count ? loadBits(rows + j * rowStride + d, n) : _mm512_setzero_si512();
      };
      __m512i a, b;
      interleave(row(2 * i), row(2 * i + 1), a, b);
      low[i] = {_mm512_castsi512_ps(a)};
      high[i] = {_mm512_castsi512_ps(b)};
    }
    transpose16(low, columns);
    for (int i = 0; i < 16; i++)
      storeSplit<T>(_mm512_castps_si512(columns[i].v), out + (d + i) * stride, plane);
    if (d + 16 >= width) break;
    transpose16(high, columns);
    for (int i = 0; i < 16; i++)
      storeSplit<T>(_mm512_castps_si512(columns[i].v), out + (d + 16 + i) * stride, plane);
  }
}

// Two rows -> [width][2], width a multiple of 16; `second` may be null (zeros).
template <class T, class See>
ISA_INLINE void packRowPair(const T* first, const T* second, int headDim, int width, BFloat16* out,
                            int64_t plane, See&& see) {
  for (int d = 0; d < width; d += 32) {
    const int n = std::max(0, std::min(32, headDim - d));
    const __m512i a = loadBits(first + d, n);
    const __m512i b = second ? loadBits(second + d, n) : _mm512_setzero_si512();
    see(a);
    see(b);
    __m512i low, high;
    interleave(a, b, low, high);
    storeSplit<T>(low, out + 2 * d, plane);
    if (d + 16 < width) storeSplit<T>(high, out + 2 * d + 32, plane);
  }
}
#endif

// One fp32 row, each element through `map`, rounded once.
template <class T, class F>
ISA_INLINE void storeRow(const float* row, int headDim, T* out, F&& map) {
  int d = 0;
  for (; d + 16 <= headDim; d += 16) store(out + d, map(load(row + d)));
  if (d < headDim) storePartial(out + d, map(load(row + d)), headDim - d);
}

}  // namespace isopolicy::ISA_PASS
