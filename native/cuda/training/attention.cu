// Training attention: whole sequences from packed tokens. A block is 128 query tokens of one head (64 in the
// general kernel); keys and values come by cp.async, three steps of up to 64 keys ahead. Bound by the tensor
// cores: a key and row are 4 headDim operations of theirs and one exponential. See
// shared/attention_tile.cuh for the arithmetic.
#include "cuda/training/attention_flash.cuh"
#include "cuda/training/attention_sequences.cuh"
#include "ops/attention.h"

namespace isopolicy::cuda {
namespace {

template <class T>
struct Arguments {
  const T* qkv;
  T* out;
  float* lse;
  Sequences sequences;
  SequenceChecks checks;
  int64_t blocks;  // of tokens
  int numHeads, group, heads, headDim;
  float scale;
  int chunk, tile;
};

template <class F>
__global__ void __launch_bounds__(F::kThreads, F::kBlocks) attentionKernel(const Arguments<typename F::T> a) {
  using T = typename F::T;
  if (blockIdx.x == gridDim.x - 1 && threadIdx.x < 32) checkSequences(a.sequences, a.checks);
  // The last blocks of a sequence see most keys: they come first.
  const int head = int(blockIdx.x / a.blocks);
  const SequenceBlock block = findBlock<F::kRows>(a.sequences, a.blocks - 1 - blockIdx.x % a.blocks);
  const int count = min(F::kRows, block.length - block.first);
  if (count <= 0) return;

  const int64_t stride = int64_t(a.heads) * a.headDim;
  const T* sequence = a.qkv + block.sequenceBegin * stride;
  const int keyHead = a.numHeads + head / a.group, valueHead = keyHead + a.numHeads / a.group;
  const PackedKeys<T> keys{sequence + int64_t(keyHead) * a.headDim, sequence + int64_t(valueHead) * a.headDim,
                           stride, a.headDim};
  copyRows<F::kRows, F::kThreads>(F::queries(), sequence + block.first * stride + int64_t(head) * a.headDim,
                                  stride, count, a.headDim);
  const int row = F::firstRow(), g = laneOf() / 4;
  int limit[2];
  for (int i = 0; i < 2; i++) limit[i] = block.first + min(row + g + 8 * i + 1, count);
  auto result = attend<F>(keys, limit, block.first + count, a.scale, a.chunk, a.tile);

  const int64_t token = int64_t(block.sequenceBegin) + block.first + row;
  for (int i = 0; i < 2; i++) {
    const float inverse = __frcp_rn(result.rows.sum[i]);
#pragma unroll
    for (int j = 0; j < F::kOut / 8; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) result.out[j][2 * i + e] = normalized(result.out[j][2 * i + e], inverse);
    if (row + g + 8 * i < count && laneOf() % 4 == 0 && F::firstColumn() == 0)
      a.lse[head * a.sequences.tokens + token + g + 8 * i] =
          fmaf(result.rows.max[i], kLn2, logf(result.rows.sum[i]));
  }
  // All rows of queries were read before the last step of values came.
  const auto staged = F::queries().from(row);
  stageRows<F::kOut>(result.out, staged, F::firstColumn());
  const int64_t outStride = int64_t(a.numHeads) * a.headDim;
  writeRows<F::kOut>(staged, F::firstColumn(), a.out + token * outStride + int64_t(head) * a.headDim,
                     outStride, count - row, a.headDim);
}

template <class F>
void launchAttention(const AttentionArgs& args, Launcher& gpu) {
  using T = typename F::T;
  const AttentionShape& shape = args.shape;
  const Sequences sequences{args.cuSeqlens, args.sequences, shape.tokens};
  const int64_t blocks = sequenceBlocks(sequences, F::kRows);
  const Arguments<T> arguments{static_cast<const T*>(args.qkv),
                               static_cast<T*>(args.out),
                               args.lse,
                               sequences,
                               sequenceChecks(gpu, shape.tokens),
                               blocks,
                               shape.numHeads,
                               shape.group(),
                               shape.heads(),
                               shape.headDim,
                               args.scale,
                               args.chunk,
                               args.tile};
  gpu.launch(attentionKernel<F>, Grid{blocks * shape.numHeads}, F::kThreads, F::kSharedBytes, arguments);
}

void attention(const AttentionArgs& args, Launcher& gpu) {
  dispatchFloat(args.shape.dtype, [&](auto zero) {
    dispatchFlash<decltype(zero)>(args.shape.headDim, args.chunk, args.tile,
                                  [&](auto flash) { launchAttention<decltype(flash)>(args, gpu); });
  });
}

}  // namespace

void registerTrainingAttention(Registry& registry) {
  addKernel<AttentionArgs>(registry, Family::training, attention);
}

}  // namespace isopolicy::cuda
