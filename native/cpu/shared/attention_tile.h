// The two products that attention is made of, in vectors: fused multiply-adds on wide operands and vdpbf16ps
// on pairs (attention_pack.h has the forms). AMX is in attention_amx.h.
//
// Every output element is one chain in the order of its sum, so how many rows or vectors are computed
// together never changes a bit. R rows times C vectors of sums stay in registers: 4 x 4 with AVX-512, enough
// independent chains to hide the latency of two multiply-adds a cycle, with one load for every two of them.
// Included once a pass: no guard.
#include "cpu/shared/attention_pack.h"

namespace isopolicy::ISA_PASS {

// Vectors that R rows keep in registers at once.
template <int R>
inline constexpr int kRegisterVectors = ISA_LEVEL >= 2 ? (R == 1 ? 8 : 4) : 4 / R;

// One row's factors of two neighbours along the sum, and what they are multiplied with.
struct WideStep {
  Vec first, second;
  ISA_INLINE Vec add(Vec sum, const float* left, int64_t next) const {
    return fma(splat(left[next]), second, fma(splat(left[0]), first, sum));
  }
  ISA_INLINE Vec addFirst(Vec sum, const float* left, int64_t) const {
    return fma(splat(left[0]), first, sum);
  }
};
#if ISA_LEVEL >= 3
struct PairStep {
  __m512i pairs;
  static Vec dot(Vec sum, __m512i left, __m512i right) {
    return {_mm512_dpbf16_ps(sum.v, __m512bh(left), __m512bh(right))};
  }
  static __m512i splatPair(const BFloat16* left) {
    int32_t pair;
    std::memcpy(&pair, left, 4);
    return _mm512_set1_epi32(pair);
  }
  ISA_INLINE Vec add(Vec sum, const BFloat16* left, int64_t) const {
    return dot(sum, splatPair(left), pairs);
  }
  // The second of each pair is not there, whatever memory holds.
  ISA_INLINE Vec addFirst(Vec sum, const BFloat16* left, int64_t) const {
    return dot(sum, _mm512_set1_epi32(left->bits), _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff)));
  }
};
#endif

// Right operands: rows 2 i and 2 i + 1 at p and p + stride, or as pairs at p.
template <class E, class S>
ISA_INLINE auto loadStep(const S* p, int64_t stride) {
#if ISA_LEVEL >= 3
  if constexpr (std::is_same_v<E, BFloat16>) return PairStep{loadBits(p)};
#endif
  if constexpr (std::is_same_v<E, float>) {
    WideStep step;
    if constexpr (std::is_same_v<S, BFloat16>) {
      loadPairs(p, step.first, step.second);
    } else {
      step.first = load(p);
      step.second = load(p + stride);
    }
    return step;
  }
}
// The last row of an odd count: nothing beyond it is read, but the other halves of pairs.
template <class E, class S>
ISA_INLINE auto loadLast(const S* p) {
  if constexpr (std::is_same_v<S, BFloat16>)
    return loadStep<E>(p, 0);
  else
    return WideStep{load(p), zero()};
}

// ---- scores[r][16 g + lane] = sum over d of q[r][d] * k[g][d][lane], d in order ----

// While a page of the cache is read, another one that is needed soon is on its way from memory, line by line:
// to L1, and at amx, which asks further ahead, to L2.
inline constexpr int kPageLocality = ISA_LEVEL >= 4 ? 2 : 3;

// Groups of 16 keys: packed ones, or pages as they are.
template <class S>
struct PackedGroups {
  using Element = S;
  const S* const* groups;
  const S* at(int g) const { return groups[g]; }
  PackedGroups from(int g) const { return {groups + g}; }
  ISA_INLINE void fetch(int, int64_t) const {}
};
template <class S>
struct PageGroups {
  using Element = S;
  const S* const* pages;
  const S* const* next;
  const S* at(int g) const { return pages[g]; }
  PageGroups from(int g) const { return {pages + g, next + g}; }
  ISA_INLINE void fetch(int g, int64_t offset) const {
    for (int64_t line = 0; line < 32; line += 64 / int64_t(sizeof(S)))
      __builtin_prefetch(next[g] + offset + line, 0, kPageLocality);
  }
};

// Not inlined: shared by every dtype that a caller is compiled for, and addresses that the compiler would
// keep across blocks cost the registers that the sums need.
template <int R, int C, class E, class Groups>
__attribute__((noinline)) void dotBlock(const E* q, int64_t qStride, const Groups& k, int headDim,
                                        float* scores, int64_t scoreStride) {
  const typename Groups::Element* keys[C];
  for (int c = 0; c < C; c++) keys[c] = k.at(c);
  Vec sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sum[r][c] = zero();
  for (int64_t d = 0; d < headDim; d += 2) {
    decltype(loadStep<E>(keys[0], 16)) key[C];
    for (int c = 0; c < C; c++) {
      key[c] = loadStep<E>(keys[c] + d * 16, 16);
      k.fetch(c, d * 16);
    }
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) sum[r][c] = key[c].add(sum[r][c], q + r * qStride + d, 1);
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(scores + r * scoreStride + c * 16, sum[r][c]);
}

template <int R, int C, class E, class Groups>
ISA_INLINE void dotGroups(const E* q, int64_t qStride, const Groups& k, int group, int groups, int headDim,
                          float* scores, int64_t scoreStride) {
  for (; group + C <= groups; group += C)
    dotBlock<R, C>(q, qStride, k.from(group), headDim, scores + group * 16, scoreStride);
  if constexpr (C > 1) dotGroups<R, C / 2>(q, qStride, k, group, groups, headDim, scores, scoreStride);
}

template <int R, class E, class Groups>
ISA_INLINE void dots(const E* q, int64_t qStride, const Groups& k, int groups, int headDim, float* scores,
                     int64_t scoreStride) {
  dotGroups<R, kRegisterVectors<R>>(q, qStride, k, 0, groups, headDim, scores, scoreStride);
}

// ---- out[r][d] = out[r][d] * factor[r] + sum over i of weight(r, i) * x[i][d], i in order ----

// Rows of x: 16 at a time from pages, or all from one place.
template <class S>
struct PagedRows {
  using Element = S;
  const S* const* pages;
  const S* const* next;  // as those of PageGroups
  int64_t stride;
  const S* at(int i) const { return pages[i >> 4] + (i & 15) * stride; }
  int runEnd(int i) const { return (i | 15) + 1; }
  // Of the two rows from an even i on, what belongs to 16 columns.
  ISA_INLINE void fetch(int i, int64_t offset) const {
    const S* row = next[i >> 4] + (i & 15) * stride + offset;
    __builtin_prefetch(row, 0, kPageLocality);
    if constexpr (!std::is_same_v<S, BFloat16>) __builtin_prefetch(row + stride, 0, kPageLocality);
  }
};
template <class S>
struct DenseRows {
  using Element = S;
  const S* base;
  int64_t stride;
  const S* at(int i) const { return base + i * stride; }
  int runEnd(int) const { return std::numeric_limits<int>::max(); }
  ISA_INLINE void fetch(int, int64_t) const {}
};

// weight(r, i) = base[r * rowStride + i * stepStride]; pairs have a stepStride of 1.
template <class E>
struct Weights {
  const E* base;
  int64_t rowStride, stepStride;
};

template <int R, int C, class E, class Rows>
ISA_INLINE void accumulateBlock(float* out, int64_t outStride, const float* factor, Weights<E> weights,
                                const Rows& rows, int64_t column, int begin, int end) {
  using S = typename Rows::Element;
  // Pairs of columns lie side by side.
  constexpr int64_t kWidth = std::is_same_v<S, BFloat16> ? 2 : 1;
  Vec sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) {
      sum[r][c] = load(out + r * outStride + c * 16);
      if (factor) sum[r][c] = sum[r][c] * splat(factor[r]);
    }
  for (int i = begin; i < end;) {
    const int stop = std::min(end, rows.runEnd(i));
    const S* x = rows.at(i) + column * kWidth;
    const E* w = weights.base + i * weights.stepStride;
    for (; i + 2 <= stop; i += 2, x += 2 * rows.stride, w += 2 * weights.stepStride) {
      decltype(loadStep<E>(x, 0)) row[C];
      for (int c = 0; c < C; c++) {
        row[c] = loadStep<E>(x + c * 16 * kWidth, rows.stride);
        rows.fetch(i, (column + c * 16) * kWidth);
      }
      for (int r = 0; r < R; r++)
        for (int c = 0; c < C; c++)
          sum[r][c] = row[c].add(sum[r][c], w + r * weights.rowStride, weights.stepStride);
    }
    if (i < stop) {
      for (int c = 0; c < C; c++) {
        const auto row = loadLast<E>(x + c * 16 * kWidth);
        for (int r = 0; r < R; r++)
          sum[r][c] = row.addFirst(sum[r][c], w + r * weights.rowStride, weights.stepStride);
      }
      i++;
    }
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(out + r * outStride + c * 16, sum[r][c]);
}

template <int R, int C, class E, class Rows>
ISA_INLINE void accumulateColumns(float* out, int64_t outStride, const float* factor, Weights<E> weights,
                                  const Rows& rows, int vectors, int64_t column, int begin, int end) {
  for (; vectors >= C; vectors -= C, column += C * 16)
    accumulateBlock<R, C>(out + column, outStride, factor, weights, rows, column, begin, end);
  if constexpr (C > 1)
    accumulateColumns<R, C / 2>(out, outStride, factor, weights, rows, vectors, column, begin, end);
}

// `vectors` of 16 columns, an even `begin`; factor may be null (1 for every row). The weights are passed by
// reference: a copy would read as a vector what was just stored in parts, which has to wait for the cache.
template <int R, class E, class Rows>
__attribute__((noinline)) void accumulate(float* out, int64_t outStride, const float* factor,
                                          const Weights<E>& weights, const Rows& rows, int vectors, int begin,
                                          int end) {
  accumulateColumns<R, kRegisterVectors<R>>(out, outStride, factor, weights, rows, vectors, 0, begin, end);
}

}  // namespace isopolicy::ISA_PASS
