// Rollout attention: query tokens against the paged cache of their slots. Decode in vectors reads the pages
// as they are; AMX, and prefill, where many consecutive tokens of a slot share the keys, pack them strip by
// strip.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_TILES
#define ISA_KERNELS "cpu/rollout/attention.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_row.h"

namespace isopolicy::ISA_PASS {

// Tokens `token` .. `token + count - 1` at consecutive positions of one slot, or unused rows (slot < 0).
struct TokenRun {
  int32_t token, count, slot, position;
};

// Rows up to which vectors read the pages as they are: they fit one pass over the keys.
static constexpr int kDirectRows = 4;

#if ISA_LEVEL >= 4
template <class T>
using DirectForm = std::conditional_t<Form<T>::kTiles, SteppedForm<T>, Form<T>>;
#else
template <class T>
using DirectForm = Form<T>;
#endif

template <class T>
class PagedStrips {
 public:
  PagedStrips(Scratch& scratch, const PagedAttentionArgs& args, const RowSettings& settings)
      : args_(args), headDim_(args.shape.headDim), packed_(scratch, settings) {
    const int groups = stripKeys(settings) / 16;
    for (const T*** table : {&keys_, &values_, &nextKeys_, &nextValues_})
      *table = scratch.get<const T*>(groups);
  }

  // The pages of keys first .. first + n - 1, read as they are while those of the next strip are fetched: of
  // the same run, or after its last keys of `after`. All rows see all of these keys.
  KeyStrip<PageGroups<T>, PagedRows<T>> direct(const TokenRun& run, int64_t kvHead, int first, int n,
                                               const TokenRun& after, int64_t kvHeadAfter) {
    const int pages = (n + kPageSize - 1) / kPageSize;
    for (int g = 0; g < pages; g++) {
      setPage(run, kvHead, first + g * kPageSize, keys_[g], values_[g]);
      const int ahead = first + n + g * kPageSize;
      if (ahead < run.position + run.count)
        setPage(run, kvHead, ahead, nextKeys_[g], nextValues_[g]);
      else if (after.slot >= 0)
        setPage(after, kvHeadAfter, std::min(g * kPageSize, after.position), nextKeys_[g], nextValues_[g]);
      else
        nextKeys_[g] = keys_[g], nextValues_[g] = values_[g];
    }
    return {{keys_, nextKeys_}, {values_, nextValues_, headDim_}, true};
  }

  auto packed(const TokenRun& run, int64_t kvHead, int first, int n) {
    return packed_.fill(n, [&](int from, int some) {
      const int64_t offset = offsetOf(run, kvHead, first + from);
      packed_.page(from, some, static_cast<const T*>(args_.cache.keys) + offset,
                   static_cast<const T*>(args_.cache.values) + offset);
    });
  }

  // Keys first .. first + n - 1 are to come to the cache: pages are too short and scattered for the processor
  // to run ahead by itself.
  void fetch(RowsAhead& ahead, const TokenRun& run, int64_t kvHead, int first, int n) const {
    const int end = std::min(first + n, run.position + run.count);
    for (int j = first; j < end; j += kPageSize) {
      const int64_t offset = offsetOf(run, kvHead, j);
      const int64_t row = headDim_ * int64_t(sizeof(T));
      ahead.add(static_cast<const T*>(args_.cache.keys) + offset, row, kPageSize, row);
      ahead.add(static_cast<const T*>(args_.cache.values) + offset, row, kPageSize, row);
    }
  }

 private:
  int64_t offsetOf(const TokenRun& run, int64_t kvHead, int position) const {
    const int64_t page = pageOf(args_.cache, run.slot, position);
    return (page * args_.shape.numKvHeads + kvHead) * headDim_ * kPageSize;
  }

  void setPage(const TokenRun& run, int64_t kvHead, int position, const T*& keys, const T*& values) const {
    const int64_t offset = offsetOf(run, kvHead, position);
    keys = static_cast<const T*>(args_.cache.keys) + offset;
    values = static_cast<const T*>(args_.cache.values) + offset;
  }

  const PagedAttentionArgs& args_;
  const int headDim_;
  PackedStrip<T> packed_;
  const T **keys_, **values_, **nextKeys_, **nextValues_;
};

template <class T>
static void attendRuns(const PagedAttentionArgs& args, const TokenRun* runs, int longest, int64_t begin,
                       int64_t end) {
  const AttentionShape& shape = args.shape;
  const int group = shape.group();
  const int headDim = shape.headDim;
  const int64_t tokenStride = int64_t(shape.heads()) * headDim;
  Scratch scratch;
  const RowSettings settings{headDim, args.scale, args.chunk, args.tile};
  AttentionRows<T> rows(scratch, settings, int64_t(longest) * group);
  AttentionRows<T, DirectForm<T>> directRows(scratch, settings, kDirectRows);
  PagedStrips<T> strips(scratch, args, settings);
  const RowTiles<T> tiles(std::min(16, longest * group));

  const auto queriesOf = [&](const TokenRun& run, int64_t kvHead) {
    return static_cast<const T*>(args.qkv) + run.token * tokenStride + kvHead * group * int64_t(headDim);
  };
  const int64_t outStride = int64_t(shape.numHeads) * headDim;
  const int strip = stripKeys(settings);

  for (int64_t piece = begin; piece < end; piece++) {
    const TokenRun& run = runs[piece / shape.numKvHeads];
    const int64_t kvHead = piece % shape.numKvHeads;
    const int64_t after = std::min(piece + 1, end - 1);
    const TokenRun& next = runs[after / shape.numKvHeads];
    const int64_t nextHead = after % shape.numKvHeads;
    T* out = static_cast<T*>(args.out) + run.token * outStride + kvHead * group * headDim;
    if (run.slot < 0) {
      for (int t = 0; t < run.count; t++)
        std::memset(out + t * outStride, 0, size_t(group) * size_t(headDim) * sizeof(T));
      continue;
    }
    const T* queries = queriesOf(run, kvHead);
    const auto attend = [&](auto& rows, auto&& load) {
      int64_t count = 0;
      for (int t = 0; t < run.count; t++)
        for (int h = 0; h < group; h++)
          rows.query(count++, queries + t * tokenStride + h * headDim, run.position + t + 1);
      rows.attend(count, load);
      for (int64_t r = 0; r < count; r++) rows.output(r, out + r / group * outStride + r % group * headDim);
    };
    if (headDim % 16 == 0 && run.count == 1 && group <= kDirectRows) {
      attend(directRows,
             [&](int first, int n) { return strips.direct(run, kvHead, first, n, next, nextHead); });
      continue;
    }
    attend(rows, [&](int first, int n) {
      // While this strip is computed with, the next one comes to the cache: of this piece, or of the next,
      // and then its queries, too, and where this piece is written.
      if (first + n < run.position + run.count) {
        strips.fetch(rows.ahead(), run, kvHead, first + n, strip);
      } else {
        const int64_t bytes = group * headDim * int64_t(sizeof(T));
        rows.ahead().add(out, outStride * int64_t(sizeof(T)), run.count, bytes);
        if (next.slot >= 0) {
          strips.fetch(rows.ahead(), next, nextHead, 0, strip);
          rows.ahead().add(queriesOf(next, nextHead), tokenStride * int64_t(sizeof(T)), next.count, bytes);
        }
      }
      return strips.packed(run, kvHead, first, n);
    });
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
