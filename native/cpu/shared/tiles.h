// The tile registers of AMX: eight of 16 rows of 64 bytes (16 x 32 bf16, 8 x 2 x 16 pairs, or 16 x 16 fp32).
//
// C += A B on tiles: C [16 rows][16 columns] fp32, A [16 rows][32 k] bf16 as stored along k, B [16 pairs of
// k][16 columns][2 of k]. An element of C takes 32 k a step: the sixteen even k are one chain of fused
// multiply-adds from zero, the odd ones another, and both are joined before C is added. Subnormal inputs and
// results are zero. The result of an element depends on its row of A and its column of B alone. Included once
// a pass, inside it, where ISA_LEVEL is 4: no guard. _tile_* take the numbers of registers as literals.

namespace isopolicy::ISA_PASS {

#if ISA_LEVEL >= 4
inline constexpr int kTileDepth = 32;  // bf16 along k of a step

// The compiler takes a tile load for a computation on its address; this makes it write out first what is
// loaded.
ISA_INLINE void writeOut() { __asm__ volatile("" ::: "memory"); }

// Gives the calling thread its tile registers while it lives: sums (0 to 3) and left operands (4 and 5) of
// `rows` rows, the rest whole.
class TileScope {
 public:
  explicit TileScope(int rows = 16) {
    struct alignas(64) {
      uint8_t palette, startRow, reserved[14];
      uint16_t bytes[16];
      uint8_t rows[16];
    } config = {};
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
      config.bytes[i] = 64;
      config.rows[i] = i < 6 ? uint8_t(rows) : uint8_t(16);
    }
    _tile_loadconfig(&config);
  }
  TileScope(const TileScope&) = delete;
  ~TileScope() { _tile_release(); }
};

// 32 fp32 that bf16 holds exactly.
ISA_INLINE __m512i upperHalves(__m512 low, __m512 high) {
  const __m512i odd =
      _mm512_set_epi32(0x3f003d, 0x3b0039, 0x370035, 0x330031, 0x2f002d, 0x2b0029, 0x270025, 0x230021,
                       0x1f001d, 0x1b0019, 0x170015, 0x130011, 0x0f000d, 0x0b0009, 0x070005, 0x030001);
  return _mm512_permutex2var_epi16(_mm512_castps_si512(low), odd, _mm512_castps_si512(high));
}

// 32 fp16 as two bf16 each whose sum they are: the upper 8 of their 11 bits, and the rest. A number that is
// not finite leaves NaN in one part.
ISA_INLINE void splitHalves(__m512i bits, __m512i& upper, __m512i& rest) {
  const __m512i mask = _mm512_set1_epi32(int(0xffff0000u));
  const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(bits));
  const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1));
  const auto restOf = [&](__m512 x) {
    return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x), mask)));
  };
  upper = upperHalves(low, high);
  rest = upperHalves(restOf(low), restOf(high));
}
#endif

}  // namespace isopolicy::ISA_PASS
