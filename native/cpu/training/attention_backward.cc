// The gradient of training attention, as a flash backward with 16-bit operands computes it:
//   P = exp(scale q k - lse),  D = sum of dOut * out,  dS = P (dOut v - D),
//   dV = P16^T dOut,  dK = scale dS16^T Q,  dQ = scale dS16 K
// with P16 and dS16 the 16-bit roundings of P and dS, all sums in fp32, one rounding at the end.
//
// A piece of work is one sequence and one key head. Key tiles come in order, within them the query heads of
// the group and the blocks of queries, so every gradient is one sum in a fixed order.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_KERNELS "cpu/training/attention_backward.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_tile.h"

namespace isopolicy::ISA_PASS {

static constexpr int kTileKeys = 64;
static constexpr int kBlockQueries = 64;

template <class T>
class SequenceGradient {
 public:
  SequenceGradient(Scratch& scratch, const AttentionBackwardArgs& args, int longest)
      : args_(args),
        shape_(args.shape),
        group_(args.shape.group()),
        headDim_(args.shape.headDim),
        stride_(roundUp16(args.shape.headDim)),
        tokenStride_(int64_t(args.shape.heads()) * args.shape.headDim),
        outStride_(int64_t(args.shape.numHeads) * args.shape.headDim) {
    const int64_t rows = int64_t(longest) * group_;
    dQ_ = scratch.get<float>(rows * stride_);
    dots_ = scratch.get<float>(rows);
    keys_ = scratch.get<float>(kTileKeys * stride_);
    keyGroups_ = scratch.get<float>(kTileKeys * stride_);
    valueGroups_ = scratch.get<float>(kTileKeys * stride_);
    dK_ = scratch.get<float>(kTileKeys * stride_);
    dV_ = scratch.get<float>(kTileKeys * stride_);
    queries_ = scratch.get<float>(kBlockQueries * stride_);
    dOut_ = scratch.get<float>(kBlockQueries * stride_);
    p_ = scratch.get<float>(kBlockQueries * kTileKeys);
    dS_ = scratch.get<float>(kBlockQueries * kTileKeys);
  }

  void run(int64_t first, int length, int64_t kvHead) {
    const T* qkv = static_cast<const T*>(args_.qkv) + first * tokenStride_;
    T* dqkv = static_cast<T*>(args_.dqkv) + first * tokenStride_;
    const int64_t queryAt = kvHead * group_ * headDim_;
    const int64_t keyAt = (shape_.numHeads + kvHead) * headDim_;
    const int64_t valueAt = keyAt + int64_t(shape_.numKvHeads) * headDim_;
    const T* dOut = static_cast<const T*>(args_.dOut) + first * outStride_ + queryAt;
    const T* out = static_cast<const T*>(args_.out) + first * outStride_ + queryAt;
    const float* lse = args_.lse + kvHead * group_ * shape_.tokens + first;

    std::memset(dQ_, 0, size_t(group_) * size_t(length) * size_t(stride_) * 4);
    for (int h = 0; h < group_; h++)
      for (int t = 0; t < length; t++)
        dots_[h * length + t] =
            dot(dOut + t * outStride_ + h * headDim_, out + t * outStride_ + h * headDim_);

    for (int tile = 0; tile < length; tile += kTileKeys) {
      const int keys = std::min(kTileKeys, length - tile);
      loadTile(qkv + tile * tokenStride_ + keyAt, qkv + tile * tokenStride_ + valueAt, keys);
      for (int h = 0; h < group_; h++)
        for (int begin = tile; begin < length; begin += kBlockQueries) {
          const int rows = std::min(kBlockQueries, length - begin);
          for (int i = 0; i < rows; i++) {
            widenRow(qkv + (begin + i) * tokenStride_ + queryAt + h * headDim_, headDim_,
                     queries_ + i * stride_);
            widenRow(dOut + (begin + i) * outStride_ + h * headDim_, headDim_, dOut_ + i * stride_);
          }
          const int64_t row = int64_t(h) * length + begin;
          scoreRows(rows, begin - tile, keys, lse + h * shape_.tokens + begin, dots_ + row);
          addToQueries(rows, begin - tile, keys, dQ_ + row * stride_);
          addToKeys(rows, begin - tile, keys);
        }
      const Vec scale = splat(args_.scale);
      for (int j = 0; j < keys; j++) {
        T* to = dqkv + (tile + j) * tokenStride_;
        storeRow(dK_ + j * stride_, headDim_, to + keyAt, [&](Vec x) { return x * scale; });
        storeRow(dV_ + j * stride_, headDim_, to + valueAt, [&](Vec x) { return x; });
      }
    }
    const Vec scale = splat(args_.scale);
    for (int h = 0; h < group_; h++)
      for (int t = 0; t < length; t++)
        storeRow(dQ_ + (int64_t(h) * length + t) * stride_, headDim_,
                 dqkv + t * tokenStride_ + queryAt + h * headDim_, [&](Vec x) { return x * scale; });
  }

 private:
  float dot(const T* a, const T* b) const {
    Vec sum = zero();
    int d = 0;
    for (; d + 16 <= headDim_; d += 16) sum = fma(load(a + d), load(b + d), sum);
    if (d < headDim_) sum = fma(loadPartial(a + d, headDim_ - d), loadPartial(b + d, headDim_ - d), sum);
    return reduceAdd(sum);
  }

  void loadTile(const T* keys, const T* values, int count) {
    for (int j = 0; j < count; j++) widenRow(keys + j * tokenStride_, headDim_, keys_ + j * stride_);
    for (int j = 0; j < count; j += 16) {
      const int n = std::min(16, count - j);
      widenTransposed(keys + j * tokenStride_, tokenStride_, n, headDim_, keyGroups_ + j * stride_);
      widenTransposed(values + j * tokenStride_, tokenStride_, n, headDim_, valueGroups_ + j * stride_);
    }
    for (int g = 0; g < kTileKeys / 16; g++) {
      keyPointers_[g] = keyGroups_ + g * 16 * stride_;
      valuePointers_[g] = valueGroups_ + g * 16 * stride_;
    }
    std::memset(dK_, 0, size_t(count * stride_) * 4);
    std::memset(dV_, 0, size_t(count * stride_) * 4);
  }

  // Keys of the tile that row i of the block sees, where the block begins `offset` tokens after the tile.
  static int seen(int i, int offset, int keys) { return std::min(keys, offset + i + 1); }

  // P and dS of every pair; what lies above the diagonal is computed and never read.
  void scoreRows(int rows, int offset, int keys, const float* lse, const float* dots) {
    int i = 0;
    for (; i + 4 <= rows; i += 4) scoreBlock<4>(i, offset, keys, lse, dots);
    for (; i < rows; i++) scoreBlock<1>(i, offset, keys, lse, dots);
  }

  template <int R>
  void scoreBlock(int i, int offset, int keys, const float* lse, const float* rowDots) {
    float* p = p_ + i * kTileKeys;
    float* dS = dS_ + i * kTileKeys;
    const int groups = roundUp16(seen(i + R - 1, offset, keys)) / 16;
    dots<R>(queries_ + i * stride_, stride_, keyPointers_, groups, headDim_, p, kTileKeys);
    dots<R>(dOut_ + i * stride_, stride_, valuePointers_, groups, headDim_, dS, kTileKeys);
    for (int r = 0; r < R; r++) {
      const Vec rowLse = splat(lse[i + r]);
      const Vec rowDot = splat(rowDots[i + r]);
      for (int j = r * kTileKeys; j < r * kTileKeys + groups * 16; j += 16) {
        const Vec x = exp(load(p + j) * splat(args_.scale) - rowLse);
        store(p + j, roundThrough<T>(x));
        store(dS + j, roundThrough<T>(x * (load(dS + j) - rowDot)));
      }
    }
  }

  void addToQueries(int rows, int offset, int keys, float* dQ) {
    const DenseRows<float> from{keys_, stride_};
    const int vectors = stride_ / 16;
    auto add = [&](auto count, int i, int begin, int end) {
      accumulate<decltype(count)::value>(dQ + i * stride_, stride_, nullptr,
                                         Weights<float>{dS_ + i * kTileKeys, kTileKeys, 1}, from, vectors,
                                         begin, end);
    };
    int i = 0;
    for (; i + 4 <= rows; i += 4) {
      const int common = seen(i, offset, keys);
      add(std::integral_constant<int, 4>(), i, 0, common);
      for (int r = 1; r < 4; r++) {
        const int end = seen(i + r, offset, keys);
        if (end > common) add(std::integral_constant<int, 1>(), i + r, common, end);
      }
    }
    for (; i < rows; i++) add(std::integral_constant<int, 1>(), i, 0, seen(i, offset, keys));
  }

  void addToKeys(int rows, int offset, int keys) {
    // The first row of the block that sees key j.
    auto firstRow = [&](int j) { return std::max(0, std::min(rows, j - offset)); };
    const int vectors = stride_ / 16;
    auto add = [&](auto count, int j, int begin, int end) {
      constexpr int R = decltype(count)::value;
      accumulate<R>(dV_ + j * stride_, stride_, nullptr, Weights<float>{p_ + j, 1, kTileKeys},
                    DenseRows<float>{dOut_, stride_}, vectors, begin, end);
      accumulate<R>(dK_ + j * stride_, stride_, nullptr, Weights<float>{dS_ + j, 1, kTileKeys},
                    DenseRows<float>{queries_, stride_}, vectors, begin, end);
    };
    int j = 0;
    for (; j + 4 <= keys; j += 4) {
      const int common = firstRow(j + 3);
      for (int r = 0; r < 3; r++) {
        const int begin = firstRow(j + r);
        if (begin < common) add(std::integral_constant<int, 1>(), j + r, begin, common);
      }
      if (common < rows) add(std::integral_constant<int, 4>(), j, common, rows);
    }
    for (; j < keys; j++) add(std::integral_constant<int, 1>(), j, firstRow(j), rows);
  }

  const AttentionBackwardArgs& args_;
  const AttentionShape& shape_;
  const int group_, headDim_, stride_;
  const int64_t tokenStride_, outStride_;
  float* dQ_;    // [group][length][stride]
  float* dots_;  // [group][length]: D
  float* keys_;  // [kTileKeys][stride]
  float* keyGroups_;
  float* valueGroups_;
  float* dK_;
  float* dV_;
  float* queries_;  // [kBlockQueries][stride]
  float* dOut_;
  float* p_;  // [kBlockQueries][kTileKeys]
  float* dS_;
  const float* keyPointers_[kTileKeys / 16];
  const float* valuePointers_[kTileKeys / 16];
};

void trainingAttentionBackward(const AttentionBackwardArgs& args, Workers& workers) {
  const AttentionShape& shape = args.shape;
  checkSequences(args.cuSeqlens, args.sequences, shape.tokens);
  int longest = 0;
  double pairs = 0;
  for (int64_t s = 0; s < args.sequences; s++) {
    const int length = args.cuSeqlens[s + 1] - args.cuSeqlens[s];
    longest = std::max(longest, length);
    pairs += 0.5 * length * length;
  }
  const int64_t pieces = args.sequences * shape.numKvHeads;
  const int64_t grain = attentionGrain(shape, pieces, pairs, double(shape.tokens), 5);
  workers.parallelFor(pieces, grain, [&](int64_t begin, int64_t end) {
    dispatchFloat(shape.dtype, [&](auto t) {
      Scratch scratch;
      SequenceGradient<decltype(t)> gradient(scratch, args, longest);
      for (int64_t piece = begin; piece < end; piece++) {
        const int64_t s = piece / shape.numKvHeads;
        const int length = args.cuSeqlens[s + 1] - args.cuSeqlens[s];
        if (length > 0) gradient.run(args.cuSeqlens[s], length, piece % shape.numKvHeads);
      }
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingAttentionBackward(Registry& registry) {
  registry.add<AttentionBackwardArgs>(Family::training, Device::cpu, ISA_VARIANTS(trainingAttentionBackward));
}
}  // namespace isopolicy

#endif
