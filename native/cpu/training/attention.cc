// Training attention: whole sequences from packed tokens. A piece of work is one block of query tokens of one
// sequence and one key head; its keys are widened and transposed strip by strip and serve every row of the
// block and every query head of the group. Strips above the diagonal are never touched.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_PRODUCTS
#define ISA_KERNELS "cpu/training/attention.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_row.h"

namespace isopolicy::ISA_PASS {

struct SequenceBlock {
  int32_t sequenceBegin;
  int32_t begin, end;  // query tokens, from the beginning of the sequence
};

template <class T>
static void attendSequenceBlocks(const AttentionArgs& args, const SequenceBlock* blocks, int maxTokens,
                                 int64_t begin, int64_t end) {
  const AttentionShape& shape = args.shape;
  const int group = shape.group();
  const int headDim = shape.headDim;
  const int64_t tokenStride = int64_t(shape.heads()) * headDim;
  Scratch scratch;
  const RowSettings settings{headDim, args.scale, args.chunk, args.tile};
  AttentionRows<T> rows(scratch, settings, int64_t(maxTokens) * group, stripKeys(settings));
  PackedStrip<T> strip(scratch, settings);
  const RowTiles<T> tiles(16);

  struct Piece {
    SequenceBlock block;
    int64_t kvHead;
    const T *queries, *keys, *values;  // of the sequence
  };
  const auto pieceAt = [&](int64_t i) {
    Piece p{blocks[i / shape.numKvHeads], i % shape.numKvHeads, nullptr, nullptr, nullptr};
    p.queries =
        static_cast<const T*>(args.qkv) + p.block.sequenceBegin * tokenStride + p.kvHead * group * headDim;
    p.keys = p.queries + (shape.numHeads + p.kvHead - p.kvHead * group) * headDim;
    p.values = p.keys + int64_t(shape.numKvHeads) * headDim;
    return p;
  };
  const int64_t rowBytes = headDim * int64_t(sizeof(T)), tokenBytes = tokenStride * int64_t(sizeof(T));
  const int64_t outStride = int64_t(shape.numHeads) * headDim;
  const int stripAhead = stripKeys(settings);

  for (int64_t piece = begin; piece < end; piece++) {
    const Piece self = pieceAt(piece);
    const SequenceBlock& block = self.block;
    const Piece next = pieceAt(std::min(piece + 1, end - 1));
    T* out = static_cast<T*>(args.out) +
             ((int64_t(block.sequenceBegin) + block.begin) * shape.numHeads + self.kvHead * group) * headDim;
    int64_t count = 0;
    for (int t = block.begin; t < block.end; t++)
      for (int h = 0; h < group; h++)
        rows.query(count++, self.queries + t * tokenStride + h * headDim, t + 1);
    rows.attend(count, 1, [&](int, int first, int n) {
      // While this strip is computed with, the next one comes to the cache: of this piece, or of the next,
      // and then its queries, too, and where this piece is written.
      const bool last = first + n == block.end;
      const Piece& of = last ? next : self;
      const int64_t from = last ? 0 : first + n;
      const int64_t some = std::min<int64_t>(stripAhead, of.block.end - from);
      if (last)
        rows.ahead().add(out, outStride * int64_t(sizeof(T)), block.end - block.begin, rowBytes * group);
      rows.ahead().add(of.keys + from * tokenStride, tokenBytes, some, rowBytes);
      rows.ahead().add(of.values + from * tokenStride, tokenBytes, some, rowBytes);
      if (last)
        rows.ahead().add(next.queries + next.block.begin * tokenStride, tokenBytes,
                         next.block.end - next.block.begin, rowBytes * group);
      return strip.fill(n, [&](int at, int some) {
        const int64_t offset = (first + at) * tokenStride;
        strip.rows(at, some, self.keys + offset, self.values + offset, tokenStride);
      });
    });

    for (int64_t r = 0; r < count; r++) {
      const int64_t token = block.sequenceBegin + block.begin + r / group;
      const int64_t head = self.kvHead * group + r % group;
      rows.output(r, out + r / group * outStride + r % group * headDim);
      args.lse[head * shape.tokens + token] = rows.logSumExp(r);
    }
  }
}

void trainingAttention(const AttentionArgs& args, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(args.shape.dtype, trainingAttention(args, workers));
  checkSequences(args.cuSeqlens, args.sequences, args.shape.tokens);
  const int perBlock = tokensPerBlock(args.shape);
  Scratch scratch;
  auto* blocks = scratch.get<SequenceBlock>(args.sequences + args.shape.tokens / perBlock + 1);
  int64_t count = 0;
  int longest = 0;
  double pairs = 0;
  for (int64_t s = 0; s < args.sequences; s++) {
    const int length = args.cuSeqlens[s + 1] - args.cuSeqlens[s];
    pairs += 0.5 * length * length;
    longest = std::max(longest, std::min(length, perBlock));
    for (int t = 0; t < length; t += perBlock)
      blocks[count++] = {args.cuSeqlens[s], t, std::min(length, t + perBlock)};
  }
  // The longest first: what the threads take last is then too short for one of them to wait for another.
  std::sort(blocks, blocks + count, [](const SequenceBlock& a, const SequenceBlock& b) {
    return a.end != b.end ? a.end > b.end : a.sequenceBegin < b.sequenceBegin;
  });
  const int64_t pieces = count * args.shape.numKvHeads;
  const int64_t grain = attentionGrain(args.shape, pieces, pairs, double(args.shape.tokens), 2);
  workers.parallelFor(pieces, grain, [&](int64_t begin, int64_t end) {
    dispatchOwn(args.shape.dtype,
                [&](auto t) { attendSequenceBlocks<decltype(t)>(args, blocks, longest, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingAttention(Registry& registry) {
  registry.add<AttentionArgs>(Family::training, ISA_VARIANTS(trainingAttention));
}
}  // namespace isopolicy

#endif
