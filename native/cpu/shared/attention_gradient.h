// The gradient of attention of one sequence and one key head, as a flash backward with 16-bit operands
// computes it:
//   P = exp(scale q k - lse),  D = sum of dOut * out,  dS = P (dOut v - D),
//   dV = P16^T dOut,  dK = scale dS16^T Q,  dQ = scale dS16 K
// with P16 and dS16 the 16-bit roundings of P and dS, all sums in fp32, one rounding at the end.
//
// Key tiles come in order, within them the query heads of the group and the blocks of queries, so every
// gradient is one sum in a fixed order. dV and dK are summed transposed: P and dS, with the keys of a query
// side by side, are then right operands as they are. Pairs that causality masks have P = dS = 0 and are
// multiplied where they share a block with others: a NaN of one token can reach the gradients of its whole
// sequence, but no other's. Included once a pass: no guard.
#include "cpu/shared/attention_strip.h"

#include "cpu/shared/attention_softmax.h"

namespace isopolicy::ISA_PASS {

// What the products read of one sequence and head again and again: rows as left operands of sums over
// headDim, and columns as left operands of sums over rows.
template <class T>
class LeftRows {
 public:
  using F = Form<T>;
  using Element = typename F::Element;

  // maxRows is a multiple of 32.
  LeftRows(Scratch& scratch, int headDim, int64_t maxRows)
      : headDim_(headDim), depth_(roundUp(headDim, F::kStep)) {
    plane_ = maxRows * depth_;
    rows_ = scratch.get<Element>(plane_ * F::kPlanes);
    if constexpr (F::kPairs) {
      columnStride_ = maxRows;
      columnPlane_ = maxRows * roundUp16(headDim);
      columns_ = scratch.get<Element>(columnPlane_ * F::kPlanes);
    }
  }

  // From row `at` on, a multiple of 32, `count` rows, while the `ahead` rows after them come to the cache.
  void fill(int64_t at, const T* rows, int64_t stride, int count, int ahead) {
    for (int i = 0; i < ahead; i++) prefetchRow(rows + (count + i) * stride, headDim_ * int64_t(sizeof(T)));
    Element* out = rows_ + at * depth_;
    if constexpr (F::kPairs) {
#if ISA_LEVEL >= 3
      for (int i = 0; i < count; i++)
        packRow<T>(rows + i * stride, headDim_, depth_, out + i * depth_, plane_);
      for (int i = 0; i < count; i += 32)
        packTransposed<T>(rows + i * stride, stride, std::min(32, count - i), headDim_, roundUp16(headDim_),
                          columns_ + at + i, columnStride_, columnPlane_);
#endif
    } else {
      for (int i = 0; i < count; i++) widenRow(rows + i * stride, headDim_, out + i * depth_);
    }
  }

  Left<T> rows(int64_t first) const { return {rows_ + first * depth_, depth_, 1, plane_}; }
  // Of rows first, first + 1 and so on; `first` is a multiple of 32.
  Left<T> columns(int64_t first) const {
    if constexpr (F::kPairs)
      return {columns_ + first, columnStride_, 1, columnPlane_};
    else
      return {rows_ + first * depth_, 1, depth_, 0};
  }

 private:
  const int headDim_;
  const int64_t depth_;
  int64_t plane_, columnStride_ = 0, columnPlane_ = 0;
  Element* rows_;
  Element* columns_ = nullptr;
};

// A block of P and dS, whose scores and dOut v it is given for a few rows at a time: those stay in the
// first-level cache.
template <class T>
class ProbabilityBlock {
 public:
  using F = Form<T>;
  using Element = typename F::Element;

  ProbabilityBlock(Scratch& scratch, int rows, int fewRows, int keys)
      : stride_(keys), plane_(int64_t(rows) * keys), fewPlane_(int64_t(fewRows) * keys) {
    scores = scratch.get<float>(fewPlane_);
    dots = scratch.get<float>(fewPlane_);
    if constexpr (!F::kPairs) return;
    dSRows_ = scratch.get<Element>(fewPlane_ * F::kPlanes);
    dSPairs_ = scratch.get<Element>(plane_ * F::kPlanes);
    pPairs_ = scratch.get<Element>(plane_ * F::kPlanes);
  }

  // Rows first .. first + rows - 1 of the block, of `keys`, a multiple of 16, of which `present` are there
  // and row r of these sees the first limit + r; scale and lse are those of base 2.
  void fill(int first, int rows, int keys, int present, int limit, float scale, const float* lse,
            const float* rowDots, RowsAhead& ahead) {
    const auto each = [&](int r, int j, Vec& p, Vec& dS) {
      const int64_t at = r * int64_t(stride_) + j;
      p = exp2(fma(load(scores + at), splat(scale), splat(-lse[r])));
      dS = p * (load(dots + at) - splat(rowDots[r]));
      const int seen = std::min(present, limit + r) - j;
      if (seen >= 16) return;
      p = firstLanes(p, seen, zero());
      dS = firstLanes(dS, seen, zero());
    };
    if constexpr (F::kPairs) {
#if ISA_LEVEL >= 3
      const int last = F::kTiles ? roundUp(rows, 32) : roundUp(rows, 2);
      for (int r = 0; r < last; r += 2) {
        ahead.turn();
        for (int j = 0; j < keys; j += 32) {
          __m512i p[2], dS[2], low, high;
          for (int i = 0; i < 2; i++) {
            p[i] = dS[i] = _mm512_setzero_si512();
            if (r + i >= rows) continue;
            Vec x[2], y[2];
            each(r + i, j, x[0], y[0]);
            each(r + i, j + 16, x[1], y[1]);
            p[i] = roundBits<T>(x[0], x[1]);
            dS[i] = roundBits<T>(y[0], y[1]);
            storeSplit<T>(dS[i], dSRows_ + (r + i) * int64_t(stride_) + j, fewPlane_);
          }
          const int64_t at = (first + r) * int64_t(stride_) + 2 * j;
          interleave(p[0], p[1], low, high);
          storeSplit<T>(low, pPairs_ + at, plane_);
          storeSplit<T>(high, pPairs_ + at + 32, plane_);
          interleave(dS[0], dS[1], low, high);
          storeSplit<T>(low, dSPairs_ + at, plane_);
          storeSplit<T>(high, dSPairs_ + at + 32, plane_);
        }
      }
#endif
    } else {
      for (int r = 0; r < rows; r++) {
        if (r % 2 == 0) ahead.turn();
        for (int j = 0; j < keys; j += 16) {
          Vec p, dS;
          each(r, j, p, dS);
          store(scores + r * int64_t(stride_) + j, roundThrough<T>(p));
          store(dots + r * int64_t(stride_) + j, roundThrough<T>(dS));
        }
      }
    }
  }

  Left<T> dSRows() const {
    if constexpr (F::kPairs)
      return {dSRows_, stride_, 1, fewPlane_};
    else
      return {dots, stride_};
  }
  Right<T> p() const {
    if constexpr (F::kPairs)
      return {pPairs_, stride_, plane_};
    else
      return {scores, stride_};
  }
  Right<T> dS() const {
    if constexpr (F::kPairs)
      return {dSPairs_, stride_, plane_};
    else
      return {dots, stride_};
  }
  int stride() const { return stride_; }

  float* scores;  // [few rows][stride]
  float* dots;

 private:
  const int stride_;
  const int64_t plane_, fewPlane_;
  Element* dSRows_ = nullptr;   // [few rows][stride]
  Element* dSPairs_ = nullptr;  // [row / 2][stride][2]
  Element* pPairs_ = nullptr;
};

// Keys and values of a tile as right operands: of sums over headDim, and the keys of sums over keys.
template <class T>
class KeyTile {
 public:
  using F = Form<T>;
  using Element = typename F::Element;

  KeyTile(Scratch& scratch, int headDim, int keys)
      : headDim_(headDim),
        depth_(roundUp(headDim, F::kStep)),
        stride_(roundUp16(headDim)),
        rowPlane_(int64_t(keys) * stride_) {
    const int groups = keys / 16;
    rows_ = scratch.get<Element>(rowPlane_ * F::kPlanes);
    keys_ = groupsIn(scratch, groups);
    values_ = groupsIn(scratch, groups);
  }

  void fill(const T* keys, const T* values, int64_t stride, int count) {
    for (int j = 0; j < count; j += 16) {
      const int n = std::min(16, count - j);
      transpose(keys + j * stride, stride, n, keys_[j / 16]);
      transpose(values + j * stride, stride, n, values_[j / 16]);
    }
    if constexpr (F::kPairs) {
#if ISA_LEVEL >= 3
      for (int j = 0; j < count; j += 2)
        packRowPair<T>(keys + j * stride, j + 1 < count ? keys + (j + 1) * stride : nullptr, headDim_,
                       stride_, rows_ + j * stride_, rowPlane_, [](__m512i) {});
      // A step of AMX takes 32 keys.
      const int packed = roundUp(count, 2);
      if constexpr (F::kTiles)
        for (int p = 0; p < F::kPlanes; p++)
          std::memset(rows_ + packed * stride_ + p * rowPlane_, 0,
                      size_t(roundUp(count, 32) - packed) * size_t(stride_) * 2);
#endif
    } else {
      for (int j = 0; j < count; j++) widenRow(keys + j * stride, headDim_, rows_ + j * stride_);
    }
  }

  PackedGroups<Element> keys() const { return {keys_}; }
  PackedGroups<Element> values() const { return {values_}; }
  Right<T> rows() const { return {rows_, stride_, rowPlane_}; }

 private:
  Element** groupsIn(Scratch& scratch, int groups) const {
    Element** group = scratch.get<Element*>(groups);
    for (int g = 0; g < groups; g++) group[g] = scratch.get<Element>(int64_t(depth_) * 16 * F::kPlanes);
    return group;
  }
  void transpose(const T* rows, int64_t stride, int count, Element* group) const {
#if ISA_LEVEL >= 3
    if constexpr (F::kPairs)
      packColumns<T>(rows, stride, count, headDim_, depth_, group, int64_t(depth_) * 16);
#endif
    if constexpr (!F::kPairs) widenTransposed(rows, stride, count, headDim_, group);
  }

  const int headDim_, depth_;
  const int64_t stride_, rowPlane_;
  Element* rows_;
  Element** keys_;
  Element** values_;
};

}  // namespace isopolicy::ISA_PASS
