// The arithmetic of one row of log-softmax, the same text for both families and for the fused linear
// log-prob, so that equal knobs give equal bits. Included inside a pass of each_isa.h: no guard.
//
// x_j = logit_j / temperature in fp32. The row is cut into steps, a step into groups of 64 columns. With m
// the maximum of the groups so far, a group adds sum_j exp(x_j - m) to sixteen lane partials (lane = column
// within the step, mod 16; the four vectors of a group pairwise), which reduceAdd joins at the end of the
// step. Where a group raises m, what was summed before is first multiplied by exp(old m - new m). One pass
// over the logits finds maximum and sum; m changes a few times in a row, so the branch costs nothing. lse = m
// + log(sum), in double and rounded once; logprob_j = x_j - lse in fp32.
//
// The maximum's own term is exactly 1 and the others are not negative, so sum >= 1, lse >= m and no logprob
// is above 0. -infinity is a probability of 0. A row with NaN or +infinity in it, or with nothing above
// -infinity, has a lse of NaN or of -infinity, and logprobs of NaN.

#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The logits of one row, divided by the temperature as they are read; rounded to Round first where the
// memory is wider than the logits are said to be. Sparse: most of them are -infinity.
template <class T, class Round = T, bool Sparse = false>
struct LogitRow {
  static constexpr bool kSparse = Sparse;
  const T* logits;
  float temperature;

  ISA_INLINE Vec prepared(Vec x) const {
    if constexpr (!std::is_same_v<T, Round>) x = roundThrough<Round>(x);
    return temperature == 1.0f ? x : x / splat(temperature);
  }
  ISA_INLINE Vec at(int64_t j) const { return prepared(load(logits + j)); }
  // kSide vectors. kScaled: the temperature is not 1.
  template <bool kScaled>
  ISA_INLINE void group(int64_t j, Vec* x) const {
    fetchAhead(logits + j);
    for (int k = 0; k < kSide; k++) x[k] = load(logits + j + k * kLanes);
    if constexpr (!std::is_same_v<T, Round>)
      for (int k = 0; k < kSide; k++) x[k] = roundThrough<Round>(x[k]);
    if constexpr (kScaled)
      for (int k = 0; k < kSide; k++) x[k] = x[k] / splat(temperature);
  }
  // Entries j to j + n - 1; -infinity, which adds exactly nothing, in the lanes beyond.
  ISA_INLINE Vec partial(int64_t j, int n) const {
    static constexpr float kLane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return selectLess(load(kLane), splat(float(n)), prepared(loadPartial(logits + j, n)),
                      splat(kMinusInfinity));
  }
  float one(int64_t j) const {
    float x = toFloat(logits[j]);
    if constexpr (!std::is_same_v<T, Round>) x = toFloat(roundTo<Round>(x));
    return x / temperature;
  }
};

ISA_INLINE float expOne(float x) {
  float lanes[16];
  toArray(exp(splat(x)), lanes);
  return lanes[0];
}

// The largest of columns [begin, end). NaN may be passed over here: it reaches the sum.
template <class Row>
inline float maximum(const Row& row, int64_t begin, int64_t end) {
  // A maximum has no order, so four accumulators hide the latency of one.
  Vec m[4] = {splat(kMinusInfinity), splat(kMinusInfinity), splat(kMinusInfinity), splat(kMinusInfinity)};
  int64_t j = begin;
  for (; j + 4 * kLanes <= end; j += 4 * kLanes)
    for (int k = 0; k < 4; k++) m[k] = max(m[k], row.at(j + k * kLanes));
  for (; j + kLanes <= end; j += kLanes) m[0] = max(m[0], row.at(j));
  if (j < end) m[1] = max(m[1], row.partial(j, int(end - j)));
  return reduceMax(max(max(m[0], m[1]), max(m[2], m[3])));
}

inline constexpr int64_t kGroupColumns = kSide * kLanes;

// The running state of a row.
struct LogSum {
  float max = std::numeric_limits<float>::lowest();
  float sum = 0.0f;       // of the steps that are over
  float spread = 0.0f;    // likewise, of exp(x - max) (x - max)
  Vec lanes, laneSpread;  // of the step that is being added

  LogSum() : lanes(zero()), laneSpread(zero()) {}
  void endStep() {
    sum += reduceAdd(lanes);
    spread += reduceAdd(laneSpread);
    lanes = laneSpread = zero();
  }
  ISA_INLINE void raise(float newMax) {
    const Vec drop = expRangeFromBelow(splat(max - newMax));
    Vec scale = zero();  // where nothing was above -infinity before
    if (max > std::numeric_limits<float>::lowest()) {
      scale = drop;
      expInRange<1>(&scale);
    }
    laneSpread = scale * (laneSpread + drop * lanes);
    lanes = scale * lanes;
    spread = firstLane(scale) * (spread + firstLane(drop) * sum);
    sum *= firstLane(scale);
    max = newMax;
  }
};

// Adds N vectors, which are overwritten, and returns their sum of exp(x - state.max); m is the maximum so far
// in every lane. kEntropy: the spread, too. kSparse: what is nothing beside the maximum is not computed,
// since a result that underflows costs a hundred cycles.
template <bool kEntropy, bool kSparse, int N>
ISA_INLINE Vec addVectors(LogSum& state, Vec& m, Vec (&x)[N]) {
  Vec top = x[0];
  for (int k = 1; k < N; k++) top = max(top, x[k]);
  if (anyGreater(top, m)) {
    state.raise(reduceMax(top));
    m = splat(state.max);
  }
  Vec below[N];
  for (int k = 0; k < N; k++) x[k] = below[k] = expRangeFromBelow(x[k] - m);
  const Vec least = splat(-80.0f);
  if constexpr (kSparse)
    for (int k = 0; k < N; k++) x[k] = max(least, x[k]);
  expInRange<N>(x);
  if constexpr (kSparse)
    for (int k = 0; k < N; k++) x[k] = selectLess(below[k], least, zero(), x[k]);
  if constexpr (kEntropy) {
    Vec products = x[0] * below[0];
    for (int k = 1; k < N; k++) products = fma(x[k], below[k], products);
    state.laneSpread = state.laneSpread + products;
  }
  Vec sum = x[0];
  if constexpr (N == 4) sum = (x[0] + x[1]) + (x[2] + x[3]);
  state.lanes = state.lanes + sum;
  return sum;
}

struct Unseen {
  ISA_INLINE void operator()(Vec, float) const {}
};

template <bool kEntropy, bool kScaled, class Row, class See>
inline void addColumns(LogSum& state, const Row& row, int64_t begin, int64_t end, See&& see) {
  LogSum local = state;
  Vec m = splat(local.max);
  int64_t j = begin;
  for (; j + kGroupColumns <= end; j += kGroupColumns) {
    Vec x[kSide];
    row.template group<kScaled>(j, x);
    const Vec sum = addVectors<kEntropy, Row::kSparse>(local, m, x);
    see(sum, local.max);
  }
  for (; j < end; j += kLanes) {
    Vec x[1] = {j + kLanes <= end ? row.at(j) : row.partial(j, int(end - j))};
    const Vec sum = addVectors<kEntropy, Row::kSparse>(local, m, x);
    see(sum, local.max);
  }
  state = local;
}

// Adds columns [begin, end) of a step, where begin is a multiple of a group away from the start of the step.
// see(sum, max) is told of each group's sum of exp(x - max).
template <bool kEntropy, class Row, class See = Unseen>
inline void addColumns(LogSum& state, const Row& row, int64_t begin, int64_t end, See&& see = See()) {
  if (row.temperature == 1.0f)
    addColumns<kEntropy, false>(state, row, begin, end, see);
  else
    addColumns<kEntropy, true>(state, row, begin, end, see);
}

inline int64_t stepOf(int64_t chunk, int64_t columns) {
  return chunk == 0 ? columns : std::min(chunk, columns);
}

template <bool kEntropy, class Row>
inline LogSum sumRow(const Row& row, int64_t columns, int64_t chunk) {
  const int64_t step = stepOf(chunk, columns);
  LogSum state;
  for (int64_t begin = 0; begin < columns; begin += step) {
    addColumns<kEntropy>(state, row, begin, std::min(begin + step, columns));
    state.endStep();
  }
  return state;
}

struct RowLogs {
  float lse;
  float entropy;  // of use where the sum was taken with kEntropy
};
// Entropy: -sum p log p = log(sum) - spread / sum, two terms that are never negative, so nothing cancels.
inline RowLogs logsOf(const LogSum& state) {
  const double log = std::log(double(state.sum));
  return {float(double(state.max) + log), float(log - double(state.spread) / double(state.sum))};
}

template <bool kScaled, class Row>
inline void writeLogprobs(const Row& row, int64_t columns, float lse, float* out, bool past) {
  const Vec l = splat(lse);
  eachVectors(columns, out, past, [&](int64_t j, auto lanes) {
    Vec x[lanes.count];
    if constexpr (lanes.count == kSide) {
      row.template group<kScaled>(j, x);
    } else {
      lanes.get(row.logits + j, x);
      x[0] = row.prepared(x[0]);
    }
    for (int k = 0; k < lanes.count; k++) x[k] = x[k] - l;
    lanes.put(out + j, x);
  });
}

// out[j] = x_j - lse, past the caches or not.
template <class Row>
inline void writeLogprobs(const Row& row, int64_t columns, float lse, float* out, bool past) {
  if (row.temperature == 1.0f)
    writeLogprobs<false>(row, columns, lse, out, past);
  else
    writeLogprobs<true>(row, columns, lse, out, past);
}

// Before any row is computed, so that the row named does not depend on the threads.
inline void checkIds(const char* name, const int32_t* ids, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) {
    if (ids[i] >= 0 && ids[i] < columns) continue;
    throw DeviceError("expected " + std::string(name) + " from 0 to V - 1 = " + std::to_string(columns - 1) +
                      ", got " + std::to_string(ids[i]) + " in row " + std::to_string(i));
  }
}

// Rows worth a call of their own: some microseconds, of which a row costs some by itself.
inline int64_t rowGrain(int64_t columns) { return std::max<int64_t>(1, 8192 / (columns + 256)); }

}  // namespace isopolicy::ISA_PASS
