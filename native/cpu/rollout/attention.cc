// Rollout attention: query tokens against the paged cache of their slots. Decode reads the pages as they are;
// prefill, where many consecutive tokens of a slot share the keys, widens them to fp32 strip by strip.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_KERNELS "cpu/rollout/attention.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_row.h"

namespace isopolicy::ISA_PASS {

// Tokens `token` .. `token + count - 1` at consecutive positions of one slot, or unused rows (slot < 0).
struct TokenRun {
  int32_t token, count, slot, position;
};

// Rows up to which the pages are read as they are: they fit one pass over the keys.
static constexpr int kDirectRows = 4;

template <class T>
class PagedStrips {
 public:
  PagedStrips(Scratch& scratch, const PagedAttentionArgs& args, int strip, int stride, bool wide)
      : args_(args), headDim_(args.shape.headDim), stride_(stride) {
    const int groups = roundUp16(strip) / 16;
    keys_ = scratch.get<const T*>(groups);
    values_ = scratch.get<const T*>(groups);
    if (!wide) return;
    const int64_t groupSize = int64_t(stride) * 16;
    wideKeys_ = scratch.get<const float*>(groups);
    wideValues_ = scratch.get<const float*>(groups);
    float* memory = scratch.get<float>(2 * groups * groupSize);
    for (int g = 0; g < groups; g++) {
      wideKeys_[g] = memory + 2 * g * groupSize;
      wideValues_[g] = wideKeys_[g] + groupSize;
    }
  }

  // The pages of keys first .. first + n - 1, read as they are. The next strip is on its way from memory
  // while this one is computed: pages are too short and scattered for the processor to run ahead by itself.
  KeyStrip<T> direct(const TokenRun& run, int64_t kvHead, int first, int n) {
    fetch(run, kvHead, first + n, std::min(first + 2 * n, run.position + run.count));
    return pages(run, kvHead, first, n);
  }

  KeyStrip<float> widened(const TokenRun& run, int64_t kvHead, int first, int n) {
    pages(run, kvHead, first, n);
    for (int j = 0; j < n; j += kPageSize) {
      const int g = j / kPageSize;
      widenRow(keys_[g], headDim_ * kPageSize, const_cast<float*>(wideKeys_[g]));
      for (int i = 0; i < std::min(kPageSize, n - j); i++)
        widenRow(values_[g] + int64_t(i) * headDim_, headDim_,
                 const_cast<float*>(wideValues_[g]) + int64_t(i) * stride_);
    }
    return {wideKeys_, wideValues_, stride_};
  }

 private:
  int64_t offsetOf(const TokenRun& run, int64_t kvHead, int position) const {
    const int64_t page = pageOf(args_.cache, run.slot, position);
    return (page * args_.shape.numKvHeads + kvHead) * headDim_ * kPageSize;
  }

  KeyStrip<T> pages(const TokenRun& run, int64_t kvHead, int first, int n) {
    for (int j = 0; j < n; j += kPageSize) {
      const int64_t offset = offsetOf(run, kvHead, first + j);
      keys_[j / kPageSize] = static_cast<const T*>(args_.cache.keys) + offset;
      values_[j / kPageSize] = static_cast<const T*>(args_.cache.values) + offset;
    }
    return {keys_, values_, headDim_};
  }

  void fetch(const TokenRun& run, int64_t kvHead, int begin, int end) const {
    const int64_t bytes = int64_t(headDim_) * kPageSize * int64_t(sizeof(T));
    for (int j = begin; j < end; j += kPageSize) {
      const int64_t offset = offsetOf(run, kvHead, j) * int64_t(sizeof(T));
      const char* keys = static_cast<const char*>(args_.cache.keys) + offset;
      const char* values = static_cast<const char*>(args_.cache.values) + offset;
      for (int64_t line = 0; line < bytes; line += 64) {
        __builtin_prefetch(keys + line, 0, 2);
        __builtin_prefetch(values + line, 0, 2);
      }
    }
  }

  const PagedAttentionArgs& args_;
  const int headDim_;
  const int stride_;
  const T** keys_;
  const T** values_;
  const float** wideKeys_ = nullptr;
  const float** wideValues_ = nullptr;
};

template <class T>
static void attendRuns(const PagedAttentionArgs& args, const TokenRun* runs, int longest, int64_t begin,
                       int64_t end) {
  const AttentionShape& shape = args.shape;
  const int group = shape.group();
  const int headDim = shape.headDim;
  const int64_t tokenStride = int64_t(shape.heads()) * headDim;
  const int directRows = headDim % 16 == 0 ? kDirectRows : 0;
  Scratch scratch;
  AttentionRows<T> rows(scratch, {headDim, args.scale, args.chunk, args.tile}, int64_t(longest) * group);
  PagedStrips<T> strips(scratch, args, rows.strip(), rows.stride(), int64_t(longest) * group > directRows);

  for (int64_t piece = begin; piece < end; piece++) {
    const TokenRun& run = runs[piece / shape.numKvHeads];
    const int64_t kvHead = piece % shape.numKvHeads;
    T* out = static_cast<T*>(args.out) + (int64_t(run.token) * shape.numHeads + kvHead * group) * headDim;
    const int64_t outStride = int64_t(shape.numHeads) * headDim;
    if (run.slot < 0) {
      for (int t = 0; t < run.count; t++)
        std::memset(out + t * outStride, 0, size_t(group) * size_t(headDim) * sizeof(T));
      continue;
    }
    const T* queries =
        static_cast<const T*>(args.qkv) + run.token * tokenStride + kvHead * group * int64_t(headDim);
    int64_t count = 0;
    for (int t = 0; t < run.count; t++)
      for (int h = 0; h < group; h++)
        rows.query(count++, queries + t * tokenStride + h * headDim, run.position + t + 1);
    if (count <= directRows)
      rows.template attend<T>(count, [&](int first, int n) { return strips.direct(run, kvHead, first, n); });
    else
      rows.template attend<float>(count,
                                  [&](int first, int n) { return strips.widened(run, kvHead, first, n); });
    for (int64_t r = 0; r < count; r++) rows.output(r, out + r / group * outStride + r % group * headDim);
  }
}

void rolloutPagedAttention(const PagedAttentionArgs& args, Workers& workers) {
  const int64_t tokens = args.shape.tokens;
  const int perBlock = tokensPerBlock(args.shape);
  Scratch scratch;
  auto* runs = scratch.get<TokenRun>(tokens);
  int64_t count = 0;
  int longest = 1;
  double pairs = 0;
  for (int64_t i = 0; i < tokens; i++) {
    const int32_t slot = std::max(-1, args.slots[i]);
    const int32_t position = slot < 0 ? 0 : args.positions[i];
    if (slot >= 0) checkPlace(args.cache, i, slot, position);
    TokenRun* run = count > 0 ? &runs[count - 1] : nullptr;
    if (run && run->slot == slot && run->count < perBlock &&
        (slot < 0 || position == run->position + run->count))
      run->count++;
    else
      runs[count++] = {int32_t(i), 1, slot, position};
    if (slot >= 0) longest = std::max(longest, runs[count - 1].count);
    pairs += position + 1;
  }
  const int64_t pieces = count * args.shape.numKvHeads;
  const int64_t grain = attentionGrain(args.shape, pieces, pairs, double(tokens), 2);
  workers.parallelFor(pieces, grain, [&](int64_t begin, int64_t end) {
    dispatchFloat(args.shape.dtype,
                  [&](auto t) { attendRuns<decltype(t)>(args, runs, longest, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutAttention(Registry& registry) {
  registry.add<PagedAttentionArgs>(Family::rollout, Device::cpu, ISA_VARIANTS(rolloutPagedAttention));
}
}  // namespace isopolicy

#endif
