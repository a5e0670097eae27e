// Backward of training attention: one sequence and one key head are a piece of work,
// shared/attention_gradient.h has the arithmetic.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_TILES
#define ISA_KERNELS "cpu/training/attention_backward.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_gradient.h"

namespace isopolicy::ISA_PASS {

template <class T>
class SequenceGradient {
 public:
  using F = Form<T>;
  // What a block of queries adds up in vectors should stay in the first-level cache; AMX rather has fewer
  // loads and stores of its sums.
  static constexpr int kTileKeys = F::kTiles ? 128 : 64;
  static constexpr int kBlockQueries = F::kTiles ? 128 : 64;

  SequenceGradient(Scratch& scratch, const AttentionBackwardArgs& args, int longest)
      : args_(args),
        shape_(args.shape),
        group_(args.shape.group()),
        headDim_(args.shape.headDim),
        stride_(roundUp16(args.shape.headDim)),
        tokenStride_(int64_t(args.shape.heads()) * args.shape.headDim),
        outStride_(int64_t(args.shape.numHeads) * args.shape.headDim),
        rowsOfHead_(roundUp(longest, 32)),
        queries_(scratch, headDim_, group_ * rowsOfHead_),
        dOut_(scratch, headDim_, group_ * rowsOfHead_),
        tileKeys_(std::min(kTileKeys, int(rowsOfHead_))),
        tile_(scratch, headDim_, tileKeys_),
        block_(scratch, std::min(kBlockQueries, int(rowsOfHead_)), tileKeys_) {
    dQ_ = scratch.get<float>(group_ * rowsOfHead_ * stride_);
    lse_ = scratch.get<float>(group_ * rowsOfHead_);
    dots_ = scratch.get<float>(group_ * rowsOfHead_);
    dK_ = scratch.get<float>(tileKeys_ * stride_);
    dV_ = scratch.get<float>(tileKeys_ * stride_);
  }

  void run(int64_t first, int length, int64_t kvHead) {
    const T* qkv = static_cast<const T*>(args_.qkv) + first * tokenStride_;
    T* dqkv = static_cast<T*>(args_.dqkv) + first * tokenStride_;
    const int64_t queryAt = kvHead * group_ * headDim_;
    const int64_t keyAt = (shape_.numHeads + kvHead) * headDim_;
    const int64_t valueAt = keyAt + int64_t(shape_.numKvHeads) * headDim_;
    for (int h = 0; h < group_; h++)
      readHead(qkv + queryAt + h * headDim_, first, length, kvHead * group_ + h, h);

    for (int begin = 0; begin < length; begin += tileKeys_) {
      const int keys = std::min(tileKeys_, length - begin);
      tile_.fill(qkv + begin * tokenStride_ + keyAt, qkv + begin * tokenStride_ + valueAt, tokenStride_,
                 keys);
      std::memset(dK_, 0, size_t(tileKeys_ * stride_) * 4);
      std::memset(dV_, 0, size_t(tileKeys_ * stride_) * 4);
      for (int h = 0; h < group_; h++) addHead(h, begin, keys, length);
      T* out = dqkv + begin * tokenStride_;
      storeColumns(dK_, keys, args_.scale, out + keyAt);
      storeColumns(dV_, keys, 1.0f, out + valueAt);
    }
    const Vec scale = splat(args_.scale);
    for (int h = 0; h < group_; h++)
      for (int t = 0; t < length; t++)
        storeRow(dQ_ + (h * rowsOfHead_ + t) * stride_, headDim_,
                 dqkv + t * tokenStride_ + queryAt + h * headDim_, [&](Vec x) { return x * scale; });
  }

 private:
  // Query head h of the group, which is `head` of all: packs its rows, clears its dQ.
  void readHead(const T* queries, int64_t first, int length, int64_t head, int h) {
    const T* dOut = static_cast<const T*>(args_.dOut) + first * outStride_ + head * headDim_;
    const T* out = static_cast<const T*>(args_.out) + first * outStride_ + head * headDim_;
    const float* lse = args_.lse + head * shape_.tokens + first;
    const int64_t row = h * rowsOfHead_;
    queries_.fill(row, queries, tokenStride_, length);
    dOut_.fill(row, dOut, outStride_, length);
    for (int t = 0; t < length; t++) {
      lse_[row + t] = lse[t] * kLog2E;
      dots_[row + t] = dot(dOut + t * outStride_, out + t * outStride_);
    }
    if constexpr (!F::kTiles) std::memset(dQ_ + row * stride_, 0, size_t(length) * size_t(stride_) * 4);
  }

  float dot(const T* a, const T* b) const {
    Vec sum = zero();
    int d = 0;
    for (; d + 16 <= headDim_; d += 16) sum = fma(load(a + d), load(b + d), sum);
    if (d < headDim_) sum = fma(loadPartial(a + d, headDim_ - d), loadPartial(b + d, headDim_ - d), sum);
    return reduceAdd(sum);
  }

  // What the queries of head h have to do with keys begin .. begin + keys - 1.
  void addHead(int h, int begin, int keys, int length) {
    for (int query = begin, rows; query < length; query += rows) {
      // On the diagonal, where the later of the keys are masked, blocks are small.
      rows = std::min(query < begin + tileKeys_ ? 32 : kBlockQueries, length - query);
      const int64_t row = h * rowsOfHead_ + query;
      const int seen = std::min(keys, query + rows - begin);
      const int groups = roundUp16(seen) / 16;
      multiplyGroups(queries_.rows(row), tile_.keys(), groups, rows, headDim_, block_.scores, tileKeys_);
      multiplyGroups(dOut_.rows(row), tile_.values(), groups, rows, headDim_, block_.dots, tileKeys_);
      block_.fill(rows, groups * 16, keys, query - begin + 1, args_.scale * kLog2E, lse_ + row, dots_ + row);
      multiplyAdd(block_.dSRows(), tile_.rows(), rows, stride_ / 16, seen, begin == 0, dQ_ + row * stride_,
                  stride_);
      multiplyAdd(dOut_.columns(row), block_.p(), stride_, groups, rows, false, dV_, tileKeys_);
      multiplyAdd(queries_.columns(row), block_.dS(), stride_, groups, rows, false, dK_, tileKeys_);
    }
  }

  // [headDim][tileKeys_] -> a row for each key, times `factor`.
  void storeColumns(const float* columns, int keys, float factor, T* out) const {
    for (int j = 0; j < keys; j += 16)
      for (int d = 0; d < headDim_; d += 16) {
        Vec x[16], rows[16];
        for (int i = 0; i < 16; i++) x[i] = load(columns + (d + i) * tileKeys_ + j) * splat(factor);
        transpose16(x, rows);
        for (int i = 0; i < std::min(16, keys - j); i++)
          storePartial(out + (j + i) * tokenStride_ + d, rows[i], headDim_ - d);
      }
  }

  const AttentionBackwardArgs& args_;
  const AttentionShape& shape_;
  const int group_, headDim_, stride_;
  const int64_t tokenStride_, outStride_;
  const int64_t rowsOfHead_;
  LeftRows<T> queries_, dOut_;  // [group][rowsOfHead]
  const int tileKeys_;
  KeyTile<T> tile_;
  ProbabilityBlock<T> block_;
  float* dQ_;    // [group][rowsOfHead][stride]
  float* lse_;   // [group][rowsOfHead], in base 2
  float* dots_;  // [group][rowsOfHead]: D
  float* dK_;    // [stride][tileKeys_]
  float* dV_;
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
      const RowTiles<decltype(t)> tiles(16);
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
