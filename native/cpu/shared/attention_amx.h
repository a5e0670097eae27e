// The two products of attention on AMX, for operands in pairs or halves (attention_pack.h).
//
// MB x NB tiles of 16 x 16 sums stay in registers: 2 x 2 feed each tile that is loaded to two products, and
// for 16 rows or fewer 1 x 4 are enough independent chains to hide the latency of a product. An fp16 step is
// four products, all exact: upper by upper, upper by rest, rest by rest, rest by upper. Included once a pass:
// no guard.
#include "cpu/shared/tiles.h"

namespace isopolicy::ISA_PASS {

#if ISA_LEVEL >= 4
// What a thread that multiplies 16-bit T at level amx holds meanwhile: tile registers, and a control register
// with which vectors take subnormals as zeros, as tiles do.
template <class T>
class RowTiles {
 public:
  explicit RowTiles(int rows) : tiles_(rows) {
    if constexpr (!kUsed) return;
    control_ = _mm_getcsr();
    _mm_setcsr(control_ | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON);
  }
  RowTiles(const RowTiles&) = delete;
  ~RowTiles() {
    if constexpr (kUsed) _mm_setcsr(control_);
  }

 private:
  static constexpr bool kUsed = !kFourBytes<T>;
  struct None {
    explicit None(int) {}
  };
  std::conditional_t<kUsed, TileScope, None> tiles_;
  unsigned control_;
};

// Left operand: rows of `stride` elements, a multiple of 32; the rest of a half lies `plane` elements
// further.
struct LeftTiles {
  const BFloat16* base;
  int64_t stride, plane;
};

// One step of 32 along the sum. right(n, p) is where plane p of column block n begins.
template <int MB, int NB, int Planes, class Right>
ISA_INLINE void multiplyStep(const LeftTiles& left, const BFloat16* at, int64_t rightBytes, Right&& right) {
  const int64_t leftBytes = left.stride * 2;
  if constexpr (MB == 2) {
    const BFloat16* below = at + 16 * left.stride;
    _tile_loadd(4, at, leftBytes);
    _tile_loadd(5, below, leftBytes);
    _tile_loadd(6, right(0, 0), rightBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    if constexpr (NB == 2) {
      _tile_loadd(7, right(1, 0), rightBytes);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(3, 5, 7);
    }
    if constexpr (Planes == 2) {
      _tile_loadd(6, right(0, 1), rightBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (NB == 2) {
        _tile_loadd(7, right(1, 1), rightBytes);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_loadd(4, at + left.plane, leftBytes);
      _tile_loadd(5, below + left.plane, leftBytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      _tile_loadd(6, right(0, 0), rightBytes);
      if constexpr (NB == 2) {
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
        _tile_loadd(7, right(1, 0), rightBytes);
      }
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(2, 5, 6);
      if constexpr (NB == 2) {
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(3, 5, 7);
      }
    }
  } else {
    _tile_loadd(4, at, leftBytes);
    if constexpr (Planes == 2) _tile_loadd(5, at + left.plane, leftBytes);
#define ISA_COLUMN(n)                          \
  if constexpr (n < NB) {                      \
    _tile_loadd(6, right(n, 0), rightBytes);   \
    _tile_dpbf16ps(n, 4, 6);                   \
    if constexpr (Planes == 2) {               \
      _tile_loadd(7, right(n, 1), rightBytes); \
      _tile_dpbf16ps(n, 4, 7);                 \
      _tile_dpbf16ps(n, 5, 7);                 \
      _tile_dpbf16ps(n, 5, 6);                 \
    }                                          \
  }
    ISA_COLUMN(0)
    ISA_COLUMN(1)
    ISA_COLUMN(2)
    ISA_COLUMN(3)
#undef ISA_COLUMN
  }
}

// Sums begin at zero, or at what `out` holds.
template <int MB, int NB>
ISA_INLINE void beginTiles(bool fresh, const float* out, int64_t stride) {
  const int64_t bytes = stride * 4;
#define ISA_BEGIN(tile, used, row, column)                            \
  if constexpr (used) {                                               \
    if (fresh)                                                        \
      _tile_zero(tile);                                               \
    else                                                              \
      _tile_loadd(tile, out + 16 * ((row)*stride + (column)), bytes); \
  }
  ISA_BEGIN(0, true, 0, 0)
  ISA_BEGIN(1, NB > 1, 0, 1)
  ISA_BEGIN(2, MB == 2 || NB > 2, MB == 2 ? 1 : 0, MB == 2 ? 0 : 2)
  ISA_BEGIN(3, (MB == 2 && NB > 1) || NB > 3, MB == 2 ? 1 : 0, MB == 2 ? 1 : 3)
#undef ISA_BEGIN
}

template <int MB, int NB>
ISA_INLINE void endTiles(float* out, int64_t stride) {
  const int64_t bytes = stride * 4;
#define ISA_END(tile, used, row, column) \
  if constexpr (used) _tile_stored(tile, out + 16 * ((row)*stride + (column)), bytes);
  ISA_END(0, true, 0, 0)
  ISA_END(1, NB > 1, 0, 1)
  ISA_END(2, MB == 2 || NB > 2, MB == 2 ? 1 : 0, MB == 2 ? 0 : 2)
  ISA_END(3, (MB == 2 && NB > 1) || NB > 3, MB == 2 ? 1 : 0, MB == 2 ? 1 : 3)
#undef ISA_END
}

// ---- scores[row][16 g + lane] = sum over d of q[row][d] * k[g][d][lane], of 16 MB rows ----

template <int MB, int NB, int Planes>
ISA_INLINE void scoreGroups(const LeftTiles& q, const BFloat16* const* k, int groups, int depth,
                            float* scores, int64_t scoreStride, RowsAhead& ahead) {
  for (; groups >= NB; groups -= NB, k += NB, scores += NB * 16) {
    ahead.turn();
    beginTiles<MB, NB>(true, scores, scoreStride);
    for (int d = 0; d < depth; d += 32)
      multiplyStep<MB, NB, Planes>(q, q.base + d, 64, [&](int n, int plane) {
        return k[n] + d * int64_t(16) + plane * depth * int64_t(16);
      });
    endTiles<MB, NB>(scores, scoreStride);
  }
  if constexpr (NB > 1) scoreGroups<MB, NB / 2, Planes>(q, k, groups, depth, scores, scoreStride, ahead);
}

template <int MB, int Planes>
__attribute__((noinline)) void scoreTiles(const LeftTiles& q, const BFloat16* const* k, int groups, int depth,
                                          float* scores, int64_t scoreStride, RowsAhead& ahead) {
  writeOut();
  scoreGroups<MB, 4 / MB, Planes>(q, k, groups, depth, scores, scoreStride, ahead);
}

// ---- out[row][d] += sum over keys of p[row][key] * v[key][d], of 16 MB rows, `steps` times 32 keys ----

// v: [16 steps][stride][2].
struct ValueTiles {
  const BFloat16* base;
  int64_t stride, plane;
};

template <int MB, int NB, int Planes>
ISA_INLINE void addColumns(bool fresh, float* out, int64_t outStride, const LeftTiles& p, const ValueTiles& v,
                           int blocks, int block, int steps, RowsAhead& ahead) {
  for (; block + NB <= blocks; block += NB) {
    ahead.turn();
    beginTiles<MB, NB>(fresh, out + block * 16, outStride);
    for (int i = 0; i < steps; i++)
      multiplyStep<MB, NB, Planes>(p, p.base + i * 32, v.stride * 4, [&](int n, int plane) {
        return v.base + i * 32 * v.stride + (block + n) * 32 + plane * v.plane;
      });
    endTiles<MB, NB>(out + block * 16, outStride);
  }
  if constexpr (NB > 1)
    addColumns<MB, NB / 2, Planes>(fresh, out, outStride, p, v, blocks, block, steps, ahead);
}

// `blocks` of 16 columns.
template <int MB, int Planes>
__attribute__((noinline)) void addTiles(bool fresh, float* out, int64_t outStride, const LeftTiles& p,
                                        const ValueTiles& v, int blocks, int steps, RowsAhead& ahead) {
  writeOut();
  addColumns<MB, 4 / MB, Planes>(fresh, out, outStride, p, v, blocks, 0, steps, ahead);
}

// The same where the first 32 i rows of v are zeros, or are not there, in the i-th 32 columns: their steps
// are left out.
template <int MB, int Planes>
__attribute__((noinline)) void addLowerTiles(bool fresh, float* out, int64_t outStride, const LeftTiles& p,
                                             const ValueTiles& v, int blocks, int steps, RowsAhead& ahead) {
  writeOut();
  for (int block = 0; block < blocks; block += 2) {
    const int skip = block / 2;
    addColumns<MB, 2, Planes>(fresh, out, outStride, {p.base + skip * 32, p.stride, p.plane},
                              {v.base + skip * 32 * v.stride, v.stride, v.plane}, std::min(blocks, block + 2),
                              block, steps - skip, ahead);
  }
}
#else
template <class T>
struct RowTiles {
  explicit RowTiles(int) {}
};
#endif

}  // namespace isopolicy::ISA_PASS
