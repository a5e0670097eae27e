// Sixteen fp32 lanes at every vector level: one zmm, two ymm, or an array that the compiler vectorises.
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
ISA_INLINE __m512i toBFloat16Bits32(Vec x) {
  const __m512i u = _mm512_castps_si512(x.v);
  const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded =
      _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff))), 16);
  const __m512i quiet = _mm512_or_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q), quiet);
}
ISA_INLINE __m256i toBFloat16Bits(Vec x) { return _mm512_cvtepi32_epi16(toBFloat16Bits32(x)); }
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
ISA_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
ISA_INLINE Vec roundNearest(Vec a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// a where x < y, else b.
ISA_INLINE Vec selectLess(Vec x, Vec y, Vec a, Vec b) {
  return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(x.v, y.v, _CMP_LT_OQ), b.v, a.v)};
}
// x * 2^n for integral n in [-126, 127].
ISA_INLINE Vec scaleByPowerOfTwo(Vec x, Vec n) {
  const __m512i e = _mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127)), 23);
  return {_mm512_mul_ps(x.v, _mm512_castsi512_ps(e))};
}
ISA_INLINE void toArray(Vec x, float* out) { _mm512_storeu_ps(out, x.v); }
ISA_INLINE Vec roundHalf(Vec x) { return {_mm512_cvtph_ps(toHalfBits(x))}; }
ISA_INLINE Vec roundBFloat16(Vec x) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(toBFloat16Bits32(x), 16))};
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
ISA_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
ISA_INLINE Vec roundNearest(Vec a) {
  return {_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
          _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
ISA_INLINE Vec selectLess(Vec x, Vec y, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_cmp_ps(x.lo, y.lo, _CMP_LT_OQ)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_cmp_ps(x.hi, y.hi, _CMP_LT_OQ))};
}
ISA_INLINE __m256 powerOfTwo(__m256 n) {
  return _mm256_castsi256_ps(
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
ISA_INLINE Vec scaleByPowerOfTwo(Vec x, Vec n) {
  return {_mm256_mul_ps(x.lo, powerOfTwo(n.lo)), _mm256_mul_ps(x.hi, powerOfTwo(n.hi))};
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

#else
struct Vec {
  float lane[16];
};
#define ISA_EACH(expression)                             \
  Vec r;                                                 \
  for (int i = 0; i < 16; i++) r.lane[i] = (expression); \
  return r
ISA_INLINE Vec zero() { ISA_EACH(0.0f); }
ISA_INLINE Vec splat(float x) { ISA_EACH(x); }
template <class T>
ISA_INLINE Vec load(const T* p) {
  ISA_EACH(toFloat(p[i]));
}
template <class T>
ISA_INLINE Vec loadPartial(const T* p, int n) {
  ISA_EACH(i < n ? toFloat(p[i]) : 0.0f);
}
template <class T>
ISA_INLINE void store(T* p, Vec x) {
  for (int i = 0; i < 16; i++) fromFloat(x.lane[i], p[i]);
}
template <class T>
ISA_INLINE void storePartial(T* p, Vec x, int n) {
  for (int i = 0; i < n && i < 16; i++) fromFloat(x.lane[i], p[i]);
}
ISA_INLINE Vec operator+(Vec a, Vec b) { ISA_EACH(a.lane[i] + b.lane[i]); }
ISA_INLINE Vec operator-(Vec a, Vec b) { ISA_EACH(a.lane[i] - b.lane[i]); }
ISA_INLINE Vec operator*(Vec a, Vec b) { ISA_EACH(a.lane[i] * b.lane[i]); }
ISA_INLINE Vec operator/(Vec a, Vec b) { ISA_EACH(a.lane[i] / b.lane[i]); }
ISA_INLINE Vec fma(Vec a, Vec b, Vec c) { ISA_EACH(a.lane[i] * b.lane[i] + c.lane[i]); }
ISA_INLINE Vec max(Vec a, Vec b) { ISA_EACH(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
ISA_INLINE Vec min(Vec a, Vec b) { ISA_EACH(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
ISA_INLINE Vec abs(Vec a) { ISA_EACH(std::fabs(a.lane[i])); }
ISA_INLINE Vec sqrt(Vec a) { ISA_EACH(std::sqrt(a.lane[i])); }
// Adding 1.5 * 2^23 leaves no fraction bits; valid for |x| < 2^22, which covers its uses (exponents).
ISA_INLINE Vec roundNearest(Vec a) { ISA_EACH((a.lane[i] + 12582912.0f) - 12582912.0f); }
ISA_INLINE Vec selectLess(Vec x, Vec y, Vec a, Vec b) {
  ISA_EACH(x.lane[i] < y.lane[i] ? a.lane[i] : b.lane[i]);
}
ISA_INLINE Vec scaleByPowerOfTwo(Vec x, Vec n) {
  ISA_EACH(x.lane[i] * floatOf(uint32_t(int32_t(n.lane[i]) + 127) << 23));
}
ISA_INLINE void toArray(Vec x, float* out) {
  for (int i = 0; i < 16; i++) out[i] = x.lane[i];
}
ISA_INLINE Vec roundHalf(Vec x) { ISA_EACH(toFloat(roundTo<Half>(x.lane[i]))); }
ISA_INLINE Vec roundBFloat16(Vec x) { ISA_EACH(toFloat(roundTo<BFloat16>(x.lane[i]))); }
#undef ISA_EACH
#endif

// ---- The same text at every level ----

// Rounds each lane to T and back.
template <class T>
ISA_INLINE Vec roundThrough(Vec x) {
  if constexpr (std::is_same_v<T, Half>)
    return roundHalf(x);
  else if constexpr (std::is_same_v<T, BFloat16>)
    return roundBFloat16(x);
  else
    return x;
}

// Sums and maxima of the lanes by halves (8, 4, 2, 1): one order at every level.
ISA_INLINE float reduceAdd(Vec x) {
#if ISA_LEVEL >= 1
#if ISA_LEVEL >= 2
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x.v), _mm512_extractf32x8_ps(x.v, 1));
#else
  const __m256 eight = _mm256_add_ps(x.lo, x.hi);
#endif
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
  float a[16];
  toArray(x, a);
  for (int half = 8; half >= 1; half /= 2)
    for (int i = 0; i < half; i++) a[i] += a[i + half];
  return a[0];
#endif
}
ISA_INLINE float reduceMax(Vec x) {
  float a[16];
  toArray(x, a);
  float m = a[0];
  for (int i = 1; i < 16; i++) m = m < a[i] ? a[i] : m;
  return m;
}

// e^x within 2 ulp. Exactly 0 below -104, infinity above 88.8, NaN for NaN, exactly 1 at 0.
// Range reduction x = n ln2 + r with ln2 in two parts, |r| <= ln2 / 2, then a Taylor polynomial of degree 7.
ISA_INLINE Vec exp(Vec x) {
  const Vec clamped = max(splat(-104.0f), min(splat(89.0f), x));  // NaN passes: it is the second operand
  const Vec n = roundNearest(clamped * splat(1.44269504088896341f));
  Vec r = fma(n, splat(-0.693359375f), clamped);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.0f / 5040.0f);
  p = fma(p, r, splat(1.0f / 720.0f));
  p = fma(p, r, splat(1.0f / 120.0f));
  p = fma(p, r, splat(1.0f / 24.0f));
  p = fma(p, r, splat(1.0f / 6.0f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r * r, r) + splat(1.0f);
  // 2^n in two factors, since n reaches -150 and 128.
  const Vec half = roundNearest(n * splat(0.5f));
  const Vec y = scaleByPowerOfTwo(scaleByPowerOfTwo(p, half), n - half);
  return selectLess(x, splat(-104.0f), zero(), y);
}

// 2^x within 1 ulp for x up to 127. Exactly 0 below -126 (a subnormal would cost a hundred cycles), NaN for
// NaN, exactly 1 at 0. Where a constant factor can be folded into the argument, this is half the work of exp.
ISA_INLINE Vec exp2(Vec x) {
  const Vec clamped = max(splat(-126.0f), x);  // NaN passes: it is the second operand
  const Vec n = roundNearest(clamped);
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
  return selectLess(x, splat(-126.0f), zero(), scaleByPowerOfTwo(p, n));
#endif
}

// dtype -> element type: body is called with a value of float, Half or BFloat16.
template <class F>
ISA_INLINE void dispatchFloat(DType dtype, F&& body) {
  switch (dtype) {
    case DType::float16:
      return body(Half{});
    case DType::bfloat16:
      return body(BFloat16{});
    default:
      return body(0.0f);
  }
}

}  // namespace isopolicy::ISA_PASS
