// The online softmax of attention, defined once for both families: at equal chunk and tile, a query row gets
// the same bits from the training kernel, from prefill and from decode.
//
// A row sees keys 0 .. limit - 1. They are cut into chunks, and chunks into tiles. Within a chunk, tile by
// tile:
//   m' = max(m, max s_j),  p_j = exp(s_j - m'),  l = l exp(m - m') + sum p_j,  O = O exp(m - m') + sum P_j
//   v_j
// with P the 16-bit rounding of p. Chunks are joined in order in fp32 the same way; out = O / l is rounded
// once. Keys beyond the limit are never multiplied, so nothing that memory holds there can reach a row.
// Included once a pass: no guard.
#include "cpu/shared/attention_tile.h"

namespace isopolicy::ISA_PASS {

inline constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

#if ISA_LEVEL >= 2
ISA_INLINE float largestLane(Vec x) { return _mm512_reduce_max_ps(x.v); }
#else
ISA_INLINE float largestLane(Vec x) { return reduceMax(x); }
#endif

struct RowSettings {
  int headDim;
  float scale;
  int chunk;  // 0: all keys in one
  int tile;
};

// Keys that are scored at once: whole tiles, about 128 keys, so that even a single row has enough independent
// sums to fill the pipeline.
inline int stripKeys(const RowSettings& settings) {
  const int keys = settings.tile >= 128 ? settings.tile : 128 / settings.tile * settings.tile;
  return settings.chunk > 0 ? std::min(keys, settings.chunk) : keys;
}

// Up to stripKeys keys: groups of 16 transposed keys [headDim][16], and the value rows by the same groups.
template <class S>
struct KeyStrip {
  const S** keys;
  const S** values;
  int64_t valueStride;
};

// Rows that attend to the same keys: query tokens, or the query heads of a group, or both. Rows are in order
// of their limits, which do not decrease.
template <class T>
class AttentionRows {
 public:
  AttentionRows(Scratch& scratch, const RowSettings& settings, int64_t maxRows)
      : settings_(settings), stride_(roundUp16(settings.headDim)), strip_(stripKeys(settings)) {
    q_ = scratch.get<float>(maxRows * stride_);
    limits_ = scratch.get<int>(maxRows);
    whole_ = states(scratch, maxRows);
    part_ = settings.chunk > 0 ? states(scratch, maxRows) : whole_;
    scores_ = scratch.get<float>(4 * int64_t(roundUp16(strip_)));
  }

  int strip() const { return strip_; }
  int stride() const { return stride_; }

  void query(int64_t row, const T* q, int limit) {
    widenRow(q, settings_.headDim, q_ + row * stride_);
    limits_[row] = limit;
  }

  // load(first, keys) -> KeyStrip<S> of keys first .. first + keys - 1; called in order.
  template <class S, class Load>
  void attend(int64_t rows, Load&& load) {
    const int last = limits_[rows - 1];
    const int chunk = settings_.chunk > 0 ? settings_.chunk : last;
    for (int chunkBegin = 0; chunkBegin < last; chunkBegin += chunk) {
      const int chunkEnd = std::min(last, chunkBegin + chunk);
      const int64_t first = firstBeyond(chunkBegin, 0, rows);
      const States& states = chunkBegin == 0 ? whole_ : part_;
      clear(states, first, rows);
      int64_t row = first;
      for (int begin = chunkBegin; begin < chunkEnd; begin += strip_) {
        const int keys = std::min(strip_, chunkEnd - begin);
        row = firstBeyond(begin, row, rows);
        const KeyStrip<S> strip = load(begin, keys);
        int64_t r = row;
        for (; r + 4 <= rows; r += 4) attendRows<4>(strip, begin, keys, r, states);
        if (r + 2 <= rows) {
          attendRows<2>(strip, begin, keys, r, states);
          r += 2;
        }
        if (r < rows) attendRows<1>(strip, begin, keys, r, states);
      }
      for (int64_t r = first; r < rows; r++) {
        states.sum[r] = reduceAdd(ISA_PASS::load(states.lanes + r * 16));
        if (chunkBegin > 0) join(r);
      }
    }
  }

  // out[headDim] = O / l.
  void output(int64_t row, T* out) const {
    const Vec sum = splat(whole_.sum[row]);
    storeRow(whole_.out + row * stride_, settings_.headDim, out, [&](Vec x) { return x / sum; });
  }
  float logSumExp(int64_t row) const { return whole_.max[row] + std::log(whole_.sum[row]); }

 private:
  struct States {
    float* max;
    float* lanes;  // [row][16]: the sum of p, lane by lane
    float* sum;    // the sum of the lanes, once the chunk is done
    float* out;    // [row][stride]
  };

  States states(Scratch& scratch, int64_t rows) {
    return {scratch.get<float>(rows), scratch.get<float>(rows * 16), scratch.get<float>(rows),
            scratch.get<float>(rows * stride_)};
  }

  void clear(const States& states, int64_t first, int64_t rows) {
    std::fill(states.max + first, states.max + rows, kMinusInfinity);
    std::memset(states.lanes + first * 16, 0, size_t(rows - first) * 64);
    std::memset(states.out + first * stride_, 0, size_t((rows - first) * stride_) * 4);
  }

  int64_t firstBeyond(int key, int64_t row, int64_t rows) const {
    while (row < rows && limits_[row] <= key) row++;
    return row;
  }

  template <int R, class S>
  void attendRows(const KeyStrip<S>& strip, int begin, int keys, int64_t row, const States& states) {
    const int width = roundUp16(strip_);
    int limit[R];  // within the strip
    for (int r = 0; r < R; r++) limit[r] = std::min(keys, limits_[row + r] - begin);
    const int most = limit[R - 1];
    dots<R>(q_ + row * stride_, stride_, strip.keys, roundUp16(most) / 16, settings_.headDim, settings_.scale,
            scores_, width);
    for (int r = 0; r < R; r++)
      for (int j = limit[r]; j < roundUp16(limit[r]); j++) scores_[r * width + j] = kMinusInfinity;

    const PagedRows<S> values{strip.values, strip.valueStride};
    const int vectors = stride_ / 16;
    for (int tile = 0; tile < most; tile += settings_.tile) {
      float change[16] = {};
      int end[R];
      for (int r = 0; r < R; r++) {
        end[r] = std::max(tile, std::min(tile + settings_.tile, limit[r]));
        const float* s = scores_ + r * width;
        Vec largest = splat(states.max[row + r]);
        for (int j = tile; j < end[r]; j += 16) largest = max(largest, load(s + j));
        const float before = states.max[row + r];
        const float now = largestLane(largest);
        states.max[row + r] = now;
        change[r] = before == now ? 0.0f : before - now;
      }
      float factor[16];
      store(factor, exp(load(change)));
      for (int r = 0; r < R; r++) {
        float* s = scores_ + r * width;
        const Vec largest = splat(states.max[row + r]);
        Vec sum = load(states.lanes + (row + r) * 16) * splat(factor[r]);
        for (int j = tile; j < end[r]; j += 16) {
          const Vec p = exp(load(s + j) - largest);
          sum = sum + p;
          store(s + j, roundThrough<T>(p));
        }
        store(states.lanes + (row + r) * 16, sum);
      }
      float* out = states.out + row * stride_;
      accumulate<R>(out, stride_, factor, Weights{scores_, width, 1}, values, vectors, tile, end[0]);
      // Later rows see more keys of the tile on the diagonal.
      for (int r = 1; r < R; r++)
        if (end[r] > end[0])
          accumulate<1>(out + r * stride_, stride_, nullptr, Weights{scores_ + r * width, width, 1}, values,
                        vectors, end[0], end[r]);
    }
  }

  // Adds the chunk that `part_` holds to the chunks before it.
  void join(int64_t row) {
    const float before = whole_.max[row];
    const float chunk = part_.max[row];
    const float now = before < chunk ? chunk : before;
    float factors[16] = {before - now, chunk - now};
    store(factors, exp(load(factors)));
    const Vec keep = splat(factors[0]);
    const Vec add = splat(factors[1]);
    whole_.max[row] = now;
    whole_.sum[row] = whole_.sum[row] * factors[0] + part_.sum[row] * factors[1];
    float* out = whole_.out + row * stride_;
    const float* more = part_.out + row * stride_;
    for (int d = 0; d < stride_; d += 16) store(out + d, fma(load(more + d), add, load(out + d) * keep));
  }

  RowSettings settings_;
  int stride_;
  int strip_;
  float* q_;
  int* limits_;
  States whole_, part_;
  float* scores_;
};

}  // namespace isopolicy::ISA_PASS
