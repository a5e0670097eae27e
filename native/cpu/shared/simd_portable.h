// Sixteen fp32 lanes as four vectors of the compiler's own, which every processor has registers for (SSE2,
// NEON). Conversions have no branches: all cases are computed and the right one kept by masks. Included by
// simd.h inside the portable pass: no guard.

typedef float Quad __attribute__((vector_size(16)));
typedef int32_t QuadInt __attribute__((vector_size(16)));
typedef uint32_t QuadBits __attribute__((vector_size(16)));
typedef uint16_t QuadHalf __attribute__((vector_size(8)));

struct Vec {
  Quad a, b, c, d;
};

ISA_INLINE Quad quadOf(float x) { return Quad{x, x, x, x}; }
ISA_INLINE QuadBits quadOf(uint32_t x) { return QuadBits{x, x, x, x}; }
ISA_INLINE Quad choose(QuadBits mask, Quad x, Quad y) {
  return Quad((QuadBits(x) & mask) | (QuadBits(y) & ~mask));
}
ISA_INLINE QuadBits choose(QuadBits mask, QuadBits x, QuadBits y) { return (x & mask) | (y & ~mask); }

// Lanes of x below 2^31 that are above a limit; as signed numbers, which SSE2 can compare.
ISA_INLINE QuadBits above(QuadBits x, uint32_t limit) {
  return QuadBits(QuadInt(x) > QuadInt(quadOf(limit)));
}

#if defined(__SSE2__)
ISA_INLINE Quad max(Quad x, Quad y) { return Quad(_mm_max_ps(__m128(x), __m128(y))); }
ISA_INLINE Quad min(Quad x, Quad y) { return Quad(_mm_min_ps(__m128(x), __m128(y))); }
ISA_INLINE Quad sqrt(Quad x) { return Quad(_mm_sqrt_ps(__m128(x))); }
ISA_INLINE bool any(QuadBits mask) { return _mm_movemask_ps(__m128(mask)) != 0; }
// The 16 bits at p + i become the upper half of a lane.
ISA_INLINE void loadUppers(const void* p, QuadBits& x, QuadBits& y) {
  const __m128i bits = _mm_loadu_si128(static_cast<const __m128i*>(p));
  x = QuadBits(_mm_unpacklo_epi16(_mm_setzero_si128(), bits));
  y = QuadBits(_mm_unpackhi_epi16(_mm_setzero_si128(), bits));
}
// The lower halves of lanes, whose upper halves repeat the sign.
ISA_INLINE void storeLowers(void* p, QuadBits x, QuadBits y) {
  _mm_storeu_si128(static_cast<__m128i*>(p), _mm_packs_epi32(__m128i(x), __m128i(y)));
}
#else
ISA_INLINE Quad max(Quad x, Quad y) { return choose(QuadBits(x > y), x, y); }
ISA_INLINE Quad min(Quad x, Quad y) { return choose(QuadBits(x < y), x, y); }
ISA_INLINE Quad sqrt(Quad x) {
  return Quad{std::sqrt(x[0]), std::sqrt(x[1]), std::sqrt(x[2]), std::sqrt(x[3])};
}
ISA_INLINE bool any(QuadBits mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
ISA_INLINE void loadUppers(const void* p, QuadBits& x, QuadBits& y) {
  QuadHalf bits[2];
  std::memcpy(bits, p, sizeof bits);
  x = __builtin_convertvector(bits[0], QuadBits) << 16;
  y = __builtin_convertvector(bits[1], QuadBits) << 16;
}
ISA_INLINE void storeLowers(void* p, QuadBits x, QuadBits y) {
  const QuadHalf bits[2] = {__builtin_convertvector(x, QuadHalf), __builtin_convertvector(y, QuadHalf)};
  std::memcpy(p, bits, sizeof bits);
}
#endif

ISA_INLINE void putQuad(float* p, Quad x) { std::memcpy(p, &x, sizeof x); }
ISA_INLINE Quad quadAt(const float* p) {
  Quad x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
ISA_INLINE Quad widenHalf(QuadBits h) {
  const QuadBits magnitude = h & 0x7fffu, shifted = magnitude << 13;
  const QuadBits normal = shifted + (112u << 23);
  // Zero and subnormals: an exponent of 113 put under the mantissa, and taken off again.
  const QuadBits small = QuadBits(Quad(shifted + (113u << 23)) - Quad(quadOf(113u << 23)));
  // Infinity, and NaN, which becomes quiet.
  const QuadBits special = shifted | 0x7f800000u | (above(magnitude, 0x7c00u) & 0x400000u);
  const QuadBits finite = choose(above(magnitude, 0x3ffu), normal, small);
  return Quad(choose(above(magnitude, 0x7bffu), special, finite) | ((h & 0x8000u) << 16));
}
ISA_INLINE Quad quadAt(const Half* p) {
  QuadHalf x;
  std::memcpy(&x, p, sizeof x);
  return widenHalf(__builtin_convertvector(x, QuadBits));
}

// x rounded to bf16 in the upper half of each lane; the lower half holds what is left. A NaN is not rounded
// but made quiet.
ISA_INLINE QuadBits roundedToUpper(Quad x) {
  const QuadBits u = QuadBits(x), nan = QuadBits(x != x);
  return (u + (~nan & (((u >> 16) & 1u) + 0x7fffu))) | (nan & 0x400000u);
}
// fp16 in the lower half of each lane, its sign in all of the upper half.
ISA_INLINE QuadBits halfBits(Quad x) {
  const QuadBits u = QuadBits(x);
  // What rounds to 65536 or more becomes infinity, which is the fp16 number that 65536 would be; so does NaN.
  const Quad magnitude = min(Quad(u & 0x7fffffffu), quadOf(65536.0f));
  const QuadBits m = QuadBits(magnitude);
  const QuadBits normal = (m + (((m >> 13) & 1u) + (0xfffu - 0x38000000u))) >> 13;
  // Subnormal in fp16: adding 0.5 aligns the mantissa so that the hardware rounds at 2^-24.
  const QuadBits small = QuadBits(magnitude + 0.5f) - 0x3f000000u;
  const QuadBits nan = QuadBits(x != x) & (((u >> 13) & 0x3ffu) | 0x200u);
  const QuadBits sign = QuadBits(QuadInt(u) >> 16) & 0xffff8000u;
  return choose(above(m, 0x387fffffu), normal, small) | nan | sign;
}

ISA_INLINE Vec zero() { return {quadOf(0.0f), quadOf(0.0f), quadOf(0.0f), quadOf(0.0f)}; }
ISA_INLINE Vec splat(float x) { return {quadOf(x), quadOf(x), quadOf(x), quadOf(x)}; }
template <class T>
ISA_INLINE Vec load(const T* p) {
  return {quadAt(p), quadAt(p + 4), quadAt(p + 8), quadAt(p + 12)};
}
ISA_INLINE Vec load(const BFloat16* p) {
  QuadBits a, b, c, d;
  loadUppers(p, a, b);
  loadUppers(p + 8, c, d);
  return {Quad(a), Quad(b), Quad(c), Quad(d)};
}
ISA_INLINE void store(float* p, Vec x) {
  putQuad(p, x.a);
  putQuad(p + 4, x.b);
  putQuad(p + 8, x.c);
  putQuad(p + 12, x.d);
}
ISA_INLINE void store(Half* p, Vec x) {
  storeLowers(p, halfBits(x.a), halfBits(x.b));
  storeLowers(p + 8, halfBits(x.c), halfBits(x.d));
}
ISA_INLINE void store(BFloat16* p, Vec x) {
  const auto lower = [](Quad q) { return QuadBits(QuadInt(roundedToUpper(q)) >> 16); };
  storeLowers(p, lower(x.a), lower(x.b));
  storeLowers(p + 8, lower(x.c), lower(x.d));
}
// The first n lanes from memory, zeros in the rest; nothing beyond is read.
template <class T>
ISA_INLINE Vec loadPartial(const T* p, int n) {
  if (n >= 16) return load(p);
  T lanes[16];
  std::memset(lanes, 0, sizeof lanes);
  for (int i = 0; i < n; i++) lanes[i] = p[i];
  return load(lanes);
}
template <class T>
ISA_INLINE void storePartial(T* p, Vec x, int n) {
  if (n >= 16) return store(p, x);
  T lanes[16];
  store(lanes, x);
  for (int i = 0; i < n; i++) p[i] = lanes[i];
}
// Where the level has no store past the caches that the compiler knows, an ordinary one.
template <class T>
ISA_INLINE void stream(T* p, Vec x) {
  store(p, x);
}

ISA_INLINE Vec operator+(Vec x, Vec y) { return {x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d}; }
ISA_INLINE Vec operator-(Vec x, Vec y) { return {x.a - y.a, x.b - y.b, x.c - y.c, x.d - y.d}; }
ISA_INLINE Vec operator*(Vec x, Vec y) { return {x.a * y.a, x.b * y.b, x.c * y.c, x.d * y.d}; }
ISA_INLINE Vec operator/(Vec x, Vec y) { return {x.a / y.a, x.b / y.b, x.c / y.c, x.d / y.d}; }
// The second operand where either is NaN.
ISA_INLINE Vec max(Vec x, Vec y) { return {max(x.a, y.a), max(x.b, y.b), max(x.c, y.c), max(x.d, y.d)}; }
ISA_INLINE Vec min(Vec x, Vec y) { return {min(x.a, y.a), min(x.b, y.b), min(x.c, y.c), min(x.d, y.d)}; }
// Not fused.
ISA_INLINE Vec fma(Vec x, Vec y, Vec z) { return x * y + z; }
ISA_INLINE Quad abs(Quad x) { return Quad(QuadBits(x) & 0x7fffffffu); }
ISA_INLINE Quad minusAbs(Quad x) { return Quad(QuadBits(x) | 0x80000000u); }
ISA_INLINE Vec minusAbs(Vec x) { return {minusAbs(x.a), minusAbs(x.b), minusAbs(x.c), minusAbs(x.d)}; }
ISA_INLINE Vec abs(Vec x) { return {abs(x.a), abs(x.b), abs(x.c), abs(x.d)}; }
ISA_INLINE Vec sqrt(Vec x) { return {sqrt(x.a), sqrt(x.b), sqrt(x.c), sqrt(x.d)}; }
ISA_INLINE Vec selectLess(Vec x, Vec y, Vec u, Vec v) {
  return {choose(QuadBits(x.a < y.a), u.a, v.a), choose(QuadBits(x.b < y.b), u.b, v.b),
          choose(QuadBits(x.c < y.c), u.c, v.c), choose(QuadBits(x.d < y.d), u.d, v.d)};
}
ISA_INLINE bool anyGreater(Vec x, Vec y) {
  return any(QuadBits((x.a > y.a) | (x.b > y.b) | (x.c > y.c) | (x.d > y.d)));
}
// NaN in the lanes where x is, else as `seen`.
ISA_INLINE Quad noteNaN(Quad seen, Quad x) { return Quad(QuadBits(seen) | QuadBits(x != x)); }
ISA_INLINE Vec noteNaN(Vec seen, Vec x) {
  return {noteNaN(seen.a, x.a), noteNaN(seen.b, x.b), noteNaN(seen.c, x.c), noteNaN(seen.d, x.d)};
}
// In two factors, the first of which keeps p normal: n reaches -150 and 128.
ISA_INLINE Quad scaleByPowerOfTwo(Quad p, Quad shifted) {
  const QuadInt n = QuadInt(shifted) - 0x4b400000;
  const QuadInt half = n >> 1;
  return Quad(QuadInt(p) + (half << 23)) * Quad((n - half + 127) << 23);
}
// p * 2^n, where n is integral and shifted = n + 1.5 * 2^23.
ISA_INLINE Vec scaleByPowerOfTwo(Vec p, Vec n, Vec shifted) {
  return {scaleByPowerOfTwo(p.a, shifted.a), scaleByPowerOfTwo(p.b, shifted.b),
          scaleByPowerOfTwo(p.c, shifted.c), scaleByPowerOfTwo(p.d, shifted.d)};
}
ISA_INLINE void toArray(Vec x, float* out) { store(out, x); }
ISA_INLINE Vec roundHalf(Vec x) {
  const auto round = [](Quad q) { return widenHalf(halfBits(q) & 0xffffu); };
  return {round(x.a), round(x.b), round(x.c), round(x.d)};
}
ISA_INLINE Vec roundEmulated(Vec x) {
  const EmulatedFormat f = emulatedFormat;
  const auto round = [&](Quad q) {
    for (int i = 0; i < 4; i++) q[i] = roundEmulated(q[i], f);
    return q;
  };
  return {round(x.a), round(x.b), round(x.c), round(x.d)};
}
ISA_INLINE Vec roundBFloat16(Vec x) {
  const auto round = [](Quad q) { return Quad(roundedToUpper(q) & 0xffff0000u); };
  return {round(x.a), round(x.b), round(x.c), round(x.d)};
}
ISA_INLINE Quad lowerBFloat16(Quad pairs) { return Quad(QuadBits(pairs) << 16); }
ISA_INLINE Quad upperBFloat16(Quad pairs) { return Quad(QuadBits(pairs) & 0xffff0000u); }
// Of two bf16 numbers in each lane.
ISA_INLINE Vec lowerBFloat16(Vec x) {
  return {lowerBFloat16(x.a), lowerBFloat16(x.b), lowerBFloat16(x.c), lowerBFloat16(x.d)};
}
ISA_INLINE Vec upperBFloat16(Vec x) {
  return {upperBFloat16(x.a), upperBFloat16(x.b), upperBFloat16(x.c), upperBFloat16(x.d)};
}
ISA_INLINE void loadApart(const BFloat16* p, Quad& even, Quad& odd) {
  Quad pairs;
  std::memcpy(&pairs, p, sizeof pairs);
  even = lowerBFloat16(pairs);
  odd = upperBFloat16(pairs);
}
ISA_INLINE void storeJoined(BFloat16* p, Quad even, Quad odd) {
  const QuadBits bits = (roundedToUpper(even) >> 16) | (roundedToUpper(odd) & 0xffff0000u);
  std::memcpy(p, &bits, sizeof bits);
}
ISA_INLINE void loadPair(const BFloat16* p, Vec& x, Vec& y) {
  loadApart(p, x.a, x.b);
  loadApart(p + 8, x.c, x.d);
  loadApart(p + 16, y.a, y.b);
  loadApart(p + 24, y.c, y.d);
}
ISA_INLINE void storePair(BFloat16* p, Vec x, Vec y) {
  storeJoined(p, x.a, x.b);
  storeJoined(p + 8, x.c, x.d);
  storeJoined(p + 16, y.a, y.b);
  storeJoined(p + 24, y.c, y.d);
}
ISA_INLINE void streamPair(BFloat16* p, Vec x, Vec y) { storePair(p, x, y); }
// Lanes 0, 2, .. of a, then of b; lanes 1, 3, ...
ISA_INLINE Quad evenOf(Quad x, Quad y) { return Quad{x[0], x[2], y[0], y[2]}; }
ISA_INLINE Quad oddOf(Quad x, Quad y) { return Quad{x[1], x[3], y[1], y[3]}; }
ISA_INLINE Vec evenLanes(Vec x, Vec y) {
  return {evenOf(x.a, x.b), evenOf(x.c, x.d), evenOf(y.a, y.b), evenOf(y.c, y.d)};
}
ISA_INLINE Vec oddLanes(Vec x, Vec y) {
  return {oddOf(x.a, x.b), oddOf(x.c, x.d), oddOf(y.a, y.b), oddOf(y.c, y.d)};
}
inline constexpr int kSideBySide = 1;

// Sixteen sums in fp64.
typedef double Twin __attribute__((vector_size(16)));
struct Doubles {
  Twin two[8];
};
ISA_INLINE Doubles zeroDoubles() { return Doubles{}; }
// sums + x^2: the square of an fp32 number is exact.
ISA_INLINE Doubles addSquares(Doubles sums, Vec x) {
  const Quad q[4] = {x.a, x.b, x.c, x.d};
  for (int i = 0; i < 8; i++) {
    const Twin d = {double(q[i / 2][i % 2 * 2]), double(q[i / 2][i % 2 * 2 + 1])};
    sums.two[i] = sums.two[i] + d * d;
  }
  return sums;
}
ISA_INLINE void toArray(Doubles sums, double* out) { std::memcpy(out, sums.two, sizeof sums.two); }
