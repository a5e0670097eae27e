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
#if ISA_LEVEL >= 4
  const RowTiles tiles(16);
#endif

  for (int64_t piece = begin; piece < end; piece++) {
    const SequenceBlock& block = blocks[piece / shape.numKvHeads];
    const int64_t kvHead = piece % shape.numKvHeads;
    const T* sequence = static_cast<const T*>(args.qkv) + block.sequenceBegin * tokenStride;
    const T* queries = sequence + kvHead * group * headDim;
    const T* keys = sequence + (shape.numHeads + kvHead) * headDim;
    const T* values = keys + int64_t(shape.numKvHeads) * headDim;
    int64_t count = 0;
    for (int t = block.begin; t < block.end; t++)
      for (int h = 0; h < group; h++) rows.query(count++, queries + t * tokenStride + h * headDim, t + 1);

    rows.attend(count, [&](int first, int n) {
      return strip.fill(n, [&](int from, int some) {
        const int64_t at = (first + from) * tokenStride;
        strip.rows(from, some, keys + at, values + at, tokenStride);
      });
    });

    for (int64_t r = 0; r < count; r++) {
      const int64_t token = block.sequenceBegin + block.begin + r / group;
      const int64_t head = kvHead * group + r % group;
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
