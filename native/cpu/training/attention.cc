// Training attention: whole sequences from packed tokens. A piece of work is one block of query tokens of one
// sequence and one key head; its keys are widened and transposed strip by strip and serve every row of the
// block and every query head of the group. Strips above the diagonal are never touched.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_TILES
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
  AttentionRows<T> rows(scratch, settings, int64_t(maxTokens) * group);
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
  const int64_t rowBytes = headDim * int64_t(sizeof(T));
  const int stripAhead = stripKeys(settings);

  for (int64_t piece = begin; piece < end; piece++) {
    const Piece self = pieceAt(piece);
    const SequenceBlock& block = self.block;
    // Rows come to the cache while those a strip earlier, or of the piece before, are computed with.
    const Piece next = pieceAt(std::min(piece + 1, end - 1));
    int64_t count = 0;
    for (int t = block.begin; t < block.end; t++) {
      prefetchRow(next.queries + (next.block.begin + t - block.begin) * tokenStride, rowBytes * group);
      for (int h = 0; h < group; h++)
        rows.query(count++, self.queries + t * tokenStride + h * headDim, t + 1);
    }
    const int ahead = std::min(stripAhead, block.end);
    rows.attend(count, [&](int first, int n) {
      return strip.fill(n, [&](int from, int some) {
        for (int j = first + from; j < first + from + some; j++) {
          const int later = j + ahead;
          const Piece& of = later < block.end ? self : next;
          const int64_t at = (later < block.end ? later : later - block.end) * tokenStride;
          prefetchRow(of.keys + at, rowBytes);
          prefetchRow(of.values + at, rowBytes);
        }
        const int64_t at = (first + from) * tokenStride;
        strip.rows(from, some, self.keys + at, self.values + at, tokenStride);
      });
    });

    for (int64_t r = 0; r < count; r++) {
      const int64_t token = block.sequenceBegin + block.begin + r / group;
      const int64_t head = self.kvHead * group + r % group;
      rows.output(r, static_cast<T*>(args.out) + (token * shape.numHeads + head) * headDim);
      args.lse[head * shape.tokens + token] = rows.logSumExp(r);
    }
  }
}

void trainingAttention(const AttentionArgs& args, Workers& workers) {
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
    dispatchFloat(args.shape.dtype,
                  [&](auto t) { attendSequenceBlocks<decltype(t)>(args, blocks, longest, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerTrainingAttention(Registry& registry) {
  registry.add<AttentionArgs>(Family::training, Device::cpu, ISA_VARIANTS(trainingAttention));
}
}  // namespace isopolicy

#endif
