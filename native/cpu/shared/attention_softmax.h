// One step of the online softmax: the scores of up to 32 rows with the keys of a tile become probabilities.
// Included once a pass, after attention_pack.h: no guard.

namespace isopolicy::ISA_PASS {

inline constexpr float kLog2E = 1.44269504088896341f;
inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// Lanes below n from x, the rest from other.
ISA_INLINE Vec firstLanes(Vec x, int n, Vec other) {
  static constexpr float kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return selectLess(load(kLane), splat(float(n)), x, other);
}

// Scores beyond a row's limit become minus infinity, up to column `width`.
inline void maskBeyond(const int* limit, int rows, int width, float* scores, int64_t stride) {
  for (int r = 0; r < rows; r++) {
    float* row = scores + r * stride;
    for (int j = std::max(0, limit[r]) / 16 * 16; j < width; j += 16)
      store(row + j, firstLanes(load(row + j), limit[r] - j, splat(kMinusInfinity)));
  }
}

#if ISA_LEVEL >= 2
ISA_INLINE float largestLane(Vec x) { return _mm512_reduce_max_ps(x.v); }

// The largest lane of each of 16 vectors: halves of two vectors meet in one, four times.
ISA_INLINE Vec largestLanes(const Vec (&x)[16]) {
  __m512 a[8], b[4];
  for (int i = 0; i < 8; i++)
    a[i] = _mm512_max_ps(_mm512_unpacklo_ps(x[2 * i].v, x[2 * i + 1].v),
                         _mm512_unpackhi_ps(x[2 * i].v, x[2 * i + 1].v));
  for (int i = 0; i < 4; i++)  // four rows, once in each 128 bits
    b[i] = _mm512_max_ps(_mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0x44),
                         _mm512_shuffle_ps(a[2 * i], a[2 * i + 1], 0xee));
  const auto meet = [](__m512 p, __m512 q) {
    return _mm512_max_ps(_mm512_shuffle_f32x4(p, q, 0x88), _mm512_shuffle_f32x4(p, q, 0xdd));
  };
  return {meet(meet(b[0], b[1]), meet(b[2], b[3]))};
}
#else
ISA_INLINE float largestLane(Vec x) { return reduceMax(x); }
ISA_INLINE Vec largestLanes(const Vec (&x)[16]) {
  float largest[16];
  for (int i = 0; i < 16; i++) largest[i] = reduceMax(x[i]);
  return load(largest);
}
#endif

// `vectors` of 16 keys of a tile; [row] everywhere is a row of the group.
template <class Element>
struct SoftmaxTile {
  float* scores;  // [row][stride]
  int64_t stride;
  int vectors;
  float scale;
  float* max;     // [row], padded to whole vectors
  float* lanes;   // [row][16]
  float* factor;  // [row], padded: what the sums so far are to be multiplied with
  Element* p;     // pairs and halves: [row][pStride]; wide probabilities replace the scores
  int64_t pStride, pPlane;
};

template <class T, class Element>
ISA_INLINE void softmaxRow(const SoftmaxTile<Element>& tile, int r, float max, float factor) {
  float* s = tile.scores + r * tile.stride;
  const Vec scale = splat(tile.scale);
  const Vec below = zero() - splat(max);
  Vec sum = load(tile.lanes + r * 16) * splat(factor);
  const auto probability = [&](int j) {
    const Vec p = exp2(fma(load(s + j * 16), scale, below));
    sum = sum + p;
    return p;
  };
  if constexpr (std::is_same_v<Element, float>) {
    for (int j = 0; j < tile.vectors; j++) store(s + j * 16, roundThrough<T>(probability(j)));
  } else {
#if ISA_LEVEL >= 3
    BFloat16* p = tile.p + r * tile.pStride;
    int j = 0;
    for (; j + 2 <= tile.vectors; j += 2) {
      const Vec low = probability(j);
      storeSplit<T>(roundBits<T>(low, probability(j + 1)), p + j * 16, tile.pPlane);
    }
    if (j < tile.vectors) storeSplit<T>(roundBits<T>(probability(j), zero()), p + j * 16, tile.pPlane);
#endif
  }
  store(tile.lanes + r * 16, sum);
}

template <class T, class Element>
ISA_INLINE void softmaxTile(const SoftmaxTile<Element>& tile, int rows, RowsAhead& ahead) {
  const Vec scale = splat(tile.scale);
  for (int first = 0; first < rows; first += 16) {
    const int n = std::min(16, rows - first);
    Vec largest[16];
    for (int r = 0; r < n; r++) {
      const float* s = tile.scores + (first + r) * tile.stride;
      Vec x = load(s) * scale;
      for (int j = 1; j < tile.vectors; j++) x = max(x, load(s + j * 16) * scale);
      largest[r] = x;
    }
    Vec now;
    if (n > 4) {
      for (int r = n; r < 16; r++) largest[r] = largest[0];
      now = largestLanes(largest);
    } else {
      float each[16] = {};
      for (int r = 0; r < n; r++) each[r] = largestLane(largest[r]);
      now = load(each);
    }
    // Of rows beyond, the maximum stays what it is.
    const Vec before = load(tile.max + first);
    now = firstLanes(max(before, now), n, before);
    store(tile.max + first, now);
    store(tile.factor + first, exp2(selectLess(before, now, before - now, zero())));
    for (int r = first; r < first + n; r++) {
      ahead.turn();
      softmaxRow<T>(tile, r, tile.max[r], tile.factor[r]);
    }
  }
}

}  // namespace isopolicy::ISA_PASS
