// The products of attention in vectors at level amx, with the bits that tiles give: for a few rows the tiles
// are mostly empty, and packing for them takes longer than the arithmetic.
//
// As tiles.h has it, a sum is one of steps of 32: in each, the even places are a chain of fused multiply-adds
// from zero and the odd ones another, both are added, and that is added to the sum. Subnormals are zeros,
// which the control register of RowTiles sees to. An fp16 number is its upper half and the rest
// (attention_pack.h), a step four sums, added in the order of attention_amx.h. Included once a pass: no
// guard.

namespace isopolicy::ISA_PASS {

#if ISA_LEVEL >= 4
// How operands are held: wide, but in the planes of tiles.
template <class T>
struct SteppedForm {
  static constexpr bool kTiles = false;
  static constexpr bool kPairs = false;
  static constexpr bool kStepped = true;
  static constexpr int kPlanes = Form<T>::kPlanes;
  static constexpr int kStep = 16;
  using Element = float;
};

ISA_INLINE Vec upperPart(Vec x) {
  return {
      _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(x.v), _mm512_set1_epi32(int(0xffff0000u))))};
}

// x, of `vectors` times 16 fp16 numbers, keeps the upper halves; the rests go to `rest`.
ISA_INLINE void splitRow(float* x, float* rest, int vectors) {
  for (int i = 0; i < vectors * 16; i += 16) {
    const Vec upper = upperPart(load(x + i));
    store(rest + i, load(x + i) - upper);
    store(x + i, upper);
  }
}

// Chains of one step: [product][place, even or odd].
template <int Planes>
struct StepSums {
  Vec chain[Planes * Planes][2];

  ISA_INLINE void clear() {
    for (auto& c : chain) c[0] = c[1] = zero();
  }
  // Places 0 and 1 (or 0 alone) of left, whose next element is `next` further, and of right.
  ISA_INLINE void add(const float* left, int64_t next, int64_t plane, Vec right, int place) {
    const Vec upper = splat(left[place * next]);
    if constexpr (Planes == 1) {
      chain[0][place] = fma(upper, right, chain[0][place]);
    } else {
      const Vec rest = splat(left[place * next + plane]);
      const Vec rightUpper = upperPart(right);
      const Vec rightRest = right - rightUpper;
      chain[0][place] = fma(upper, rightUpper, chain[0][place]);
      chain[1][place] = fma(upper, rightRest, chain[1][place]);
      chain[2][place] = fma(rest, rightRest, chain[2][place]);
      chain[3][place] = fma(rest, rightUpper, chain[3][place]);
    }
  }
  ISA_INLINE Vec addTo(Vec sum) const {
    for (const auto& c : chain) sum = sum + (c[0] + c[1]);
    return sum;
  }
};

// Vectors that R rows keep in registers at once: with the chains, about 24.
template <int R, int Planes>
inline constexpr int kSteppedVectors = std::max(1, (Planes == 1 ? 8 : 2) / R);

template <int R, int C, int Planes, class Groups>
__attribute__((noinline)) void steppedDotBlock(const float* q, int64_t qStride, int64_t plane,
                                               const Groups& k, int headDim, float* scores,
                                               int64_t scoreStride) {
  Vec sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sum[r][c] = zero();
  const typename Groups::Element* keys[C];
  for (int c = 0; c < C; c++) keys[c] = k.at(c);
  for (int64_t step = 0; step < headDim; step += 32) {
    StepSums<Planes> part[R][C];
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) part[r][c].clear();
    const int64_t end = std::min<int64_t>(headDim, step + 32);
    for (int64_t d = step; d < end; d += 2)
      for (int c = 0; c < C; c++) {
        const WideStep key = loadStep<float>(keys[c] + d * 16, 16);
        k.fetch(c, d * 16);
        for (int r = 0; r < R; r++) {
          part[r][c].add(q + r * qStride + d, 1, plane, key.first, 0);
          part[r][c].add(q + r * qStride + d, 1, plane, key.second, 1);
        }
      }
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) sum[r][c] = part[r][c].addTo(sum[r][c]);
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(scores + r * scoreStride + c * 16, sum[r][c]);
}

template <int R, int C, int Planes, class Groups>
ISA_INLINE void steppedDots(const float* q, int64_t qStride, int64_t plane, const Groups& k, int group,
                            int groups, int headDim, float* scores, int64_t scoreStride) {
  for (; group + C <= groups; group += C)
    steppedDotBlock<R, C, Planes>(q, qStride, plane, k.from(group), headDim, scores + group * 16,
                                  scoreStride);
  if constexpr (C > 1)
    steppedDots<R, C / 2, Planes>(q, qStride, plane, k, group, groups, headDim, scores, scoreStride);
}

// Left operand of the second product: element (row, key) of plane 0 at base[row * stride + key].
struct SteppedWeights {
  const float* base;
  int64_t stride, plane;
};

template <int R, int C, int Planes, class Rows>
__attribute__((noinline)) void steppedAddBlock(float* out, int64_t outStride, const float* factor,
                                               const SteppedWeights& p, const Rows& rows, int64_t column,
                                               int begin, int end) {
  constexpr int64_t kWidth = std::is_same_v<typename Rows::Element, BFloat16> ? 2 : 1;
  Vec sum[R][C];
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) sum[r][c] = load(out + r * outStride + c * 16) * splat(factor[r]);
  for (int step = begin; step < end; step += 32) {
    StepSums<Planes> part[R][C];
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) part[r][c].clear();
    const int stop = std::min(end, step + 32);
    int i = step;
    for (; i + 2 <= stop; i += 2)
      for (int c = 0; c < C; c++) {
        const WideStep row = loadStep<float>(rows.at(i) + (column + c * 16) * kWidth, rows.stride);
        rows.fetch(i, (column + c * 16) * kWidth);
        for (int r = 0; r < R; r++) {
          part[r][c].add(p.base + r * p.stride + i, 1, p.plane, row.first, 0);
          part[r][c].add(p.base + r * p.stride + i, 1, p.plane, row.second, 1);
        }
      }
    if (i < stop)
      for (int c = 0; c < C; c++) {
        const WideStep row = loadLast<float>(rows.at(i) + (column + c * 16) * kWidth);
        for (int r = 0; r < R; r++) part[r][c].add(p.base + r * p.stride + i, 1, p.plane, row.first, 0);
      }
    for (int r = 0; r < R; r++)
      for (int c = 0; c < C; c++) sum[r][c] = part[r][c].addTo(sum[r][c]);
  }
  for (int r = 0; r < R; r++)
    for (int c = 0; c < C; c++) store(out + r * outStride + c * 16, sum[r][c]);
}

template <int R, int C, int Planes, class Rows>
ISA_INLINE void steppedAdd(float* out, int64_t outStride, const float* factor, const SteppedWeights& p,
                           const Rows& rows, int vectors, int vector, int begin, int end) {
  for (; vector + C <= vectors; vector += C)
    steppedAddBlock<R, C, Planes>(out + vector * 16, outStride, factor, p, rows, vector * int64_t(16), begin,
                                  end);
  if constexpr (C > 1)
    steppedAdd<R, C / 2, Planes>(out, outStride, factor, p, rows, vectors, vector, begin, end);
}
#endif

}  // namespace isopolicy::ISA_PASS
