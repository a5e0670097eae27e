// Sampling of one token a row, by inversion of the cumulative distribution in the order of token ids.
//
// The uniform number of a draw is a function of (seed, prompt, sample, position) alone, and its probabilities
// of the row alone, so a draw does not depend on what else is in the batch.
#include "cpu/shared/kernel.h"

#include <atomic>

#include "core/random.h"
#include "ops/sample.h"
#define ISA_KERNELS "cpu/rollout/sample.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/log_softmax_row.h"

namespace isopolicy::ISA_PASS {
namespace {

constexpr int64_t kBlock = 512;

// exp(x - lse) of columns [begin, end), at most kBlock of them; returns their sum.
template <class Row>
float probabilities(const Row& row, int64_t begin, int64_t end, float lse, float* out) {
  const Vec l = splat(lse);
  Vec sum = zero();
  for (int64_t j = begin; j < end; j += kLanes) {
    const int n = int(std::min<int64_t>(kLanes, end - j));
    const Vec p = exp((n == kLanes ? row.at(j) : row.partial(j, n)) - l);
    sum = sum + p;
    storePartial(out + (j - begin), p, n);
  }
  return reduceAdd(sum);
}

// The mass of a row, block by block, as it is summed: a block's is its sum of exp(x - max) with the maximum
// of the row so far.
class Masses {
 public:
  // As sumRow, to the bit. In a sparse row blocks of nothing but -infinity are passed over, since they add
  // exactly nothing; they are as short as that allows.
  template <class Row>
  LogSum sum(const Row& row, int64_t columns, int64_t chunk) {
    constexpr int64_t kSize = Row::kSparse ? kGroupColumns : kBlock;
    const int64_t step = stepOf(chunk, columns);
    const int64_t most = (columns + step - 1) / step * ((std::min(step, columns) + kSize - 1) / kSize);
    blocks_ = scratch_.get<Block>(most);
    LogSum state;
    for (int64_t begin = 0; begin < columns; begin += step) {
      const int64_t end = std::min(begin + step, columns);
      for (int64_t at = begin; at < end; at += kSize) {
        const int64_t stop = std::min(at + kSize, end);
        if (Row::kSparse && maximum(row, at, stop) == kMinusInfinity) continue;
        Vec mass = zero();
        float max = state.max;
        addColumns<false>(state, row, at, stop, [&](Vec groupSum, float groupMax) {
          if (groupMax != max) {
            mass = mass * splat(expOne(max - groupMax));
            max = groupMax;
          }
          mass = mass + groupSum;
        });
        blocks_[count_++] = {at, stop, max, reduceAdd(mass)};
      }
      state.endStep();
    }
    max_ = state.max;
    return state;
  }

  // The first id at which the cumulative mass exceeds u times the whole; always one with mass.
  template <class Row>
  int32_t invert(const Row& row, double u) {
    double* upTo = scratch_.get<double>(count_ + 1);  // mass of the blocks before each one
    upTo[0] = 0;
    for (int64_t b = 0; b < count_; b++) {
      const float scale = blocks_[b].max == max_ ? 1.0f : expOne(blocks_[b].max - max_);
      upTo[b + 1] = upTo[b] + double(blocks_[b].mass) * double(scale);
    }
    const double wanted = u * upTo[count_];
    int64_t b = 0;
    while (b < count_ && upTo[b + 1] <= wanted) b++;
    // Rounding may leave `wanted` at the very end, and then the last block with mass takes it; likewise
    // below, where the sum within the block has another order than that of the whole block.
    if (b == count_) b--;
    while (b > 0 && upTo[b + 1] == upTo[b]) b--;
    float p[kBlock];
    const int64_t begin = blocks_[b].begin, end = blocks_[b].end;
    probabilities(row, begin, end, max_, p);
    double mass = upTo[b];
    int64_t last = 0;
    for (int64_t j = 0; j < end - begin; j++) {
      if (!(p[j] > 0)) continue;
      last = j;
      mass += double(p[j]);
      if (mass > wanted) break;
    }
    return int32_t(begin + last);
  }

 private:
  struct Block {
    int64_t begin, end;
    float max, mass;
  };
  Scratch scratch_;
  Block* blocks_ = nullptr;
  int64_t count_ = 0;
  float max_ = 0;
};

// ---- Top k and top p ----

struct Candidate {
  float x;
  int32_t id;
};
// The top of a heap in this order is the most likely token, of equals the one with the lowest id.
bool lessLikely(const Candidate& a, const Candidate& b) { return a.x < b.x || (a.x == b.x && a.id > b.id); }

// Takes candidates in order, only as far as they are asked for.
class Queue {
 public:
  explicit Queue(int64_t most) : heap_(scratch_.get<Candidate>(most)) {}
  void add(float x, int64_t id) { heap_[count_++] = {x, int32_t(id)}; }
  void order() { std::make_heap(heap_, heap_ + count_, lessLikely); }
  bool empty() const { return count_ == 0; }
  Candidate take() {
    std::pop_heap(heap_, heap_ + count_, lessLikely);
    return heap_[--count_];
  }

 private:
  Scratch scratch_;
  Candidate* heap_;
  int64_t count_ = 0;
};

// Adds to the queue what may be among the topK most likely tokens: all that reaches the topK-th largest of
// the maxima of short blocks, which at least topK entries do; every finite x where there are too few blocks.
void addCandidates(const float* x, int64_t columns, int64_t topK, Queue& queue) {
  static constexpr int64_t kShort = 64;
  const LogitRow<float> row{x, 1.0f};
  const int64_t blocks = (columns + kShort - 1) / kShort;
  Scratch scratch;
  float* maxima = scratch.get<float>(blocks);
  float* order = scratch.get<float>(blocks);
  for (int64_t b = 0; b < blocks; b++)
    maxima[b] = order[b] = maximum(row, b * kShort, std::min(columns, (b + 1) * kShort));
  float least = kMinusInfinity;
  if (topK <= blocks) {
    std::nth_element(order, order + (topK - 1), order + blocks, [](float a, float b) { return a > b; });
    least = order[topK - 1];
  }
  for (int64_t b = 0; b < blocks; b++) {
    if (maxima[b] < least) continue;
    const int64_t end = std::min(columns, (b + 1) * kShort);
    for (int64_t j = b * kShort; j < end; j++)
      if (x[j] >= least && x[j] > kMinusInfinity) queue.add(x[j], j);
  }
}

// Puts -infinity in place of every x outside the topK most likely tokens and, of the distribution that those
// make, outside the smallest set of most likely tokens with a mass of topP or more.
void keepTopK(float* x, int64_t columns, int64_t topK, double topP, float lse) {
  Queue queue(columns);
  addCandidates(x, columns, topK, queue);
  queue.order();
  Scratch scratch;
  Candidate* kept = scratch.get<Candidate>(topK);
  int64_t count = 0;
  double mass = 0;
  while (count < topK && !queue.empty()) {
    kept[count] = queue.take();
    mass += double(expOne(kept[count++].x - lse));
  }
  if (topP < 1) {
    double sum = 0;
    int64_t taken = 0;
    while (taken < count && !(taken > 0 && sum >= topP * mass)) sum += double(expOne(kept[taken++].x - lse));
    count = taken;
  }
  for (int64_t j = 0; j < columns; j++) x[j] = kMinusInfinity;
  for (int64_t i = 0; i < count; i++) x[kept[i].id] = kept[i].x;
}

// The same for topP alone. Mass is gathered by bins of the bits of p (sixteen to a power of two): bins above
// the one in which topP is reached are kept whole, and only that one is put in order.
void keepTopP(float* x, int64_t columns, double topP, float lse) {
  static constexpr int kShift = 19;
  static constexpr int kBins = 0x40000000 >> kShift;  // p < 2; the last bin takes what rounding puts beyond
  const LogitRow<float> row{x, 1.0f};
  Scratch scratch;
  float* p = scratch.get<float>(columns);
  double* bins = scratch.get<double>(kBins);
  std::memset(bins, 0, kBins * sizeof(double));
  const auto binOf = [](float value) { return std::min(int(bitsOf(value) >> kShift), kBins - 1); };
  double mass = 0;
  for (int64_t begin = 0; begin < columns; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, columns);
    mass += double(probabilities(row, begin, end, lse, p + begin));
    for (int64_t j = begin; j < end; j++) bins[binOf(p[j])] += double(p[j]);
  }
  double sum = 0;
  int edge = kBins - 1;
  while (edge > 0 && sum + bins[edge] < topP * mass) sum += bins[edge--];
  Queue queue(columns);
  for (int64_t j = 0; j < columns; j++) {
    const int bin = binOf(p[j]);
    if (bin == edge && p[j] > 0) queue.add(x[j], j);
    if (bin <= edge) x[j] = kMinusInfinity;
  }
  queue.order();
  for (bool any = sum > 0; !queue.empty() && !(any && sum >= topP * mass); any = true) {
    const Candidate next = queue.take();
    x[next.id] = next.x;
    sum += double(p[next.id]);
  }
}

// ---- One row ----

struct Draw {
  int32_t id;
  float logprob;
};

double uniformOf(const SampleArgs& args, int64_t i) {
  const int32_t* key = args.keys + 4 * i;
  const auto bits =
      philox(uint32_t(key[0]), uint32_t(key[1]), uint32_t(key[2]), 0, args.seedLow, args.seedHigh);
  return uniform53(bits.word[0], bits.word[1]);
}

template <class Row>
Draw greedy(const Row& row, int64_t columns, float lse) {
  const float best = maximum(row, 0, columns);
  int64_t j = 0;
  while (j + kBlock < columns && maximum(row, j, j + kBlock) != best) j += kBlock;
  while (row.one(j) != best) j++;
  return {int32_t(j), best - lse};
}

template <class Row>
Draw drawFrom(const Row& row, const SampleArgs& args, double u) {
  Masses masses;
  const float lse = logsOf(masses.sum(row, args.columns, args.chunk)).lse;
  if (!std::isfinite(lse)) return {0, lse};
  const int32_t id = masses.invert(row, u);
  return {id, row.one(id) - lse};
}

// A log-prob that is not finite where the row has no distribution.
template <class Row>
Draw draw(const Row& row, const SampleArgs& args, double u) {
  const int64_t columns = args.columns;
  if (args.temperature != 0 && args.topP == 1 && (args.topK == 0 || args.topK >= columns))
    return drawFrom(row, args, u);
  const float lse = logsOf(sumRow<false>(row, columns, args.chunk)).lse;
  if (!std::isfinite(lse)) return {0, lse};
  if (args.temperature == 0) return greedy(row, columns, lse);
  Scratch scratch;
  float* x = scratch.get<float>(columns);
  writeLogprobs(row, columns, 0.0f, x, false);
  if (args.topK > 0 && args.topK < columns)
    keepTopK(x, columns, args.topK, args.topP, lse);
  else
    keepTopP(x, columns, args.topP, lse);
  return drawFrom(LogitRow<float, float, true>{x, 1.0f}, args, u);
}

}  // namespace

void rolloutSample(const SampleArgs& args, Workers& workers) {
  std::atomic<int64_t> firstBad{args.rows};
  workers.parallelFor(args.rows, rowGrain(args.columns), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      using T = decltype(type);
      const bool isGreedy = args.temperature == 0;
      for (int64_t i = begin; i < end; i++) {
        Draw result{0, 0.0f};
        if (args.keys[4 * i + 3] >= 0) {
          const LogitRow<T> row{static_cast<const T*>(args.logits) + i * args.columns,
                                isGreedy ? 1.0f : args.temperature};
          result = draw(row, args, uniformOf(args, i));
          if (!std::isfinite(result.logprob)) {
            int64_t known = firstBad.load();
            while (i < known && !firstBad.compare_exchange_weak(known, i)) {
            }
          }
        }
        args.ids[i] = result.id;
        args.logprobs[i] = result.logprob;
      }
    });
  });
  const int64_t bad = firstBad.load();
  if (bad < args.rows) {
    throw DeviceError("expected logits below infinity, one of them at least finite, got row " +
                      std::to_string(bad) + " with NaN, infinity or nothing finite");
  }
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutSample(Registry& registry) {
  registry.add<SampleArgs>(Family::rollout, ISA_VARIANTS(rolloutSample));
}
}  // namespace isopolicy

#endif
