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

// Gives the calling thread its tile registers while it lives. Every scope uses the full shape; what a product
// does not fill is zero in memory.
class TileScope {
 public:
  TileScope() {
    struct alignas(64) {
      uint8_t palette, startRow, reserved[14];
      uint16_t bytes[16];
      uint8_t rows[16];
    } config = {};
    config.palette = 1;
    for (int i = 0; i < 8; i++) {
      config.bytes[i] = 64;
      config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
  }
  TileScope(const TileScope&) = delete;
  ~TileScope() { _tile_release(); }
};
#endif

}  // namespace isopolicy::ISA_PASS
