// Sixteen rows of sixteen lanes become columns, in registers. Lanes of 32 bits move as they are, be they
// numbers or pairs. Included once a pass, inside it, after simd.h: no guard.

namespace isopolicy::ISA_PASS {

#if ISA_LEVEL >= 2
ISA_INLINE void transpose16(const Vec (&x)[16], Vec (&out)[16]) {
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
    out[e] = {_mm512_shuffle_f32x4(low01, low23, 0x88)};
    out[4 + e] = {_mm512_shuffle_f32x4(low01, low23, 0xdd)};
    out[8 + e] = {_mm512_shuffle_f32x4(high01, high23, 0x88)};
    out[12 + e] = {_mm512_shuffle_f32x4(high01, high23, 0xdd)};
  }
}
#elif ISA_LEVEL == 1
ISA_INLINE void transpose8(const __m256 (&x)[8], __m256 (&out)[8]) {
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
    out[e] = _mm256_permute2f128_ps(b[e], b[4 + e], 0x20);
    out[4 + e] = _mm256_permute2f128_ps(b[e], b[4 + e], 0x31);
  }
}
ISA_INLINE void transpose16(const Vec (&x)[16], Vec (&out)[16]) {
  for (int half = 0; half < 2; half++) {
    __m256 low[8], high[8], columns[8];
    for (int i = 0; i < 8; i++) {
      low[i] = x[8 * half + i].lo;
      high[i] = x[8 * half + i].hi;
    }
    transpose8(low, columns);
    for (int i = 0; i < 8; i++) (half ? out[i].hi : out[i].lo) = columns[i];
    transpose8(high, columns);
    for (int i = 0; i < 8; i++) (half ? out[8 + i].hi : out[8 + i].lo) = columns[i];
  }
}
#else
ISA_INLINE void transpose4(const Quad* x, Quad* out) {
#if defined(__SSE2__)
  __m128 a = __m128(x[0]), b = __m128(x[1]), c = __m128(x[2]), d = __m128(x[3]);
  _MM_TRANSPOSE4_PS(a, b, c, d);
  out[0] = Quad(a);
  out[1] = Quad(b);
  out[2] = Quad(c);
  out[3] = Quad(d);
#else
  for (int i = 0; i < 4; i++) out[i] = Quad{x[0][i], x[1][i], x[2][i], x[3][i]};
#endif
}
ISA_INLINE void transpose16(const Vec (&x)[16], Vec (&out)[16]) {
#pragma GCC unroll 4
  for (int q = 0; q < 4; q++) {
    const Vec* rows = x + 4 * q;
    const Quad a[4] = {rows[0].a, rows[1].a, rows[2].a, rows[3].a};
    const Quad b[4] = {rows[0].b, rows[1].b, rows[2].b, rows[3].b};
    const Quad c[4] = {rows[0].c, rows[1].c, rows[2].c, rows[3].c};
    const Quad d[4] = {rows[0].d, rows[1].d, rows[2].d, rows[3].d};
    Quad y[16];
    transpose4(a, y);
    transpose4(b, y + 4);
    transpose4(c, y + 8);
    transpose4(d, y + 12);
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
      (q == 0 ? out[i].a : q == 1 ? out[i].b : q == 2 ? out[i].c : out[i].d) = y[i];
  }
}
#endif

}  // namespace isopolicy::ISA_PASS
