// Sixteen fp32 lanes at every vector level: one zmm, two ymm, or four small vectors of the compiler's
// (simd_portable.h).
//
// The lane count is the same everywhere, so a reduction has the same order at every level; AVX2 and AVX-512
// give the same bits, portable code differs only by having no fused multiply-add. Included once a pass by
// each_isa.h: no guard. Conversions round to nearest even and keep NaN, infinities and subnormals (bf16 is
// rounded by integer arithmetic: vcvtneps2bf16 would flush subnormals).

namespace isopolicy::ISA_PASS {

inline constexpr int kLanes = 16;

#if ISA_LEVEL >= 2
struct Vec {
  __m512 v;
};
ISA_INLINE __mmask16 laneMask(int n) { return __mmask16(n >= 16 ? 0xffffu : (1u << n) - 1u); }
ISA_INLINE Vec zero() { return {_mm512_setzero_ps()}; }
ISA_INLINE Vec splat(float x) { return {_mm512_set1_ps(x)}; }
ISA_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
ISA_INLINE Vec load(const Half* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
ISA_INLINE Vec load(const BFloat16* p) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
// The first n lanes from memory, zeros in the rest; nothing beyond is read.
ISA_INLINE Vec loadPartial(const float* p, int n) { return {_mm512_maskz_loadu_ps(laneMask(n), p)}; }
ISA_INLINE Vec loadPartial(const Half* p, int n) {
  return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(laneMask(n), p))};
}
ISA_INLINE Vec loadPartial(const BFloat16* p, int n) {
  const __m256i bits = _mm256_maskz_loadu_epi16(laneMask(n), p);
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}
ISA_INLINE __m256i toHalfBits(Vec x) {
  return _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// x rounded to bf16 in the upper half of each lane; the lower half holds what is left.
ISA_INLINE __m512i roundedToUpper(Vec x) {
  const __m512i u = _mm512_castps_si512(x.v);
  const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
  const __m512i below = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
  const __m512i rounded = _mm512_mask_add_epi32(below, odd, below, _mm512_set1_epi32(1));
  // By its table, a quiet or signalling NaN in x is taken, made quiet, instead of what rounding made of it.
  return _mm512_castps_si512(
      _mm512_fixupimm_ps(_mm512_castsi512_ps(rounded), x.v, _mm512_set1_epi32(0x22), 0));
}
ISA_INLINE __m256i toBFloat16Bits(Vec x) {
  const __m512i upper = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31, 29, 27, 25, 23,
                                         21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return _mm512_castsi512_si256(_mm512_permutexvar_epi16(upper, roundedToUpper(x)));
}
ISA_INLINE void store(float* p, Vec x) { _mm512_storeu_ps(p, x.v); }
ISA_INLINE void store(Half* p, Vec x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), toHalfBits(x)); }
ISA_INLINE void store(BFloat16* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), toBFloat16Bits(x));
}
ISA_INLINE void storePartial(float* p, Vec x, int n) { _mm512_mask_storeu_ps(p, laneMask(n), x.v); }
ISA_INLINE void storePartial(Half* p, Vec x, int n) {
  _mm256_mask_storeu_epi16(p, laneMask(n), toHalfBits(x));
}
ISA_INLINE void storePartial(BFloat16* p, Vec x, int n) {
  _mm256_mask_storeu_epi16(p, laneMask(n), toBFloat16Bits(x));
}
// Past the caches; p on a multiple of the vector's size.
ISA_INLINE void stream(float* p, Vec x) { _mm512_stream_ps(p, x.v); }
ISA_INLINE void stream(Half* p, Vec x) { _mm256_stream_si256(reinterpret_cast<__m256i*>(p), toHalfBits(x)); }
ISA_INLINE void stream(BFloat16* p, Vec x) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), toBFloat16Bits(x));
}
ISA_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
ISA_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
ISA_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
ISA_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
// a * b + c, fused where the level has it.
ISA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// As the hardware: the second operand where either is NaN.
ISA_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }
ISA_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }
ISA_INLINE Vec abs(Vec a) { return {_mm512_abs_ps(a.v)}; }
ISA_INLINE Vec minusAbs(Vec a) { return {_mm512_or_ps(a.v, _mm512_set1_ps(-0.0f))}; }
ISA_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
// a where x < y, else b.
ISA_INLINE Vec selectLess(Vec x, Vec y, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), b.v, a.v)};
}
// NaN in the lanes where x is, else as `seen`.
ISA_INLINE Vec noteNaN(Vec seen, Vec x) {
  return {_mm512_mask_mov_ps(seen.v, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), x.v)};
}
ISA_INLINE bool anyGreater(Vec a, Vec b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }
// p * 2^n, where n is integral and shifted = n + 1.5 * 2^23.
ISA_INLINE Vec scaleByPowerOfTwo(Vec p, Vec n, Vec shifted) { return {_mm512_scalef_ps(p.v, n.v)}; }
ISA_INLINE void toArray(Vec x, float* out) { _mm512_storeu_ps(out, x.v); }
ISA_INLINE Vec roundHalf(Vec x) { return {_mm512_cvtph_ps(toHalfBits(x))}; }
ISA_INLINE Vec roundBFloat16(Vec x) {
  return {_mm512_castsi512_ps(_mm512_and_si512(roundedToUpper(x), _mm512_set1_epi32(int(0xffff0000u))))};
}
// As the scalar one in core/dtype.h.
ISA_INLINE Vec roundEmulated(Vec x) {
  const EmulatedFormat& f = emulatedFormat;
  const __m512i u = _mm512_castps_si512(x.v);
  const __m512i magnitude = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
  const __m512i odd = _mm512_and_si512(_mm512_srl_epi32(magnitude, _mm_cvtsi32_si128(f.shift)),
                                       _mm512_set1_epi32(int(f.odd)));
  __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(magnitude, _mm512_set1_epi32(int(f.belowHalf))), odd);
  rounded = _mm512_and_si512(rounded, _mm512_set1_epi32(int(f.keep)));
  const __m512 magic = _mm512_set1_ps(f.magic);
  const __m512 aligned = _mm512_sub_ps(_mm512_add_ps(_mm512_castsi512_ps(magnitude), magic), magic);
  const __mmask16 small = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32(int(f.leastNormal)));
  rounded = _mm512_mask_mov_epi32(rounded, small, _mm512_castps_si512(aligned));
  const __m512i infinity = _mm512_set1_epi32(0x7f800000);
  const __mmask16 over = _mm512_cmpgt_epi32_mask(rounded, _mm512_set1_epi32(int(f.greatest)));
  rounded = _mm512_mask_mov_epi32(rounded, over, infinity);
  const __mmask16 nan = _mm512_cmpgt_epi32_mask(magnitude, infinity);
  rounded = _mm512_mask_or_epi32(rounded, nan, magnitude, _mm512_set1_epi32(0x400000));
  const __m512i sign = _mm512_and_si512(u, _mm512_set1_epi32(int(0x80000000u)));
  return {_mm512_castsi512_ps(_mm512_or_si512(rounded, sign))};
}
// Of two bf16 numbers in each lane.
ISA_INLINE Vec lowerBFloat16(Vec pairs) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs.v), 16))};
}
ISA_INLINE Vec upperBFloat16(Vec pairs) {
  return {_mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(pairs.v), _mm512_set1_epi32(int(0xffff0000u))))};
}
ISA_INLINE void loadPair(const BFloat16* p, Vec& a, Vec& b) {
  const Vec pairs = {_mm512_loadu_ps(p)};
  a = lowerBFloat16(pairs);
  b = upperBFloat16(pairs);
}
ISA_INLINE __m512i pairBits(Vec a, Vec b) {
  return _mm512_mask_mov_epi16(_mm512_srli_epi32(roundedToUpper(a), 16), 0xaaaaaaaau, roundedToUpper(b));
}
ISA_INLINE void storePair(BFloat16* p, Vec a, Vec b) { _mm512_storeu_si512(p, pairBits(a, b)); }
ISA_INLINE void streamPair(BFloat16* p, Vec a, Vec b) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), pairBits(a, b));
}
ISA_INLINE __m512i sideBySide(BFloat16, Vec a, Vec b) {
  const __m512i upper =
      _mm512_set_epi32(0x3f003d, 0x3b0039, 0x370035, 0x330031, 0x2f002d, 0x2b0029, 0x270025, 0x230021,
                       0x1f001d, 0x1b0019, 0x170015, 0x130011, 0x0f000d, 0x0b0009, 0x070005, 0x030001);
  return _mm512_permutex2var_epi16(roundedToUpper(a), upper, roundedToUpper(b));
}
ISA_INLINE __m512i sideBySide(Half, Vec a, Vec b) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(toHalfBits(a)), toHalfBits(b), 1);
}
// Two vectors of lanes that lie side by side.
ISA_INLINE void storeTwo(float* p, Vec a, Vec b) {
  store(p, a);
  store(p + kLanes, b);
}
ISA_INLINE void streamTwo(float* p, Vec a, Vec b) {
  stream(p, a);
  stream(p + kLanes, b);
}
template <class T>
ISA_INLINE void storeTwo(T* p, Vec a, Vec b) {
  _mm512_storeu_si512(p, sideBySide(T(), a, b));
}
template <class T>
ISA_INLINE void streamTwo(T* p, Vec a, Vec b) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), sideBySide(T(), a, b));
}
// Lanes 0, 2, .. of a, then of b; lanes 1, 3, ...
ISA_INLINE Vec evenLanes(Vec a, Vec b) {
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  return {_mm512_permutex2var_ps(a.v, even, b.v)};
}
ISA_INLINE Vec oddLanes(Vec a, Vec b) {
  const __m512i odd = _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1);
  return {_mm512_permutex2var_ps(a.v, odd, b.v)};
}
ISA_INLINE __m256 lowerHalf(Vec x) { return _mm512_castps512_ps256(x.v); }
ISA_INLINE __m256 upperHalf(Vec x) { return _mm512_extractf32x8_ps(x.v, 1); }
// Vectors whose exponentials the registers hold at once.
inline constexpr int kSideBySide = 4;
// Sixteen sums in fp64.
struct Doubles {
  __m512d lo, hi;
};
ISA_INLINE Doubles zeroDoubles() { return {_mm512_setzero_pd(), _mm512_setzero_pd()}; }
// sums + x^2: the square of an fp32 number is exact.
ISA_INLINE Doubles addSquares(Doubles sums, Vec x) {
  const __m512d lo = _mm512_cvtps_pd(lowerHalf(x)), hi = _mm512_cvtps_pd(upperHalf(x));
  return {_mm512_fmadd_pd(lo, lo, sums.lo), _mm512_fmadd_pd(hi, hi, sums.hi)};
}
ISA_INLINE void toArray(Doubles sums, double* out) {
  _mm512_storeu_pd(out, sums.lo);
  _mm512_storeu_pd(out + 8, sums.hi);
}

#elif ISA_LEVEL == 1
struct Vec {
  __m256 lo, hi;
};
ISA_INLINE Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
ISA_INLINE Vec splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
ISA_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
ISA_INLINE Vec load(const Half* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
ISA_INLINE __m256 widenBFloat16(__m128i bits) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
ISA_INLINE Vec load(const BFloat16* p) {
  return {widenBFloat16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          widenBFloat16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
template <class T>
ISA_INLINE Vec loadPartial(const T* p, int n) {
  if (n >= 16) return load(p);
  T lanes[16];
  std::memset(lanes, 0, sizeof lanes);
  for (int i = 0; i < n; i++) lanes[i] = p[i];
  return load(lanes);
}
ISA_INLINE __m256i toBFloat16Bits32(__m256 x) {
  const __m256i u = _mm256_castps_si256(x);
  const __m256i lsb = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i rounded =
      _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(lsb, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q)));
}
ISA_INLINE void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
ISA_INLINE void store(Half* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(x.hi, _MM_FROUND_TO_NEAREST_INT));
}
ISA_INLINE void store(BFloat16* p, Vec x) {
  const __m256i packed = _mm256_packus_epi32(toBFloat16Bits32(x.lo), toBFloat16Bits32(x.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
template <class T>
ISA_INLINE void storePartial(T* p, Vec x, int n) {
  if (n >= 16) return store(p, x);
  T lanes[16];
  store(lanes, x);
  for (int i = 0; i < n; i++) p[i] = lanes[i];
}
// Past the caches; p on a multiple of 64 bytes (16 bits: 32).
ISA_INLINE void stream(float* p, Vec x) {
  _mm256_stream_ps(p, x.lo);
  _mm256_stream_ps(p + 8, x.hi);
}
template <class T>
ISA_INLINE void stream(T* p, Vec x) {
  alignas(32) T lanes[16];
  store(lanes, x);
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), *reinterpret_cast<const __m256i*>(lanes));
}
#define ISA_BINARY(name, intrinsic) \
  ISA_INLINE Vec name(Vec a, Vec b) { return {intrinsic(a.lo, b.lo), intrinsic(a.hi, b.hi)}; }
ISA_BINARY(operator+, _mm256_add_ps)
ISA_BINARY(operator-, _mm256_sub_ps)
ISA_BINARY(operator*, _mm256_mul_ps)
ISA_BINARY(operator/, _mm256_div_ps)
ISA_BINARY(max, _mm256_max_ps)
ISA_BINARY(min, _mm256_min_ps)
#undef ISA_BINARY
ISA_INLINE Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
ISA_INLINE Vec abs(Vec a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}
ISA_INLINE Vec minusAbs(Vec a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_or_ps(sign, a.lo), _mm256_or_ps(sign, a.hi)};
}
ISA_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
ISA_INLINE Vec selectLess(Vec x, Vec y, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))};
}
ISA_INLINE Vec noteNaN(Vec seen, Vec x) {
  return {_mm256_or_ps(seen.lo, _mm256_cmp_ps(x.lo, x.lo, _CMP_UNORD_Q)),
          _mm256_or_ps(seen.hi, _mm256_cmp_ps(x.hi, x.hi, _CMP_UNORD_Q))};
}
ISA_INLINE bool anyGreater(Vec a, Vec b) {
  return _mm256_movemask_ps(
      _mm256_or_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ)));
}
// In two factors, the first of which keeps p normal: n reaches -150 and 128.
ISA_INLINE __m256 scaleByPowerOfTwo(__m256 p, __m256 shifted) {
  const __m256i n = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000));
  const __m256i half = _mm256_srai_epi32(n, 1);
  const __m256 first =
      _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(half, 23)));
  const __m256i rest = _mm256_add_epi32(_mm256_sub_epi32(n, half), _mm256_set1_epi32(127));
  return _mm256_mul_ps(first, _mm256_castsi256_ps(_mm256_slli_epi32(rest, 23)));
}
// p * 2^n, where n is integral and shifted = n + 1.5 * 2^23.
ISA_INLINE Vec scaleByPowerOfTwo(Vec p, Vec n, Vec shifted) {
  return {scaleByPowerOfTwo(p.lo, shifted.lo), scaleByPowerOfTwo(p.hi, shifted.hi)};
}
ISA_INLINE void toArray(Vec x, float* out) { store(out, x); }
ISA_INLINE Vec roundHalf(Vec x) {
  return {_mm256_cvtph_ps(_mm256_cvtps_ph(x.lo, _MM_FROUND_TO_NEAREST_INT)),
          _mm256_cvtph_ps(_mm256_cvtps_ph(x.hi, _MM_FROUND_TO_NEAREST_INT))};
}
ISA_INLINE Vec roundBFloat16(Vec x) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(toBFloat16Bits32(x.lo), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(toBFloat16Bits32(x.hi), 16))};
}
// As the scalar one in core/dtype.h.
ISA_INLINE __m256 roundEmulated(__m256 x) {
  const EmulatedFormat& f = emulatedFormat;
  const __m256i u = _mm256_castps_si256(x);
  const __m256i magnitude = _mm256_and_si256(u, _mm256_set1_epi32(0x7fffffff));
  const __m256i odd = _mm256_and_si256(_mm256_srl_epi32(magnitude, _mm_cvtsi32_si128(f.shift)),
                                       _mm256_set1_epi32(int(f.odd)));
  __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(magnitude, _mm256_set1_epi32(int(f.belowHalf))), odd);
  rounded = _mm256_and_si256(rounded, _mm256_set1_epi32(int(f.keep)));
  const __m256 magic = _mm256_set1_ps(f.magic);
  const __m256 aligned = _mm256_sub_ps(_mm256_add_ps(_mm256_castsi256_ps(magnitude), magic), magic);
  const __m256i small = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(f.leastNormal)), magnitude);
  rounded = _mm256_blendv_epi8(rounded, _mm256_castps_si256(aligned), small);
  const __m256i infinity = _mm256_set1_epi32(0x7f800000);
  const __m256i over = _mm256_cmpgt_epi32(rounded, _mm256_set1_epi32(int(f.greatest)));
  rounded = _mm256_blendv_epi8(rounded, infinity, over);
  const __m256i nan = _mm256_cmpgt_epi32(magnitude, infinity);
  rounded = _mm256_blendv_epi8(rounded, _mm256_or_si256(magnitude, _mm256_set1_epi32(0x400000)), nan);
  const __m256i sign = _mm256_and_si256(u, _mm256_set1_epi32(int(0x80000000u)));
  return _mm256_castsi256_ps(_mm256_or_si256(rounded, sign));
}
ISA_INLINE Vec roundEmulated(Vec x) { return {roundEmulated(x.lo), roundEmulated(x.hi)}; }
ISA_INLINE __m256 lowerBFloat16(__m256 pairs) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pairs), 16));
}
ISA_INLINE __m256 upperBFloat16(__m256 pairs) {
  return _mm256_and_ps(pairs, _mm256_castsi256_ps(_mm256_set1_epi32(int(0xffff0000u))));
}
// Of two bf16 numbers in each lane.
ISA_INLINE Vec lowerBFloat16(Vec pairs) { return {lowerBFloat16(pairs.lo), lowerBFloat16(pairs.hi)}; }
ISA_INLINE Vec upperBFloat16(Vec pairs) { return {upperBFloat16(pairs.lo), upperBFloat16(pairs.hi)}; }
ISA_INLINE Vec loadApart(const BFloat16* p) {
  const __m256 pairs = _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  return {lowerBFloat16(pairs), upperBFloat16(pairs)};
}
ISA_INLINE __m256i joinedBits(Vec x) {
  return _mm256_blend_epi16(toBFloat16Bits32(x.lo), _mm256_slli_epi32(toBFloat16Bits32(x.hi), 16), 0xaa);
}
ISA_INLINE void loadPair(const BFloat16* p, Vec& a, Vec& b) {
  a = loadApart(p);
  b = loadApart(p + 16);
}
ISA_INLINE void storePair(BFloat16* p, Vec a, Vec b) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), joinedBits(a));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 16), joinedBits(b));
}
ISA_INLINE void streamPair(BFloat16* p, Vec a, Vec b) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), joinedBits(a));
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p + 16), joinedBits(b));
}
ISA_INLINE __m256 inOrder(__m256 x) {
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8));
}
// Lanes 0, 2, .. of a, then of b; lanes 1, 3, ...
ISA_INLINE Vec evenLanes(Vec a, Vec b) {
  return {inOrder(_mm256_shuffle_ps(a.lo, a.hi, 0x88)), inOrder(_mm256_shuffle_ps(b.lo, b.hi, 0x88))};
}
ISA_INLINE Vec oddLanes(Vec a, Vec b) {
  return {inOrder(_mm256_shuffle_ps(a.lo, a.hi, 0xdd)), inOrder(_mm256_shuffle_ps(b.lo, b.hi, 0xdd))};
}
ISA_INLINE __m256 lowerHalf(Vec x) { return x.lo; }
ISA_INLINE __m256 upperHalf(Vec x) { return x.hi; }
inline constexpr int kSideBySide = 2;
struct Doubles {
  __m256d four[4];
};
ISA_INLINE Doubles zeroDoubles() {
  const __m256d z = _mm256_setzero_pd();
  return {{z, z, z, z}};
}
ISA_INLINE Doubles addSquares(Doubles sums, Vec x) {
  const __m128 q[4] = {_mm256_castps256_ps128(x.lo), _mm256_extractf128_ps(x.lo, 1),
                       _mm256_castps256_ps128(x.hi), _mm256_extractf128_ps(x.hi, 1)};
  for (int i = 0; i < 4; i++) {
    const __m256d d = _mm256_cvtps_pd(q[i]);
    sums.four[i] = _mm256_fmadd_pd(d, d, sums.four[i]);
  }
  return sums;
}
ISA_INLINE void toArray(Doubles sums, double* out) {
  for (int i = 0; i < 4; i++) _mm256_storeu_pd(out + 4 * i, sums.four[i]);
}

#else
#include "cpu/shared/simd_portable.h"
#endif

// ---- The same text at every level ----

// Whether numbers of a type lie in memory as fp32.
template <class T>
inline constexpr bool kFourBytes = sizeof(T) == 4;

// Numbers of the emulated format in force: fp32 numbers that are rounded when they are stored.
ISA_INLINE Vec load(const Emulated* p) { return load(&p->value); }
ISA_INLINE Vec loadPartial(const Emulated* p, int n) { return loadPartial(&p->value, n); }
ISA_INLINE void store(Emulated* p, Vec x) { store(&p->value, roundEmulated(x)); }
ISA_INLINE void storePartial(Emulated* p, Vec x, int n) { storePartial(&p->value, roundEmulated(x), n); }
ISA_INLINE void stream(Emulated* p, Vec x) { stream(&p->value, roundEmulated(x)); }
#if ISA_LEVEL >= 2
ISA_INLINE void storeTwo(Emulated* p, Vec a, Vec b) {
  storeTwo(&p->value, roundEmulated(a), roundEmulated(b));
}
ISA_INLINE void streamTwo(Emulated* p, Vec a, Vec b) {
  streamTwo(&p->value, roundEmulated(a), roundEmulated(b));
}
#endif

// Thirty-two elements in an order of their own, which storePair undoes: bf16 is taken apart into its even and
// its odd elements, a shift and a mask.
template <class T>
ISA_INLINE void loadPair(const T* p, Vec& a, Vec& b) {
  a = load(p);
  b = load(p + kLanes);
}
template <class T>
ISA_INLINE void storePair(T* p, Vec a, Vec b) {
  store(p, a);
  store(p + kLanes, b);
}
template <class T>
ISA_INLINE void streamPair(T* p, Vec a, Vec b) {
  stream(p, a);
  stream(p + kLanes, b);
}

// Rounds each lane to T and back.
template <class T>
ISA_INLINE Vec roundThrough(Vec x) {
  if constexpr (std::is_same_v<T, Half>)
    return roundHalf(x);
  else if constexpr (std::is_same_v<T, BFloat16>)
    return roundBFloat16(x);
  else if constexpr (std::is_same_v<T, Emulated>)
    return roundEmulated(x);
  else
    return x;
}

// The sum of the lanes by halves (8, 4, 2, 1), one order at every level, and their maximum.
#if ISA_LEVEL >= 1
ISA_INLINE float firstLane(Vec x) { return _mm256_cvtss_f32(lowerHalf(x)); }
ISA_INLINE float reduceAdd(Vec x) {
  const __m256 eight = _mm256_add_ps(lowerHalf(x), upperHalf(x));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
ISA_INLINE float reduceMax(Vec x) {
  const __m256 eight = _mm256_max_ps(lowerHalf(x), upperHalf(x));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}
#else
ISA_INLINE float firstLane(Vec x) { return x.a[0]; }
ISA_INLINE float reduceAdd(Vec x) {
  const Quad four = (x.a + x.c) + (x.b + x.d);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
ISA_INLINE float reduceMax(Vec x) {
  const Quad four = max(max(x.a, x.c), max(x.b, x.d));
  const float even = four[0] > four[2] ? four[0] : four[2], odd = four[1] > four[3] ? four[1] : four[3];
  return even > odd ? even : odd;
}
#endif

// e^x within 1 ulp and a half for x in [-104, 89] or NaN, exactly 1 at 0, exactly 0 at -104, infinity at 89.
// N vectors in step, as many as the registers hold: one alone would wait most of the time for its polynomial.
//
// x = n ln2 + r with ln2 in two parts (n times the first is exact) and |r| <= ln2 / 2; n is rounded by the
// addition of 1.5 * 2^23, which leaves no fraction bits. The polynomial is 1 + r + r^2 q(r) with the q of
// degree 4 whose largest relative error, 3.1e-9, is the least.
template <int N>
ISA_INLINE void expInRange(Vec* x) {
  if constexpr (N > kSideBySide) {
    expInRange<kSideBySide>(x);
    expInRange<N - kSideBySide>(x + kSideBySide);
  } else {
    const Vec shift = splat(12582912.0f), one = splat(1.0f);
    Vec shifted[N], n[N], r[N], p[N];
    for (int k = 0; k < N; k++) shifted[k] = fma(x[k], splat(1.44269504088896341f), shift);
    for (int k = 0; k < N; k++) n[k] = shifted[k] - shift;
    for (int k = 0; k < N; k++) r[k] = fma(n[k], splat(-0.693359375f), x[k]);
    for (int k = 0; k < N; k++) r[k] = fma(n[k], splat(2.12194440e-4f), r[k]);
    for (int k = 0; k < N; k++) p[k] = fma(splat(0x1.6a23d0p-10f), r[k], splat(0x1.123a20p-7f));
    for (int k = 0; k < N; k++) p[k] = fma(p[k], r[k], splat(0x1.5558f2p-5f));
    for (int k = 0; k < N; k++) p[k] = fma(p[k], r[k], splat(0x1.555492p-3f));
    for (int k = 0; k < N; k++) p[k] = fma(p[k], r[k], splat(0x1.fffffcp-2f));
    for (int k = 0; k < N; k++) p[k] = fma(p[k], r[k], one);
    for (int k = 0; k < N; k++) p[k] = fma(p[k], r[k], one);
    for (int k = 0; k < N; k++) x[k] = scaleByPowerOfTwo(p[k], n[k], shifted[k]);
  }
}

// The range of expInRange; NaN passes, being the second operand.
ISA_INLINE Vec expRangeFromBelow(Vec x) { return max(splat(-104.0f), x); }

// e^x for every x: as expInRange, 0 below it, infinity above it, NaN for NaN.
ISA_INLINE Vec exp(Vec x) {
  Vec y = expRangeFromBelow(min(splat(89.0f), x));
  expInRange<1>(&y);
  return y;
}

// 2^x within 1 ulp for x up to 127. Exactly 0 below -126 (a subnormal would cost a hundred cycles), NaN for
// NaN, exactly 1 at 0. Where a constant factor can be folded into the argument, this is half the work of exp.
ISA_INLINE Vec exp2(Vec x) {
  const Vec clamped = max(splat(-126.0f), x);  // NaN passes: it is the second operand
  const Vec shift = splat(12582912.0f);        // as in expInRange
  const Vec shifted = clamped + shift, n = shifted - shift;
  const Vec r = clamped - n;
  // 2^r = 1 + r q(r) on |r| <= 1/2, q the polynomial of least relative error.
  Vec q = splat(0x1.41fbbcp-13f);
  q = fma(q, r, splat(0x1.5f3e52p-10f));
  q = fma(q, r, splat(0x1.3b2d4cp-7f));
  q = fma(q, r, splat(0x1.c6aee8p-5f));
  q = fma(q, r, splat(0x1.ebfbdcp-3f));
  q = fma(q, r, splat(0x1.62e43p-1f));
  const Vec p = fma(q, r, splat(1.0f));
#if ISA_LEVEL >= 2
  return {_mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), p.v, n.v)};
#else
  return selectLess(x, splat(-126.0f), zero(), scaleByPowerOfTwo(p, n, shifted));
#endif
}

// dtype -> element type: body is called with a value of float, Half, BFloat16 or, with its format in force,
// Emulated. Of two formats the inner one is: it is the one that is stored.
template <class F>
ISA_INLINE void dispatchFloat(DType dtype, F&& body) {
  switch (dtype) {
    case DType::float32:
      return body(0.0f);
    case DType::float16:
      return body(Half{});
    case DType::bfloat16:
      return body(BFloat16{});
    default:
      useEmulated(dtype);
      return body(Emulated{});
  }
}

// Whether this level multiplies numbers of a dtype otherwise than the level below: avx512bf16 has pairs of
// bf16, amx tiles of bf16, in two parts of which fp16 fits.
inline constexpr bool ownsProducts(DType dtype) {
  return ISA_LEVEL <= 2 || dtype == DType::bfloat16 || (ISA_LEVEL == 4 && dtype == DType::float16);
}

// As dispatchFloat, in kernels that have given what ownsProducts excludes to the level below.
template <class F>
ISA_INLINE void dispatchOwn(DType dtype, F&& body) {
  dispatchFloat(dtype, [&](auto like) {
    if constexpr (ownsProducts(DTypeOf<decltype(like)>::value)) body(like);
  });
}

}  // namespace isopolicy::ISA_PASS
