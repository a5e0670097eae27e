// The arithmetic of one row of log-softmax, the same text for both families and for the fused linear
// log-prob, so that equal knobs give equal bits. Included inside a pass of each_isa.h: no guard.
//
// x_j = logit_j / temperature in fp32. The row is cut into steps. With m the maximum of the steps so far, a
// step adds sum_j exp(x_j - m) over sixteen lane partials (lane = column within the step, mod 16) joined by
// reduceAdd; where a step raises m, what was summed before is first multiplied by exp(old m - new m).
// lse = m + log(sum), in double and rounded once; logprob_j = x_j - lse in fp32.
//
// The maximum's own term is exactly 1 and the others are not negative, so sum >= 1, lse >= m and no logprob
// is above 0. -infinity is a probability of 0. A row with NaN or +infinity in it, or with nothing above
// -infinity, has a lse of NaN or of -infinity, and logprobs of NaN.

namespace isopolicy::ISA_PASS {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// The logits of one row, divided by the temperature as they are read; rounded to Round first where the
// memory is wider than the logits are said to be.
template <class T, class Round = T>
struct LogitRow {
  const T* logits;
  float temperature;

  ISA_INLINE Vec prepared(Vec x) const {
    if constexpr (!std::is_same_v<T, Round>) x = roundThrough<Round>(x);
    return temperature == 1.0f ? x : x / splat(temperature);
  }
  ISA_INLINE Vec at(int64_t j) const { return prepared(load(logits + j)); }
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

// Lane partials of a step: of exp(x - m), and of exp(x - m) (m - x), from which the entropy comes.
struct LanePartials {
  Vec sum;
  Vec spread;
};

template <bool kEntropy>
ISA_INLINE void addEntry(LanePartials& lanes, Vec x, Vec m) {
  const Vec below = x - m;
  const Vec e = exp(below);
  lanes.sum = lanes.sum + e;
  // Beyond 104 the exponential is exactly 0; the bound keeps 0 * infinity out and lets NaN through.
  if constexpr (kEntropy) lanes.spread = lanes.spread + e * min(splat(128.0f), m - x);
}

// Adds columns [begin, end), where begin is a multiple of sixteen columns away from the start of the step.
template <bool kEntropy, class Row>
inline void addEntries(LanePartials& lanes, const Row& row, int64_t begin, int64_t end, float runningMax) {
  const Vec m = splat(runningMax == kMinusInfinity ? 0.0f : runningMax);
  LanePartials local = lanes;
  int64_t j = begin;
  for (; j + kLanes <= end; j += kLanes) addEntry<kEntropy>(local, row.at(j), m);
  if (j < end) addEntry<kEntropy>(local, row.partial(j, int(end - j)), m);
  lanes = local;
}

// The running state of a row.
struct LogSum {
  float max = kMinusInfinity;
  float sum = 0.0f;
  float spread = 0.0f;  // sum of exp(x - max) (max - x)

  void raise(float stepMax) {
    if (!(stepMax > max)) return;
    if (max > kMinusInfinity) {
      const float scale = expOne(max - stepMax);
      spread = scale > 0.0f ? scale * (spread + (stepMax - max) * sum) : 0.0f;
      sum *= scale;
    }
    max = stepMax;
  }
  void add(const LanePartials& lanes) {
    sum += reduceAdd(lanes.sum);
    spread += reduceAdd(lanes.spread);
  }
  float lse() const { return float(double(max) + std::log(double(sum))); }
  // -sum p log p = log(sum) + spread / sum: two terms that are never negative, so nothing cancels.
  float entropy() const { return float(std::log(double(sum)) + double(spread) / double(sum)); }
};

template <bool kEntropy, class Row>
inline void addStep(LogSum& state, const Row& row, int64_t begin, int64_t end) {
  LanePartials lanes{zero(), zero()};
  addEntries<kEntropy>(lanes, row, begin, end, state.max);
  state.add(lanes);
}

inline int64_t stepOf(int64_t chunk, int64_t columns) {
  return chunk == 0 ? columns : std::min(chunk, columns);
}

// The whole row, online: each step's maximum is found just before its terms are added.
template <bool kEntropy, class Row>
inline LogSum sumOnline(const Row& row, int64_t columns, int64_t chunk) {
  const int64_t step = stepOf(chunk, columns);
  LogSum state;
  for (int64_t begin = 0; begin < columns; begin += step) {
    const int64_t end = std::min(begin + step, columns);
    state.raise(maximum(row, begin, end));
    addStep<kEntropy>(state, row, begin, end);
  }
  return state;
}

// out[j] = x_j - lse.
template <class Row>
inline void writeLogprobs(const Row& row, int64_t columns, float lse, float* out) {
  const Vec l = splat(lse);
  int64_t j = 0;
  for (; j + kLanes <= columns; j += kLanes) store(out + j, row.at(j) - l);
  if (j < columns) storePartial(out + j, row.partial(j, int(columns - j)) - l, int(columns - j));
}

// Before any row is computed, so that the row named does not depend on the threads.
inline void checkIds(const char* name, const int32_t* ids, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; i++) {
    if (ids[i] >= 0 && ids[i] < columns) continue;
    throw DeviceError("expected " + std::string(name) + " from 0 to V - 1 = " + std::to_string(columns - 1) +
                      ", got " + std::to_string(ids[i]) + " in row " + std::to_string(i));
  }
}

// Rows worth a thread of its own: about 16,000 entries take 20 microseconds.
inline int64_t rowGrain(int64_t columns) { return std::max<int64_t>(1, 16384 / columns); }

}  // namespace isopolicy::ISA_PASS
