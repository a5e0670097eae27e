// The online softmax of attention, defined once for both families: at equal chunk and tile, a query row gets
// the same bits from the training kernel, from prefill and from decode.
//
// A row sees keys 0 .. limit - 1. They are cut into chunks, and chunks into tiles. Within a chunk, tile by
// tile, with s_j = scale log2(e) q k_j:
//   m' = max(m, max s_j),  p_j = 2^(s_j - m'),  l = l 2^(m - m') + sum p_j,  O = O 2^(m - m') + sum P_j v_j
// with P the 16-bit rounding of p. Chunks are joined in order in fp32 the same way; out = O (1 / l) is
// rounded once. Keys beyond the limit have a probability of exactly zero or are not multiplied, so nothing
// that memory holds there can reach a row. Included once a pass: no guard.
#include "cpu/shared/attention_strip.h"

#include "cpu/shared/attention_softmax.h"
#include "cpu/shared/attention_stepped.h"

namespace isopolicy::ISA_PASS {

// Rows that attend to the same keys: query tokens, or the query heads of a group, or both. Rows are in order
// of their limits, which do not decrease. There may be several such sets with the same limits, each with keys
// of its own; strip by strip they take turns. The calling thread holds RowTiles. F is SteppedForm for pages
// that are read as they are at level amx.
template <class T, class F = Form<T>>
class AttentionRows {
 public:
  using Element = typename F::Element;
  // Rows that are scored together: two tiles of AMX, or four blocks of four rows.
  static constexpr int kGroup = F::kTiles ? 32 : 16;

  AttentionRows(Scratch& scratch, const RowSettings& settings, int64_t maxRows, int strip)
      : settings_(settings),
        depth_(roundUp(settings.headDim, F::kStep)),
        stride_(roundUp16(settings.headDim)),
        strip_(strip),
        tileStride_(roundUp(settings.tile, 32)),
        scale_(settings.scale * kLog2E) {
    // A group may reach past the last row; what it finds there, it leaves there.
    const int64_t padded = maxRows + kGroup;
    planeQ_ = padded * depth_;
    q_ = scratch.get<Element>(planeQ_ * F::kPlanes);
    limits_ = scratch.get<int>(padded);
    whole_ = states(scratch, padded);
    part_ = settings.chunk > 0 ? states(scratch, padded) : whole_;
    scores_ = scratch.get<float>(kGroup * int64_t(strip_) * (F::kStepped ? F::kPlanes : 1));
    planeP_ = (kGroup + 16) * int64_t(tileStride_);
    if constexpr (F::kPairs) p_ = scratch.get<Element>(planeP_ * F::kPlanes);
  }

  void query(int64_t row, const T* q, int limit) {
    limits_[row] = limit;
#if ISA_LEVEL >= 3
    if constexpr (F::kPairs) packRow<T>(q, settings_.headDim, depth_, q_ + row * depth_, planeQ_);
#endif
    if constexpr (!F::kPairs) widenRow(q, settings_.headDim, q_ + row * depth_);
#if ISA_LEVEL >= 4
    if constexpr (F::kStepped && F::kPlanes == 2)
      splitRow(q_ + row * depth_, q_ + row * depth_ + planeQ_, depth_ / 16);
#endif
  }

  // What load adds here comes to the cache while the strip is computed with.
  RowsAhead& ahead() { return ahead_; }

  // load(set, first, keys) -> KeyStrip of keys first .. first + keys - 1; called in order.
  template <class Load>
  void attend(int64_t rows, int sets, Load&& load) {
    const int last = limits_[rows - 1];
    const int chunk = settings_.chunk > 0 ? settings_.chunk : last;
    for (int begin = 0; begin < last; begin += chunk) {
      const int64_t first =
          attendChunk(begin, std::min(last, begin + chunk), rows, sets, begin == 0 ? whole_ : part_, load);
      if (begin > 0)
        for (int64_t r = first; r < rows * sets; r++)
          join(r, {part_.out + r * stride_, part_.max[r], part_.sum[r]});
    }
  }

  // The same in pieces: first every chunk by itself, whose result is partSize() numbers a row, then all of
  // them joined. Every row sees all of the chunk.
  int64_t partSize() const { return stride_ + 16; }
  template <class Load>
  void attendPart(int chunk, int64_t rows, int sets, float* parts, Load&& load) {
    const int begin = chunk * settings_.chunk;
    attendChunk(begin, std::min(limits_[rows - 1], begin + settings_.chunk), rows, sets, part_, load);
    for (int64_t r = 0; r < rows * sets; r++) {
      float* part = parts + r * partSize();
      std::memcpy(part, part_.out + r * stride_, size_t(stride_) * 4);
      part[stride_] = part_.max[r];
      part[stride_ + 1] = part_.sum[r];
    }
  }
  // Chunk after chunk, the first of which replaces what the row held.
  void joinPart(int chunk, int64_t row, const float* part) {
    if (chunk > 0) return join(row, {part, part[stride_], part[stride_ + 1]});
    std::memcpy(whole_.out + row * stride_, part, size_t(stride_) * 4);
    whole_.max[row] = part[stride_];
    whole_.sum[row] = part[stride_ + 1];
  }

  // out[headDim] = O / l.
  void output(int64_t row, T* out) const {
    const Vec inverse = splat(1.0f / whole_.sum[row]);
    // Adding zero leaves no zero negative: which sign it had may depend on masked keys.
    storeRow(whole_.out + row * stride_, settings_.headDim, out,
             [&](Vec x) { return fma(x, inverse, zero()); });
  }
  float logSumExp(int64_t row) const { return whole_.max[row] / kLog2E + std::log(whole_.sum[row]); }

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

  int64_t firstBeyond(int key, int64_t row, int64_t rows) const {
    while (row < rows && limits_[row] <= key) row++;
    return row;
  }

  // How many tiles of the strip rows row .. rows - 1 take, each for itself.
  int64_t softmaxSteps(int begin, int keys, int64_t row, int64_t rows) const {
    int64_t steps = 0;
    for (; row < rows; row += kGroup) {
      const int64_t n = std::min<int64_t>(kGroup, rows - row);
      const int most = std::min(keys, limits_[row + n - 1] - begin);
      steps += n * (roundUp(most, settings_.tile) / settings_.tile);
    }
    return steps;
  }

  template <class Load>
  int64_t attendChunk(int chunkBegin, int chunkEnd, int64_t rows, int sets, const States& states,
                      Load&& load) {
    const int64_t first = firstBeyond(chunkBegin, 0, rows), all = rows * sets;
    std::fill(states.max + first, states.max + all, kMinusInfinity);
    std::memset(states.lanes + first * 16, 0, size_t(all - first) * 64);
    if constexpr (!F::kTiles)
      std::memset(states.out + first * stride_, 0, size_t((all - first) * stride_) * 4);
    int64_t row = first;
    for (int begin = chunkBegin; begin < chunkEnd; begin += strip_) {
      const int keys = std::min(strip_, chunkEnd - begin);
      row = firstBeyond(begin, row, rows);
      for (int set = 0; set < sets; set++) {
        const auto strip = load(set, begin, keys);
        ahead_.spread(softmaxSteps(begin, keys, row, rows));
        const int64_t end = (set + 1) * rows;
        for (int64_t r = set * rows + row; r < end; r += kGroup)
          attendGroup(strip, begin, keys, begin == chunkBegin, r, int(std::min<int64_t>(kGroup, end - r)),
                      states);
      }
    }
    for (int64_t r = first; r < all; r++) states.sum[r] = reduceAdd(ISA_PASS::load(states.lanes + r * 16));
    return first;
  }

  template <class Strip>
  void attendGroup(const Strip& strip, int begin, int keys, bool fresh, int64_t row, int n,
                   const States& states) {
    int limit[kGroup];  // within the strip
    for (int r = 0; r < n; r++) limit[r] = std::min(keys, limits_[row + r] - begin);
    const int most = limit[n - 1];
    score(strip.keys, roundUp16(most) / 16, row, n);
    if (limit[0] < roundUp16(most)) maskBeyond(limit, n, roundUp16(most), scores_, strip_);
    for (int tile = 0; tile < most; tile += settings_.tile) {
      const int end = std::min(tile + settings_.tile, most);
      alignas(64) float factor[kGroup];
      softmaxTile<T>(
          SoftmaxTile<Element>{scores_ + tile, strip_, roundUp16(end - tile) / 16, scale_, states.max + row,
                               states.lanes + row * 16, factor, p_, tileStride_, planeP_},
          n, ahead_);
      float* out = states.out + row * stride_;
      const bool first = fresh && tile == 0;
      if (strip.finite || limit[0] >= end)
        add(strip.values, tile, end, first, n, factor, out);
      else
        addOneByOne(strip.values, tile, end, first, limit, n, factor, out);
    }
  }

  template <class Groups>
  void score(const Groups& keys, int groups, int64_t row, int n) {
    if constexpr (F::kStepped) {
#if ISA_LEVEL >= 4
      eachFew(n, [&](auto count, int r) {
        steppedDots<count, kSteppedVectors<count, F::kPlanes>, F::kPlanes>(
            q_ + (row + r) * depth_, depth_, planeQ_, keys, 0, groups, settings_.headDim,
            scores_ + r * strip_, strip_);
      });
#endif
    } else {
      multiplyGroups(Left<T>{q_ + row * depth_, depth_, 1, planeQ_}, keys, groups, n, settings_.headDim,
                     scores_, strip_, ahead_);
    }
  }

  // O = O factor + P v over the keys `tile` .. `end` - 1 of the strip.
  template <class Values>
  void add(const Values& values, int tile, int end, bool first, int n, const float* factor, float* out) {
#if ISA_LEVEL >= 4
    if constexpr (F::kTiles) {
      if (!first)
        for (int r = 0; r < n; r++) scaleRow(out + r * stride_, factor[r]);
      const LeftTiles left{p_, tileStride_, planeP_};
      const int steps = roundUp(end - tile, 32) / 32;
      const ValueTiles right = values.tile(tile);
      if (n > 16)
        addTiles<2, F::kPlanes>(first, out, stride_, left, right, stride_ / 16, steps, ahead_);
      else
        addTiles<1, F::kPlanes>(first, out, stride_, left, right, stride_ / 16, steps, ahead_);
      return;
    }
#endif
#if ISA_LEVEL >= 4
    if constexpr (F::kStepped) {
      if constexpr (F::kPlanes == 2)
        for (int r = 0; r < n; r++)
          splitRow(scores_ + r * strip_ + tile, scores_ + (kGroup + r) * strip_ + tile,
                   roundUp16(end - tile) / 16);
      eachFew(n, [&](auto count, int r) {
        steppedAdd<count, kSteppedVectors<count, F::kPlanes>, F::kPlanes>(
            out + r * stride_, stride_, factor + r, {scores_ + r * strip_, strip_, kGroup * int64_t(strip_)},
            values, stride_ / 16, 0, tile, end);
      });
      return;
    }
#endif
    if constexpr (!F::kTiles && !F::kStepped)
      eachFew(n, [&](auto count, int r) {
        accumulate<count>(out + r * stride_, stride_, factor + r, weights(r, tile), values, stride_ / 16,
                          tile, end);
      });
  }

  // The same where values that some rows do not see are not finite, so that zero times them would not be
  // zero.
  template <class Values>
  void addOneByOne(const Values& values, int tile, int end, bool first, const int* limit, int n,
                   const float* factor, float* out) {
#if ISA_LEVEL >= 4
    if constexpr (F::kTiles) {
      Scratch scratch;
      float* sum = scratch.get<float>(16 * int64_t(stride_));
      const auto seen = values.copyOfTile(scratch, tile);
      const int steps = roundUp(end - tile, 32) / 32;
      // From the last row on, each sees no more values than the one before: what it does not see can go.
      for (int r = n - 1; r >= 0 && limit[r] > tile; r--) {
        seen.clear(std::min(end, limit[r]) - tile, 32 * steps);
        if (!first) scaleRow(out + r * stride_, factor[r]);
        std::memcpy(sum, out + r * stride_, size_t(stride_) * 4);
        addTiles<1, F::kPlanes>(first, sum, stride_, {p_ + r * tileStride_, tileStride_, planeP_},
                                seen.tile(0), stride_ / 16, steps, ahead_);
        std::memcpy(out + r * stride_, sum, size_t(stride_) * 4);
      }
      return;
    }
#endif
    if constexpr (!F::kTiles && !F::kStepped)
      for (int r = 0; r < n; r++)
        if (limit[r] > tile)
          accumulate<1>(out + r * stride_, stride_, factor + r, weights(r, tile), values, stride_ / 16, tile,
                        std::min(end, limit[r]));
  }

  // Probabilities of row r, indexed by the key of the strip.
  Weights<Element> weights(int r, int tile) const {
    if constexpr (F::kPairs)
      return {p_ + r * tileStride_ - tile, tileStride_, 1};
    else
      return {scores_ + r * strip_, strip_, 1};
  }

  void scaleRow(float* row, float factor) const {
    for (int d = 0; d < stride_; d += 16) store(row + d, ISA_PASS::load(row + d) * splat(factor));
  }

  struct Part {
    const float* out;
    float max, sum;
  };

  // Adds a chunk to the chunks before it.
  void join(int64_t row, const Part& part) {
    const float before = whole_.max[row];
    const float now = before < part.max ? part.max : before;
    float factors[16] = {before - now, part.max - now};
    store(factors, exp2(load(factors)));
    const Vec keep = splat(factors[0]);
    const Vec add = splat(factors[1]);
    whole_.max[row] = now;
    whole_.sum[row] = whole_.sum[row] * factors[0] + part.sum * factors[1];
    float* out = whole_.out + row * stride_;
    for (int d = 0; d < stride_; d += 16) store(out + d, fma(load(part.out + d), add, load(out + d) * keep));
  }

  const RowSettings settings_;
  const int depth_, stride_, strip_, tileStride_;
  const float scale_;
  Element* q_;  // [plane][row][depth]
  int64_t planeQ_;
  int* limits_;
  States whole_, part_;
  float* scores_;         // [kGroup][strip], and in the end probabilities; stepped halves: two such planes
  Element* p_ = nullptr;  // [plane][kGroup, and 16 that no one reads][tileStride]
  int64_t planeP_;
  RowsAhead ahead_;
};

}  // namespace isopolicy::ISA_PASS
