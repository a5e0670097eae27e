// Log-probs of chosen tokens straight from hidden states, and their gradient, without the logits ever being
// whole in memory: a block of rows times a block of the vocabulary at a time. The row arithmetic is that of
// log_softmax_row.h with its steps at the same columns, and an element of a product depends on nothing but
// its own row and column, so the results equal those of gemm followed by chosenLogprobs to the bit.
#include "cpu/shared/kernel.h"
#include "ops/gemm.h"
#include "ops/linear_logprob.h"
#define ISA_KERNELS "cpu/training/linear_logprob.cc"
#define ISA_PRODUCTS
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/rollout/gemm.h"
#include "cpu/shared/log_softmax_row.h"
#include "cpu/training/gemm.h"

namespace isopolicy::ISA_PASS {
namespace {

// A block of logits in the forward pass is at most this many elements and 16,384 columns: 4 MB. Of a small
// vocabulary a block has more rows, so that there are enough for the threads.
constexpr int64_t kBlockElements = int64_t(1) << 20;
constexpr int64_t kBlockRows = 256, kMostRows = 4096;
// Rows of a block of the backward pass: the gradient of the weight goes by once a block.
constexpr int64_t kBackwardRows = 512;
constexpr int64_t kBlockColumns = 1024;  // of many short steps together
constexpr int64_t kMostColumns = 16384;  // of one long step: a multiple of kGroupColumns

// block[i][j] = hidden[i] . weight[firstColumn + j] in fp32.
void logitsBlock(const LogitsOf& p, const void* hidden, int64_t rows, int64_t firstColumn, int64_t columns,
                 float* block, Workers& workers) {
  GemmArgs gemm{};
  gemm.a = hidden;
  gemm.b = static_cast<const char*>(p.weight) + size_t(firstColumn * p.width) * bytesOf(p.dtype);
  gemm.c = block;
  gemm.m = rows;
  gemm.n = columns;
  gemm.k = p.width;
  gemm.lda = p.width;
  gemm.ldb = p.width;
  gemm.ldc = columns;
  gemm.transposeB = true;
  gemm.in = p.dtype;
  gemm.out = DType::float32;
  gemm.splitK = int(p.gemmSplitK);
  gemm.readSoon = true;
  if (p.gemmFamily == Family::rollout)
    rolloutGemm(gemm, workers);
  else
    trainingGemm(gemm, workers);
}

const void* hiddenRow(const LogitsOf& p, int64_t i) {
  return static_cast<const char*>(p.hidden) + size_t(i * p.width) * bytesOf(p.dtype);
}

// `rows`, fewer where their logits would be more than `elements`, or more where there are few columns and the
// hidden states are no larger than the logits may be.
int64_t blockRows(int64_t rows, int64_t elements, const LogitsOf& p, int64_t columns) {
  const int64_t fit = elements / std::max<int64_t>(columns, 1);
  const int64_t more = std::min({fit, elements / std::max<int64_t>(p.width, 1), kMostRows});
  return std::max<int64_t>(1, std::min(p.rows, std::max(std::min(rows, fit), more)));
}

// ---- Forward ----

template <class Round>
class ForwardBlock {
 public:
  ForwardBlock(const LinearLogprobArgs& args, Workers& workers) : args_(args), workers_(workers) {
    const LogitsOf& p = args.product;
    step_ = stepOf(args.chunk, p.columns);
    width_ = step_ <= kBlockColumns ? std::min(kBlockColumns / step_ * step_, p.columns)
                                    : std::min(step_, kMostColumns);
    blockRows_ = blockRows(kBlockRows, kBlockElements, args.product, width_);
    logits_ = scratch_.template get<float>(blockRows_ * width_);
    states_ = scratch_.template get<LogSum>(blockRows_);
    chosen_ = scratch_.template get<float>(blockRows_);
  }

  void run() {
    for (int64_t i = 0; i < args_.product.rows; i += blockRows_)
      rows(i, std::min(blockRows_, args_.product.rows - i));
  }

 private:
  void rows(int64_t first, int64_t count) {
    const LogitsOf& p = args_.product;
    for (int64_t i = 0; i < count; i++) states_[i] = LogSum{};
    if (width_ >= step_) {
      for (int64_t begin = 0; begin < p.columns; begin += width_)
        shortSteps(first, count, begin, std::min(begin + width_, p.columns));
    } else {
      for (int64_t begin = 0; begin < p.columns; begin += step_)
        longStep(first, count, begin, std::min(begin + step_, p.columns));
    }
    for (int64_t i = 0; i < count; i++) {
      const RowLogs logs = logsOf(states_[i]);
      args_.lse[first + i] = logs.lse;
      args_.entropy[first + i] = logs.entropy;
      args_.logprobs[first + i] = chosen_[i] - logs.lse;
    }
  }

  // Whole steps, as many as fit a block.
  void shortSteps(int64_t first, int64_t count, int64_t begin, int64_t end) {
    multiply(first, count, begin, end);
    eachRow(count, end - begin, [&](int64_t i, const auto& row) {
      for (int64_t at = 0; at < end - begin; at += step_) {
        addColumns<true>(states_[i], row, at, std::min(at + step_, end - begin));
        states_[i].endStep();
      }
      keepChosen(first, i, row, begin, end);
    });
  }

  // A step wider than a block, whose sum goes on from block to block: a block is whole groups of columns.
  void longStep(int64_t first, int64_t count, int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += width_) {
      const int64_t stop = std::min(at + width_, end);
      multiply(first, count, at, stop);
      eachRow(count, stop - at, [&](int64_t i, const auto& row) {
        addColumns<true>(states_[i], row, 0, stop - at);
        keepChosen(first, i, row, at, stop);
      });
    }
    for (int64_t i = 0; i < count; i++) states_[i].endStep();
  }

  void multiply(int64_t first, int64_t count, int64_t begin, int64_t end) {
    logitsBlock(args_.product, hiddenRow(args_.product, first), count, begin, end - begin, logits_, workers_);
  }
  template <class Body>
  void eachRow(int64_t count, int64_t columns, Body body) {
    workers_.parallelFor(count, rowGrain(columns), [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; i++)
        body(i, LogitRow<float, Round>{logits_ + i * columns, args_.product.temperature});
    });
  }
  template <class Row>
  void keepChosen(int64_t first, int64_t i, const Row& row, int64_t begin, int64_t end) {
    const int64_t target = args_.product.targets[first + i];
    if (target >= begin && target < end) chosen_[i] = row.one(target - begin);
  }

  const LinearLogprobArgs& args_;
  Workers& workers_;
  Scratch scratch_;
  int64_t step_, width_, blockRows_;
  float* logits_;
  LogSum* states_;
  float* chosen_;
};

// ---- Backward ----

// dLogit_j = d (1[j = target] - exp(x_j - lse)) / temperature, stored in the training dtype.
template <class T, class Row>
void gradientRow(const Row& row, int64_t columns, float d, float lse, int64_t target, T* out) {
  const Vec minusD = splat(0.0f - d), l = splat(lse), divisor = splat(row.temperature);
  const bool scaled = row.temperature != 1.0f;
  eachVectors(columns, out, false, [&](int64_t j, auto lanes) {
    Vec x[lanes.count];
    if constexpr (lanes.count == kSide) {
      scaled ? row.template group<true>(j, x) : row.template group<false>(j, x);
    } else {
      lanes.get(row.logits + j, x);
      x[0] = row.prepared(x[0]);
    }
    for (int k = 0; k < lanes.count; k++) x[k] = expRangeFromBelow(min(splat(89.0f), x[k] - l));
    expInRange<lanes.count>(x);
    for (int k = 0; k < lanes.count; k++) x[k] = x[k] * minusD;
    if (scaled)
      for (int k = 0; k < lanes.count; k++) x[k] = x[k] / divisor;
    lanes.put(out + j, x);
  });
  if (target >= 0 && target < columns)
    fromFloat(d * (1.0f - expOne(row.one(target) - lse)) / row.temperature, out[target]);
}

template <class T, class Round>
void backward(const LinearLogprobBackwardArgs& args, Workers& workers) {
  const LogitsOf& p = args.product;
  const int64_t columns = std::min(p.columns, kBlockColumns);
  const int64_t most = blockRows(kBackwardRows, 2 * kBlockElements, p, columns);
  Scratch scratch;
  float* logits = scratch.get<float>(most * columns);
  T* dLogits = scratch.get<T>(most * columns);
  T* hidden = scratch.get<T>(most * p.width);
  float* dHidden = scratch.get<float>(most * p.width);
  int64_t* active = scratch.get<int64_t>(most);

  // Rows without a gradient are left out of the products altogether: not even a NaN of theirs counts.
  int64_t count = 0;
  const auto flush = [&] {
    for (int64_t i = 0; i < count; i++)
      std::memcpy(hidden + i * p.width, hiddenRow(p, active[i]), size_t(p.width) * sizeof(T));
    for (int64_t begin = 0; begin < p.columns; begin += columns) {
      const int64_t n = std::min(columns, p.columns - begin);
      logitsBlock(p, hidden, count, begin, n, logits, workers);
      workers.parallelFor(count, rowGrain(n), [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; i++) {
          const LogitRow<float, Round> row{logits + i * n, p.temperature};
          const int64_t r = active[i];
          gradientRow(row, n, args.dLogprobs[r], args.lse[r], p.targets[r] - begin, dLogits + i * n);
        }
      });

      GemmArgs toHidden{};  // dHidden += dLogits weight
      toHidden.a = dLogits;
      toHidden.b = static_cast<const T*>(p.weight) + begin * p.width;
      toHidden.c = dHidden;
      toHidden.m = count;
      toHidden.n = p.width;
      toHidden.k = n;
      toHidden.lda = n;
      toHidden.ldb = p.width;
      toHidden.ldc = p.width;
      toHidden.accumulate = begin > 0;
      toHidden.readSoon = true;
      toHidden.in = p.dtype;
      toHidden.out = DType::float32;
      trainingGemm(toHidden, workers);

      if (args.gradWeight == nullptr) continue;
      GemmArgs toWeight{};  // gradWeight += dLogits^T hidden
      toWeight.a = dLogits;
      toWeight.b = hidden;
      toWeight.c = args.gradWeight + begin * p.width;
      toWeight.m = n;
      toWeight.n = p.width;
      toWeight.k = count;
      toWeight.lda = n;
      toWeight.ldb = p.width;
      toWeight.ldc = p.width;
      toWeight.transposeA = true;
      toWeight.accumulate = true;
      toWeight.in = p.dtype;
      toWeight.out = DType::float32;
      trainingGemm(toWeight, workers);
    }
    for (int64_t i = 0; i < count; i++) {
      T* out = static_cast<T*>(args.dHidden) + active[i] * p.width;
      const float* sum = dHidden + i * p.width;
      int64_t j = 0;
      for (; j + kLanes <= p.width; j += kLanes) store(out + j, load(sum + j));
      if (j < p.width) storePartial(out + j, loadPartial(sum + j, int(p.width - j)), int(p.width - j));
    }
    count = 0;
  };

  for (int64_t i = 0; i < p.rows; i++) {
    if (args.dLogprobs[i] == 0.0f) {
      std::memset(static_cast<T*>(args.dHidden) + i * p.width, 0, size_t(p.width) * sizeof(T));
      continue;
    }
    active[count++] = i;
    if (count == most) flush();
  }
  if (count > 0) flush();
}

}  // namespace

void trainingLinearLogprob(const LinearLogprobArgs& args, Workers& workers) {
  const LogitsOf& p = args.product;
  ISA_BELOW_UNLESS_OWN(p.dtype, trainingLinearLogprob(args, workers));
  checkIds("targets", p.targets, p.rows, p.columns);
  if (!p.logits16) return ForwardBlock<float>(args, workers).run();
  dispatchOwn(p.dtype, [&](auto round) { ForwardBlock<decltype(round)>(args, workers).run(); });
}

void trainingLinearLogprobBackward(const LinearLogprobBackwardArgs& args, Workers& workers) {
  const LogitsOf& p = args.product;
  ISA_BELOW_UNLESS_OWN(p.dtype, trainingLinearLogprobBackward(args, workers));
  checkIds("targets", p.targets, p.rows, p.columns);
  dispatchOwn(p.dtype, [&](auto type) {
    using T = decltype(type);
    if (p.logits16)
      backward<T, T>(args, workers);
    else
      backward<T, float>(args, workers);
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingLinearLogprob(Registry& registry) {
  registry.add<LinearLogprobArgs>(Family::training, ISA_VARIANTS(trainingLinearLogprob));
  registry.add<LinearLogprobBackwardArgs>(Family::training, ISA_VARIANTS(trainingLinearLogprobBackward));
}
}  // namespace isopolicy

#endif
