// Backward of training attention: one sequence and one key head are a piece of work,
// shared/attention_gradient.h has the arithmetic.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_PRODUCTS
#define ISA_KERNELS "cpu/training/attention_backward.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_gradient.h"

namespace isopolicy::ISA_PASS {

template <class T>
class SequenceGradient {
 public:
  using F = Form<T>;
  // What a block of queries adds up in wide vectors should stay in the first-level cache; pairs and tiles
  // rather have fewer loads and stores of their sums.
  static constexpr int kTileKeys = F::kPairs ? 128 : 64;
  static constexpr int kBlockQueries = F::kPairs ? 128 : 64;
  // Queries whose probabilities are found at once: wide ones of the whole block, since they replace the
  // scores. On the diagonal, where the later of the keys are masked, they are few.
  static constexpr int kFewQueries = F::kPairs ? 32 : kBlockQueries;
  static constexpr int kFewOnDiagonal = 32;

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
        block_(scratch, std::min(kBlockQueries, int(rowsOfHead_)), std::min(kFewQueries, int(rowsOfHead_)),
               tileKeys_) {
    dQ_ = scratch.get<float>(group_ * rowsOfHead_ * stride_);
    lse_ = scratch.get<float>(group_ * rowsOfHead_);
    dots_ = scratch.get<float>(group_ * rowsOfHead_);
    dK_ = scratch.get<float>(tileKeys_ * stride_);
    dV_ = scratch.get<float>(tileKeys_ * stride_);
  }

  struct Piece {
    int64_t first;
    int length;
    int64_t kvHead;
  };

  void run(const Piece& self, const Piece& next) {
    const Rows at = rowsOf(self);
    for (int h = 0; h < group_; h++) readHead(at, self.length, h);
    for (int begin = 0; begin < self.length; begin += tileKeys_) {
      const int keys = std::min(tileKeys_, self.length - begin);
      const int64_t from = begin * tokenStride_;
      tile_.fill(at.keys + from, at.values + from, tokenStride_, keys);
      if constexpr (!F::kTiles) {
        std::memset(dK_, 0, size_t(tileKeys_ * stride_) * 4);
        std::memset(dV_, 0, size_t(tileKeys_ * stride_) * 4);
      }
      lookAhead(at, begin, keys, self.length, next);
      for (int h = 0; h < group_; h++) addHead(h, begin, keys, self.length);
      storeColumns(dK_, keys, args_.scale, at.dKeys + from);
      storeColumns(dV_, keys, 1.0f, at.dValues + from);
      // No later key has to do with these queries.
      for (int h = 0; h < group_; h++) storeQueries(h, begin, keys, at.dQueries + h * headDim_);
    }
  }

 private:
  // Where the rows of a piece begin: those of qkv and dqkv are tokenStride_ apart, the others outStride_.
  struct Rows {
    const T *queries, *keys, *values, *dOut, *out;
    T *dQueries, *dKeys, *dValues;
    const float* lse;
  };

  Rows rowsOf(const Piece& piece) const {
    const int64_t head = piece.kvHead * group_;
    const T* qkv = static_cast<const T*>(args_.qkv) + piece.first * tokenStride_;
    T* dqkv = static_cast<T*>(args_.dqkv) + piece.first * tokenStride_;
    const int64_t queryAt = head * headDim_;
    const int64_t keyAt = (shape_.numHeads + piece.kvHead) * headDim_;
    const int64_t valueAt = keyAt + int64_t(shape_.numKvHeads) * headDim_;
    const int64_t outAt = piece.first * outStride_ + queryAt;
    return {qkv + queryAt,
            qkv + keyAt,
            qkv + valueAt,
            static_cast<const T*>(args_.dOut) + outAt,
            static_cast<const T*>(args_.out) + outAt,
            dqkv + queryAt,
            dqkv + keyAt,
            dqkv + valueAt,
            args_.lse + head * shape_.tokens + piece.first};
  }

  // Query head h of the group: packs its rows, clears its dQ.
  void readHead(const Rows& at, int length, int h) {
    const T* queries = at.queries + h * headDim_;
    const T* dOut = at.dOut + h * headDim_;
    const T* out = at.out + h * headDim_;
    const float* lse = at.lse + h * shape_.tokens;
    const int64_t row = h * rowsOfHead_;
    for (int begin = 0; begin < length; begin += 32) {
      const int n = std::min(32, length - begin);
      const int ahead = std::min(32, length - begin - n);
      queries_.fill(row + begin, queries + begin * tokenStride_, tokenStride_, n, ahead);
      dOut_.fill(row + begin, dOut + begin * outStride_, outStride_, n, ahead);
      for (int t = begin; t < begin + n; t++) {
        if (t < begin + ahead) prefetchRow(out + (t + 32) * outStride_, rowBytes());
        lse_[row + t] = lse[t] * kLog2E;
        dots_[row + t] = dot(dOut + t * outStride_, out + t * outStride_);
      }
    }
    if constexpr (!F::kTiles) std::memset(dQ_ + row * stride_, 0, size_t(length) * size_t(stride_) * 4);
  }

  int64_t rowBytes() const { return headDim_ * int64_t(sizeof(T)); }

  // What is to be written after this tile of keys, and what is to be read after that: the keys of the next
  // tile, or what the next piece begins with.
  void lookAhead(const Rows& at, int begin, int keys, int length, const Piece& next) {
    const int64_t tokenBytes = tokenStride_ * int64_t(sizeof(T)), outBytes = outStride_ * int64_t(sizeof(T));
    const auto add = [&](const T* rows, int64_t stride, int first, int count, int heads) {
      ahead_.add(reinterpret_cast<const char*>(rows) + first * stride, stride, count, rowBytes() * heads);
    };
    add(at.dKeys, tokenBytes, begin, keys, 1);
    add(at.dValues, tokenBytes, begin, keys, 1);
    add(at.dQueries, tokenBytes, begin, keys, group_);
    const bool last = begin + keys == length;
    const Rows then = last ? rowsOf(next) : at;
    const int first = last ? 0 : begin + keys;
    const int end = last ? next.length : length;
    if (last) {
      const int rows = std::min(32, next.length);
      add(then.queries, tokenBytes, 0, rows, 1);
      add(then.dOut, outBytes, 0, rows, 1);
      add(then.out, outBytes, 0, rows, 1);
    }
    add(then.keys, tokenBytes, first, std::min(tileKeys_, end - first), 1);
    add(then.values, tokenBytes, first, std::min(tileKeys_, end - first), 1);
    // Every 32 queries take 16 turns for their probabilities, tiles some more for their products.
    const int products = F::kTiles ? keys / 16 + stride_ / 32 : 0;
    ahead_.spread(int64_t(group_) * (length - begin) / 32 * (16 + products));
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
    for (int query = begin; query < length;) {
      const bool diagonal = query < begin + keys;
      const int few = diagonal ? kFewOnDiagonal : kFewQueries;
      const int rows = std::min(F::kTiles || !diagonal ? kBlockQueries : few, length - query);
      int seen = 0;
      for (int r = 0; r < rows; r += few) {
        const int n = std::min(few, rows - r);
        seen = std::min(keys, query + r + n - begin);
        addQueries(h, query + r, r, n, begin, keys, seen);
      }
      // Tiles take the whole block at once on the diagonal, too: there it begins with the first key.
      const int64_t row = h * rowsOfHead_ + query;
      const bool lower = F::kTiles && diagonal, fresh = lower && h == 0;
      const int groups = roundUp16(seen) / 16;
      multiplyAdd(dOut_.columns(row), block_.p(), stride_, groups, rows, fresh, lower, dV_, tileKeys_,
                  ahead_);
      multiplyAdd(queries_.columns(row), block_.dS(), stride_, groups, rows, fresh, lower, dK_, tileKeys_,
                  ahead_);
      query += rows;
    }
  }

  // P, dS and dQ of queries query .. query + n - 1, which are rows r .. r + n - 1 of the block and see `seen`
  // keys of the tile at most.
  void addQueries(int h, int query, int r, int n, int begin, int keys, int seen) {
    const int64_t row = h * rowsOfHead_ + query;
    const int groups = roundUp16(seen) / 16;
    multiplyGroups(queries_.rows(row), tile_.keys(), groups, n, headDim_, block_.scores, tileKeys_, ahead_);
    multiplyGroups(dOut_.rows(row), tile_.values(), groups, n, headDim_, block_.dots, tileKeys_, ahead_);
    block_.fill(r, n, groups * 16, keys, query - begin + 1, args_.scale * kLog2E, lse_ + row, dots_ + row,
                ahead_);
    multiplyAdd(block_.dSRows(), tile_.rows(), n, stride_ / 16, seen, begin == 0, false, dQ_ + row * stride_,
                stride_, ahead_);
  }

  void storeQueries(int h, int begin, int count, T* out) const {
    const Vec scale = splat(args_.scale);
    for (int t = begin; t < begin + count; t++)
      storeRow(dQ_ + (h * rowsOfHead_ + t) * stride_, headDim_, out + t * tokenStride_,
               [&](Vec x) { return x * scale; });
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
  RowsAhead ahead_;
};

void trainingAttentionBackward(const AttentionBackwardArgs& args, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(args.shape.dtype, trainingAttentionBackward(args, workers));
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
    dispatchOwn(shape.dtype, [&](auto t) {
      Scratch scratch;
      const RowTiles<decltype(t)> tiles(16);
      SequenceGradient<decltype(t)> gradient(scratch, args, longest);
      const auto pieceAt = [&](int64_t i) {
        const int64_t s = i / shape.numKvHeads;
        return typename SequenceGradient<decltype(t)>::Piece{
            args.cuSeqlens[s], args.cuSeqlens[s + 1] - args.cuSeqlens[s], i % shape.numKvHeads};
      };
      for (int64_t i = begin; i < end; i++) gradient.run(pieceAt(i), pieceAt(std::min(i + 1, end - 1)));
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingAttentionBackward(Registry& registry) {
  registry.add<AttentionBackwardArgs>(Family::training, ISA_VARIANTS(trainingAttentionBackward));
}
}  // namespace isopolicy

#endif
