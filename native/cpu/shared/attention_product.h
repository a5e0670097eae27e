// The products of attention for whatever form T has at this level: blocks of rows through tiles of AMX or
// through vectors. Included once a pass: no guard.
#include "cpu/shared/attention_amx.h"
#include "cpu/shared/attention_tile.h"

namespace isopolicy::ISA_PASS {

// A left operand: element (row, step) of the product. In pairs and halves steps lie side by side, and `plane`
// elements further the rests of halves.
template <class T>
struct Left {
  using Element = typename Form<T>::Element;
  const Element* base;
  int64_t rowStride, stepStride = 1, plane = 0;
};

// body(count, r) for rows r .. r + count - 1, four at a time, then two, then one.
template <class Body>
ISA_INLINE void eachFew(int rows, Body&& body) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) body(std::integral_constant<int, 4>(), r);
  if (r + 2 <= rows) {
    body(std::integral_constant<int, 2>(), r);
    r += 2;
  }
  if (r < rows) body(std::integral_constant<int, 1>(), r);
}

#if ISA_LEVEL >= 4
// body(tiles, left operand, r) for 32 rows at a time, then 16 or fewer.
template <class T, class Body>
ISA_INLINE void eachTileRows(const Left<T>& left, int rows, Body&& body) {
  for (int r = 0; r < rows; r += 32) {
    const LeftTiles part{left.base + r * left.rowStride, left.rowStride, left.plane};
    if (rows - r > 16)
      body(std::integral_constant<int, 2>(), part, r);
    else
      body(std::integral_constant<int, 1>(), part, r);
  }
}
#endif

// out[row][16 g + lane] = sum over d < headDim of q[row][d] * k[g][d][lane]. Tiles write 16 rows at a time.
template <class T, class Groups>
ISA_INLINE void multiplyGroups(const Left<T>& q, const Groups& k, int groups, int rows, int headDim,
                               float* out, int64_t outStride, [[maybe_unused]] RowsAhead& ahead) {
  if constexpr (Form<T>::kTiles) {
#if ISA_LEVEL >= 4
    eachTileRows(q, rows, [&](auto tiles, const LeftTiles& part, int r) {
      scoreTiles<tiles, Form<T>::kPlanes>(part, k.groups, groups, roundUp(headDim, Form<T>::kStep),
                                          out + r * outStride, outStride, ahead);
    });
#endif
  } else {
    eachFew(rows, [&](auto count, int r) {
      dots<count>(q.base + r * q.rowStride, q.rowStride, k, groups, headDim, out + r * outStride, outStride);
    });
  }
}

// A right operand: rows of `stride`, or pairs of rows.
template <class T>
struct Right {
  using Element = typename Form<T>::Element;
  const Element* base;
  int64_t stride, plane = 0;
};

// out[row][column] += sum over steps of left(row, step) * right[step][column], `vectors` of 16 columns. Tiles
// take 32 steps at a time, both operands go on with zeros; they can write `out` without reading it (`fresh`),
// and they can leave out the first 32 i steps of the i-th 32 columns (`lower`).
template <class T>
ISA_INLINE void multiplyAdd(const Left<T>& left, const Right<T>& right, int rows, int vectors, int steps,
                            [[maybe_unused]] bool fresh, [[maybe_unused]] bool lower, float* out,
                            int64_t outStride, [[maybe_unused]] RowsAhead& ahead) {
  if constexpr (Form<T>::kTiles) {
#if ISA_LEVEL >= 4
    eachTileRows(left, rows, [&](auto tiles, const LeftTiles& part, int r) {
      const ValueTiles values{right.base, right.stride, right.plane};
      const int tileSteps = roundUp(steps, 32) / 32;
      if (lower)
        addLowerTiles<tiles, Form<T>::kPlanes>(fresh, out + r * outStride, outStride, part, values, vectors,
                                               tileSteps, ahead);
      else
        addTiles<tiles, Form<T>::kPlanes>(fresh, out + r * outStride, outStride, part, values, vectors,
                                          tileSteps, ahead);
    });
#endif
  } else {
    using Element = typename Form<T>::Element;
    const DenseRows<Element> rowsOfRight{right.base, right.stride};
    eachFew(rows, [&](auto count, int r) {
      accumulate<count>(out + r * outStride, outStride, nullptr,
                        Weights<Element>{left.base + r * left.rowStride, left.rowStride, left.stepStride},
                        rowsOfRight, vectors, 0, steps);
    });
  }
}

}  // namespace isopolicy::ISA_PASS
