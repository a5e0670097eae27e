// Reading a matrix by steps of k, in 32-bit words, for packing: a word is an fp32 value (Depth 1, any dtype,
// widened), or the 16-bit pair k, k + 1 (Depth 2, k in the low half; an odd last k is paired with zero).
//
// Of a matrix with lanes (rows of A, columns of B) and steps of k, sixteen words at a time: eachStep gives
// sixteen lanes of one step, eachLane sixteen steps of one lane. Either can be read from memory that is
// contiguous along k or across the lanes; what lies the other way is transposed in registers. Included once a
// pass, inside it: no guard.
#include "cpu/shared/transpose.h"

namespace isopolicy::ISA_PASS {

ISA_INLINE int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }
ISA_INLINE constexpr int64_t quotientUp(int64_t a, int64_t b) { return (a + b - 1) / b; }
ISA_INLINE int64_t roundUp(int64_t a, int64_t b) { return quotientUp(a, b) * b; }

// A block of a stored matrix: `lanes` x `length` of k, element (lane, k) at lane * ld + k where it lies along
// k, else at k * ld + lane.
template <class T>
struct Source {
  const T* at;
  int64_t ld;
  bool alongK;
  int64_t lanes, length;
};

// transpose16 from memory, sixteen words of sixteen rows that are `bytes` apart. Quarters of rows are
// gathered by loads, which leaves half of the shuffles.
ISA_INLINE void transposeWords(const char* rows, int64_t bytes, Vec (&out)[16]) {
  const auto quarter = [&](int row, int q) __attribute__((always_inline)) {
    return reinterpret_cast<const float*>(rows + row * bytes) + 4 * q;
  };
#pragma GCC unroll 4
  for (int q = 0; q < 4; q++) {
#if ISA_LEVEL >= 2
    __m512 r[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      r[j] = _mm512_castps128_ps512(_mm_loadu_ps(quarter(j, q)));
      r[j] = _mm512_insertf32x4(r[j], _mm_loadu_ps(quarter(4 + j, q)), 1);
      r[j] = _mm512_insertf32x4(r[j], _mm_loadu_ps(quarter(8 + j, q)), 2);
      r[j] = _mm512_insertf32x4(r[j], _mm_loadu_ps(quarter(12 + j, q)), 3);
    }
    const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[0], r[1]));
    const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[0], r[1]));
    const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[2], r[3]));
    const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[2], r[3]));
    out[4 * q] = {_mm512_castpd_ps(_mm512_unpacklo_pd(a, c))};
    out[4 * q + 1] = {_mm512_castpd_ps(_mm512_unpackhi_pd(a, c))};
    out[4 * q + 2] = {_mm512_castpd_ps(_mm512_unpacklo_pd(b, d))};
    out[4 * q + 3] = {_mm512_castpd_ps(_mm512_unpackhi_pd(b, d))};
#elif ISA_LEVEL == 1
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
      __m256 r[4];
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++)
        r[j] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(quarter(8 * half + j, q))),
                                    _mm_loadu_ps(quarter(8 * half + 4 + j, q)), 1);
      const __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
      const __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
      const __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
      const __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
      const __m256 columns[4] = {
          _mm256_castpd_ps(_mm256_unpacklo_pd(a, c)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, c)),
          _mm256_castpd_ps(_mm256_unpacklo_pd(b, d)), _mm256_castpd_ps(_mm256_unpackhi_pd(b, d))};
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) (half ? out[4 * q + i].hi : out[4 * q + i].lo) = columns[i];
    }
#else
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      Quad x[4], y[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) x[i] = quadAt(quarter(4 * j + i, q));
      transpose4(x, y);
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        Vec& to = out[4 * q + i];
        (j == 0 ? to.a : j == 1 ? to.b : j == 2 ? to.c : to.d) = y[i];
      }
    }
#endif
  }
}

// Sixteen lanes of one row, of which n exist.
template <class T>
ISA_INLINE Vec laneWords(const T* x, int n) {
  return n >= kLanes ? load(x) : loadPartial(x, n);
}

// Sixteen steps of one lane along k, of which n elements exist; the others are zero and not read.
template <int Depth, class T>
ISA_INLINE Vec stepsAlong(const T* x, int n) {
  if constexpr (Depth == 1) {
    return laneWords(x, n);
  } else {
#if ISA_LEVEL >= 3
    const __mmask32 mask = n >= 32 ? 0xffffffffu : (1u << n) - 1u;
    return {_mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, x))};
#else
    static_assert(Depth == 1, "pairs need AVX512-BF16");
#endif
  }
}

// How far ahead the bytes of a row are asked for: many short streams are more than the hardware's prefetcher
// follows.
inline constexpr int kAhead = 512;
template <class T>
ISA_INLINE void fetchLanes(const Source<T>& x, int64_t k, int64_t lane) {
  for (int i = 0; i < 16; i++)
    __builtin_prefetch(reinterpret_cast<const char*>(x.at + (lane + i) * x.ld + k) + kAhead);
}
// The same where the lanes of a row lie side by side, in rows: into L2, since of rows that are some KiB apart
// L1 holds but a few dozen.
inline constexpr int kRowsAhead = 32;
template <class T>
ISA_INLINE void fetchRow(const Source<T>& x, int64_t k, int64_t lane) {
  __builtin_prefetch(x.at + (k + kRowsAhead) * x.ld + lane, 0, 2);
}

// Whether words are gathered as transposeWords does rather than loaded by whole rows: on a Zen 5 the loads
// and insertions of quarters take longer than the shuffles that they save, by a twentieth of small products.
inline constexpr bool kGathersQuarters = ISA_LEVEL < 2 || ISA_LEVEL >= 4;

// Sixteen steps from k on, of sixteen lanes from `lane` on, of a source that lies along k: out[i] is step i,
// absent lanes and steps are zero.
template <int Depth, class T>
ISA_INLINE void stepBlock(const Source<T>& x, int64_t k, int64_t lane, Vec (&out)[16]) {
  const int lanes = int(lesser(kLanes, x.lanes - lane));
  const int n = int(lesser(16 * Depth, x.length - k));
  const T* from = x.at + lane * x.ld + k;
  if constexpr (kGathersQuarters && (Depth == 2 || std::is_same_v<T, float>))
    if (lanes == 16 && n == 16 * Depth)
      return transposeWords(reinterpret_cast<const char*>(from), x.ld * int64_t(sizeof(T)), out);
  Vec rows[16];
  for (int i = 0; i < 16; i++) rows[i] = i < lanes ? stepsAlong<Depth>(from + i * x.ld, n) : zero();
  transpose16(rows, out);
}

#if ISA_LEVEL >= 3
// The pairs of 32 lanes of two rows.
ISA_INLINE void pairsOf(__m512i even, __m512i odd, Vec& left, Vec& right) {
  const __m512i low = _mm512_unpacklo_epi16(even, odd), high = _mm512_unpackhi_epi16(even, odd);
  const __m512i first = _mm512_set_epi64(11, 10, 3, 2, 9, 8, 1, 0);
  const __m512i second = _mm512_set_epi64(15, 14, 7, 6, 13, 12, 5, 4);
  left.v = _mm512_castsi512_ps(_mm512_permutex2var_epi64(low, first, high));
  right.v = _mm512_castsi512_ps(_mm512_permutex2var_epi64(low, second, high));
}

// The pairs of rows k and k + 1 of 32 lanes that lie across, a whole line of each row at a time: where rows
// lie a multiple of some KiB apart, half a line would be gone from L1 before the other half is asked for.
template <class T>
ISA_INLINE void pairsAcross(const Source<T>& x, int64_t k, int64_t lane, Vec& left, Vec& right) {
  const int64_t lanes = lesser(32, x.lanes - lane);
  const T* at = x.at + k * x.ld + lane;
  const __mmask32 mask = lanes == 32 ? ~0u : lanes > 0 ? (1u << lanes) - 1 : 0;
  pairsOf(_mm512_maskz_loadu_epi16(k < x.length ? mask : 0, at),
          _mm512_maskz_loadu_epi16(k + 1 < x.length ? mask : 0, at + x.ld), left, right);
}
#endif

// put(i, step i of 32) of sixteen lanes of bf16 along k: transposed as pairs, then taken apart.
template <class Put>
ISA_INLINE void putPairs(const BFloat16* x, int64_t ld, Put&& put) {
  for (int i = 0; i < 16; i++) __builtin_prefetch(reinterpret_cast<const char*>(x + i * ld) + kAhead);
  Vec pairs[16];
  transposeWords(reinterpret_cast<const char*>(x), ld * 2, pairs);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    put(2 * i, lowerBFloat16(pairs[i]));
    put(2 * i + 1, upperBFloat16(pairs[i]));
  }
}

// put(step, lane, words) for every step below `steps` (from the length on they are zero) and every sixteenth
// lane below `width`. Where lanes lie side by side a row is read in one go: the more lanes, the fewer short
// reads far apart.
template <int Depth, class T, class Put>
ISA_INLINE void eachStep(const Source<T>& x, int64_t steps, int64_t width, Put&& put) {
  if (!x.alongK) {
    for (int64_t step = 0; step < steps; step++) {
      const int64_t k = step * Depth;
      if constexpr (Depth == 1) {
        const bool exists = k < x.length;
        for (int64_t lane = 0; lane < width; lane += kLanes) {
          if (lane * int64_t(sizeof(T)) % 64 == 0) fetchRow(x, k, lane);
          const int lanes = int(lesser(kLanes, x.lanes - lane));
          put(step, lane, exists && lanes > 0 ? laneWords(x.at + k * x.ld + lane, lanes) : zero());
        }
      } else {
#if ISA_LEVEL >= 3
        for (int64_t lane = 0; lane < width; lane += 2 * kLanes) {
          fetchRow(x, k, lane);
          fetchRow(x, k + 1, lane);
          Vec left, right;
          pairsAcross(x, k, lane, left, right);
          put(step, lane, left);
          if (lane + kLanes < width) put(step, lane + kLanes, right);
        }
#else
        static_assert(Depth == 1, "pairs need AVX512-BF16");
#endif
      }
    }
    return;
  }
  for (int64_t lane = 0; lane < width; lane += kLanes) {
    int64_t step = 0;
    if constexpr (Depth == 1 && std::is_same_v<T, BFloat16>)
      for (; x.alongK && lane + kLanes <= x.lanes && step + 32 <= x.length; step += 32)
        putPairs(x.at + lane * x.ld + step, x.ld, [&](int i, Vec v) { put(step + i, lane, v); });
    for (; step < steps; step += 16) {
      if (lane + kLanes <= x.lanes && (step + 16) * Depth <= x.length) fetchLanes(x, step * Depth, lane);
      Vec block[16];
      stepBlock<Depth>(x, step * Depth, lane, block);
      const int count = int(lesser(16, steps - step));
      if (count == 16) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) put(step + i, lane, block[i]);
      } else {
        for (int i = 0; i < count; i++) put(step + i, lane, block[i]);
      }
    }
  }
}

#if ISA_LEVEL >= 4
// put(lane, step, words): sixteen steps (pairs of k) from `step` on of one lane, for every lane below `width`
// and every sixteenth step.
template <class T, class Put>
ISA_INLINE void eachLane(const Source<T>& x, int64_t steps, int64_t width, Put&& put) {
  if (x.alongK) {
    for (int64_t lane = 0; lane < width; lane++)
      for (int64_t step = 0; step < steps; step += 16) {
        if (lane < x.lanes)
          __builtin_prefetch(reinterpret_cast<const char*>(x.at + lane * x.ld + 2 * step) + kAhead, 0, 2);
        put(lane, step,
            lane < x.lanes
                ? stepsAlong<2>(x.at + lane * x.ld + 2 * step, int(lesser(32, x.length - 2 * step)))
                : zero());
      }
    return;
  }
  for (int64_t step = 0; step < steps; step += 16) {
    for (int64_t lane = 0; lane < width; lane += 2 * kLanes) {
      Vec pairs[2][16], lanes[16];
      for (int i = 0; i < 16; i++) {
        fetchRow(x, 2 * (step + i), lane);
        fetchRow(x, 2 * (step + i) + 1, lane);
        pairsAcross(x, 2 * (step + i), lane, pairs[0][i], pairs[1][i]);
      }
      for (int half = 0; half < 2; half++) {
        transpose16(pairs[half], lanes);
        const int64_t first = lane + half * kLanes;
        for (int i = 0; i < 16 && first + i < width; i++) put(first + i, step, lanes[i]);
      }
    }
  }
}
#endif

}  // namespace isopolicy::ISA_PASS
