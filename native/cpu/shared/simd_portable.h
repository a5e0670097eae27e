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

ISA_INLINE Quad quadAt(const float* p) {
  Quad x;
  std::memcpy(&x, p, sizeof x);
  return x;
}
ISA_INLINE QuadBits bitsAt(const void* p) {
  QuadHalf x;
  std::memcpy(&x, p, sizeof x);
  return __builtin_convertvector(x, QuadBits);
}
ISA_INLINE Quad quadAt(const BFloat16* p) { return Quad(bitsAt(p) << 16); }
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
ISA_INLINE Quad quadAt(const Half* p) { return widenHalf(bitsAt(p)); }

ISA_INLINE QuadBits bfloat16Bits(Quad x) {
  const QuadBits u = QuadBits(x);
  const QuadBits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return choose(QuadBits(x != x), (u >> 16) | 0x40u, rounded);
}
ISA_INLINE QuadBits halfBits(Quad x) {
  const QuadBits u = QuadBits(x), magnitude = u & 0x7fffffffu;
  const QuadBits normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  // Subnormal in fp16: adding 0.5 aligns the mantissa so that the hardware rounds at 2^-24.
  const QuadBits small = QuadBits(Quad(magnitude) + 0.5f) - 0x3f000000u;
  const QuadBits nan = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
  QuadBits h = choose(above(magnitude, 0x387fffffu), normal, small);
  h = choose(above(magnitude, 0x477fefffu), quadOf(0x7c00u), h);  // rounds to 65536 or more
  h = choose(above(magnitude, 0x7f800000u), nan, h);
  return h | ((u >> 16) & 0x8000u);
}
ISA_INLINE void putQuad(float* p, Quad x) { std::memcpy(p, &x, sizeof x); }
ISA_INLINE void putBits(void* p, QuadBits bits) {
  const QuadHalf x = __builtin_convertvector(bits, QuadHalf);
  std::memcpy(p, &x, sizeof x);
}
ISA_INLINE void putQuad(BFloat16* p, Quad x) { putBits(p, bfloat16Bits(x)); }
ISA_INLINE void putQuad(Half* p, Quad x) { putBits(p, halfBits(x)); }

ISA_INLINE Vec zero() { return {quadOf(0.0f), quadOf(0.0f), quadOf(0.0f), quadOf(0.0f)}; }
ISA_INLINE Vec splat(float x) { return {quadOf(x), quadOf(x), quadOf(x), quadOf(x)}; }
template <class T>
ISA_INLINE Vec load(const T* p) {
  return {quadAt(p), quadAt(p + 4), quadAt(p + 8), quadAt(p + 12)};
}
template <class T>
ISA_INLINE void store(T* p, Vec x) {
  putQuad(p, x.a);
  putQuad(p + 4, x.b);
  putQuad(p + 8, x.c);
  putQuad(p + 12, x.d);
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

#if defined(__SSE2__)
ISA_INLINE Quad max(Quad x, Quad y) { return Quad(_mm_max_ps(__m128(x), __m128(y))); }
ISA_INLINE Quad min(Quad x, Quad y) { return Quad(_mm_min_ps(__m128(x), __m128(y))); }
ISA_INLINE Quad sqrt(Quad x) { return Quad(_mm_sqrt_ps(__m128(x))); }
ISA_INLINE bool any(QuadBits mask) { return _mm_movemask_ps(__m128(mask)) != 0; }
#else
ISA_INLINE Quad max(Quad x, Quad y) { return choose(QuadBits(x > y), x, y); }
ISA_INLINE Quad min(Quad x, Quad y) { return choose(QuadBits(x < y), x, y); }
ISA_INLINE Quad sqrt(Quad x) {
  return Quad{std::sqrt(x[0]), std::sqrt(x[1]), std::sqrt(x[2]), std::sqrt(x[3])};
}
ISA_INLINE bool any(QuadBits mask) { return (mask[0] | mask[1] | mask[2] | mask[3]) != 0; }
#endif

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
  return {widenHalf(halfBits(x.a)), widenHalf(halfBits(x.b)), widenHalf(halfBits(x.c)),
          widenHalf(halfBits(x.d))};
}
ISA_INLINE Vec roundBFloat16(Vec x) {
  return {Quad(bfloat16Bits(x.a) << 16), Quad(bfloat16Bits(x.b) << 16), Quad(bfloat16Bits(x.c) << 16),
          Quad(bfloat16Bits(x.d) << 16)};
}
ISA_INLINE void loadApart(const BFloat16* p, Quad& even, Quad& odd) {
  QuadBits bits;
  std::memcpy(&bits, p, sizeof bits);
  even = Quad(bits << 16);
  odd = Quad(bits & 0xffff0000u);
}
ISA_INLINE void storeJoined(BFloat16* p, Quad even, Quad odd) {
  const QuadBits bits = bfloat16Bits(even) | (bfloat16Bits(odd) << 16);
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
