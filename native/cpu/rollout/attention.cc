// Rollout attention: query tokens against the paged cache of their slots. Decode in vectors reads the pages
// as they are; AMX, and prefill, where many consecutive tokens of a slot share the keys, pack them strip by
// strip.
#include "cpu/shared/attention_work.h"
#include "cpu/shared/kernel.h"
#define ISA_PRODUCTS
#define ISA_KERNELS "cpu/rollout/attention.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/attention_row.h"

namespace isopolicy::ISA_PASS {

// Tokens `token` .. `token + count - 1` at consecutive positions of one slot, or unused rows (slot < 0).
struct TokenRun {
  int32_t token, count, slot, position;
};

// A piece of work: key heads head .. head + heads - 1 of a run, over all keys it sees or, of a run of one
// token, over one chunk of them, the result of which is then one of `parts`.
struct RunPiece {
  int32_t run, head, heads, chunk;  // chunk < 0: all keys
  int64_t part;
};

// Rows up to which vectors read the pages as they are: they fit one pass over the keys.
static constexpr int kDirectRows = 4;
// Keys at a time that are then read of one head, before the same keys of the next: heads lie side by side, so
// memory is read nearly in order. Four pages are the fastest at avx512bf16, two at amx.
static constexpr int kDirectKeys = ISA_LEVEL >= 4 ? 32 : 64;
// What is on its way from memory meanwhile: while keys are read, their values, and while values are read, the
// keys after them. At amx, keys and values of the strip after this one.
static constexpr bool kFetchesNearest = ISA_LEVEL < 4;
static bool readsPages(const AttentionShape& shape, const TokenRun& run) {
  return run.count == 1 && shape.headDim % 16 == 0 && shape.group() <= kDirectRows;
}

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

  // Keys from `first` on of a head.
  struct Place {
    const TokenRun& run;
    int64_t kvHead;
    int first;
  };

  // The pages of n keys, read as they are while those of the strip after it are fetched. All rows see all of
  // these keys.
  KeyStrip<PageGroups<T>, PagedRows<T>> direct(const Place& at, int n, const Place& after) {
    const int pages = (n + kPageSize - 1) / kPageSize;
    for (int g = 0; g < pages; g++) {
      setPage(at, g, keys_[g], values_[g]);
      setPage(after.run.slot >= 0 ? after : at, g, nextKeys_[g], nextValues_[g]);
    }
    if constexpr (kFetchesNearest) return {{keys_, values_}, {values_, nextKeys_, headDim_}, true};
    return {{keys_, nextKeys_}, {values_, nextValues_, headDim_}, true};
  }

  auto packed(const TokenRun& run, int64_t kvHead, int first, int n) {
    return packed_.fill(n, [&](int from, int some) {
      const int64_t offset = offsetOf(run, kvHead, first + from);
      packed_.page(from, some, static_cast<const T*>(args_.cache.keys) + offset,
                   static_cast<const T*>(args_.cache.values) + offset);
    });
  }

  // n keys are to come to the cache: pages are too short and scattered for the processor to run ahead by
  // itself.
  void fetch(RowsAhead& ahead, const Place& from, int n) const {
    const int end = std::min(from.first + n, from.run.position + from.run.count);
    for (int j = from.first; j < end; j += kPageSize) {
      const int64_t offset = offsetOf(from.run, from.kvHead, j);
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

  void setPage(const Place& place, int page, const T*& keys, const T*& values) const {
    const int position = std::min(place.first + page * kPageSize, place.run.position);
    const int64_t offset = offsetOf(place.run, place.kvHead, position);
    keys = static_cast<const T*>(args_.cache.keys) + offset;
    values = static_cast<const T*>(args_.cache.values) + offset;
  }

  const PagedAttentionArgs& args_;
  const int headDim_;
  PackedStrip<T> packed_;
  const T **keys_, **values_, **nextKeys_, **nextValues_;
};

// Runs, and how they are cut.
struct RunPlan {
  TokenRun* runs;
  RunPiece* pieces;
  float* parts;  // [part][row of the piece][partSize]
  int longest;   // run
};

template <class T>
static void attendPieces(const PagedAttentionArgs& args, const RunPlan& plan, int64_t begin, int64_t end) {
  const AttentionShape& shape = args.shape;
  const int group = shape.group();
  const int headDim = shape.headDim;
  const int64_t tokenStride = int64_t(shape.heads()) * headDim;
  const int64_t outStride = int64_t(shape.numHeads) * headDim;
  Scratch scratch;
  const RowSettings settings{headDim, args.scale, args.chunk, args.tile};
  const int strip = stripKeys(settings);
  const int directStrip = std::min(strip, roundUp(kDirectKeys, settings.tile));
  AttentionRows<T> rows(scratch, settings, int64_t(plan.longest) * group, strip);
  AttentionRows<T, DirectForm<T>> directRows(scratch, settings, shape.numHeads, directStrip);
  PagedStrips<T> strips(scratch, args, settings);
  const RowTiles<T> tiles(std::min(16, plan.longest * group));
  using Place = typename PagedStrips<T>::Place;

  const auto queriesOf = [&](const TokenRun& run, int64_t kvHead) {
    return static_cast<const T*>(args.qkv) + run.token * tokenStride + kvHead * group * int64_t(headDim);
  };
  const auto firstOf = [&](const RunPiece& piece) {
    return Place{plan.runs[piece.run], piece.head, std::max(0, piece.chunk) * args.chunk};
  };

  for (int64_t i = begin; i < end; i++) {
    const RunPiece& piece = plan.pieces[i];
    const TokenRun& run = plan.runs[piece.run];
    const Place next = firstOf(plan.pieces[std::min(i + 1, end - 1)]);
    T* out = static_cast<T*>(args.out) + run.token * outStride + piece.head * int64_t(group) * headDim;
    const int heads = piece.heads * group;
    if (run.slot < 0) {
      for (int t = 0; t < run.count; t++)
        std::memset(out + t * outStride, 0, size_t(heads) * size_t(headDim) * sizeof(T));
      continue;
    }
    const int last = run.position + run.count;
    const int seen = piece.chunk < 0 ? last : std::min(last, (piece.chunk + 1) * args.chunk);
    const T* queries = queriesOf(run, piece.head);
    const auto attend = [&](auto& rows, int64_t count, int sets, auto&& load) {
      for (int t = 0; t < run.count; t++)
        for (int h = 0; h < heads; h++)
          rows.query(t * heads + h, queries + t * tokenStride + h * headDim, run.position + t + 1);
      if (piece.chunk >= 0)
        return rows.attendPart(piece.chunk, count, sets, plan.parts + piece.part * rows.partSize(), load);
      rows.attend(count, sets, load);
      for (int64_t r = 0; r < count * sets; r++)
        rows.output(r, out + r / heads * outStride + r % heads * headDim);
    };
    if (readsPages(shape, run)) {
      attend(directRows, group, piece.heads, [&](int set, int first, int n) {
        const bool lastHead = set + 1 == piece.heads, lastKeys = first + n >= seen;
        const Place after = !lastHead   ? Place{run, piece.head + set + 1, first}
                            : !lastKeys ? Place{run, piece.head, first + n}
                                        : next;
        return strips.direct({run, piece.head + set, first}, n, after);
      });
      continue;
    }
    attend(rows, int64_t(run.count) * group, 1, [&](int, int first, int n) {
      // While this strip is computed with, the next one comes to the cache: of this piece, or of the next,
      // and then its queries, too, and where this piece is written.
      if (first + n < seen) {
        strips.fetch(rows.ahead(), {run, piece.head, first + n}, strip);
      } else {
        const int64_t bytes = group * headDim * int64_t(sizeof(T));
        rows.ahead().add(out, outStride * int64_t(sizeof(T)), run.count, bytes);
        if (next.run.slot >= 0) {
          strips.fetch(rows.ahead(), next, strip);
          rows.ahead().add(queriesOf(next.run, next.kvHead), tokenStride * int64_t(sizeof(T)), next.run.count,
                           bytes);
        }
      }
      return strips.packed(run, piece.head, first, n);
    });
  }
}

// Joins the chunks of the runs that were cut, in order.
template <class T>
static void joinParts(const PagedAttentionArgs& args, const RunPlan& plan, int64_t pieces) {
  const int group = args.shape.group(), headDim = args.shape.headDim;
  Scratch scratch;
  const RowSettings settings{headDim, args.scale, args.chunk, args.tile};
  AttentionRows<T> rows(scratch, settings, args.shape.numHeads, stripKeys(settings));
  const RowTiles<T> tiles(16);
  for (int64_t i = 0; i < pieces; i++) {
    const RunPiece& piece = plan.pieces[i];
    if (piece.chunk < 0) continue;
    const TokenRun& run = plan.runs[piece.run];
    const bool last = (piece.chunk + 1) * args.chunk > run.position;
    for (int r = 0; r < piece.heads * group; r++) {
      const int64_t head = piece.head * group + r;
      rows.joinPart(piece.chunk, head, plan.parts + (piece.part + r) * rows.partSize());
      if (last)
        rows.output(head, static_cast<T*>(args.out) + (run.token * args.shape.numHeads + head) * headDim);
    }
  }
}

// Consecutive tokens of a slot, at most as many as share the keys, and unused rows.
static int64_t findRuns(const PagedAttentionArgs& args, RunPlan& plan, double& pairs) {
  const int perBlock = tokensPerBlock(args.shape);
  int64_t count = 0;
  for (int64_t i = 0; i < args.shape.tokens; i++) {
    const int32_t slot = std::max(-1, args.slots[i]);
    const int32_t position = slot < 0 ? 0 : args.positions[i];
    if (slot >= 0) checkPlace(args.cache, i, slot, position);
    TokenRun* run = count > 0 ? &plan.runs[count - 1] : nullptr;
    if (run && run->slot == slot && run->count < perBlock &&
        (slot < 0 || position == run->position + run->count))
      run->count++;
    else
      plan.runs[count++] = {int32_t(i), 1, slot, position};
    if (slot >= 0) plan.longest = std::max(plan.longest, plan.runs[count - 1].count);
    pairs += position + 1;
  }
  return count;
}

// A piece for each key head; of pages that are read as they are one for all heads. Where that leaves threads
// without work, single tokens are cut by chunks, and then by heads.
void rolloutPagedAttention(const PagedAttentionArgs& args, Workers& workers) {
  ISA_BELOW_UNLESS_OWN(args.shape.dtype, rolloutPagedAttention(args, workers));
  const AttentionShape& shape = args.shape;
  const int kvHeads = shape.numKvHeads, threads = workers.threads();
  Scratch scratch;
  RunPlan plan{scratch.get<TokenRun>(shape.tokens), nullptr, nullptr, 1};
  double pairs = 0;
  const int64_t runs = findRuns(args, plan, pairs);

  // The work of a piece, in keys, with which every thread has some pieces.
  const double enough = threads == 1 ? pairs * kvHeads : pairs * kvHeads / (4 * threads);
  const auto cutOf = [&](const TokenRun& run) {
    const int keys = run.position + 1;
    const int chunks = args.chunk > 0 ? (keys + args.chunk - 1) / args.chunk : 1;
    const int wanted = run.count > 1 || run.slot < 0 ? 1 : int(std::ceil(double(keys) * kvHeads / enough));
    const int parts = wanted > 1 ? chunks : 1;
    const int heads = readsPages(shape, run) ? std::max(1, kvHeads / ((wanted + parts - 1) / parts)) : 1;
    struct Cut {
      int parts, heads;
    };
    return Cut{parts, heads};
  };
  int64_t most = 0, rowsOfParts = 0, pieces = 0;
  for (int64_t r = 0; r < runs; r++) {
    const auto cut = cutOf(plan.runs[r]);
    most += int64_t(cut.parts) * ((kvHeads + cut.heads - 1) / cut.heads);
    if (cut.parts > 1) rowsOfParts += int64_t(cut.parts) * shape.numHeads;
  }
  plan.pieces = scratch.get<RunPiece>(most);
  plan.parts = scratch.get<float>(rowsOfParts * (roundUp16(shape.headDim) + 16));
  // The last runs of a prompt see most: what the threads take last is then short. Single tokens go in order,
  // so that a thread has the sequences whose keys and values it has just written.
  const bool prompts = plan.longest > 1;
  for (int64_t i = 0, part = 0; i < runs; i++) {
    const int64_t r = prompts ? runs - 1 - i : i;
    const auto cut = cutOf(plan.runs[r]);
    for (int head = 0; head < kvHeads; head += cut.heads) {
      const int heads = std::min(cut.heads, kvHeads - head);
      for (int c = 0; c < cut.parts; c++) {
        plan.pieces[pieces++] = {int32_t(r), head, heads, cut.parts > 1 ? c : -1, part};
        if (cut.parts > 1) part += heads * shape.group();
      }
    }
  }
  // A single token has to wait for its keys and values: that takes as long as twice the products.
  const int64_t grain = attentionGrain(shape, pieces, pairs, double(shape.tokens), prompts ? 2 : 4);
  workers.parallelFor(pieces, grain, [&](int64_t begin, int64_t end) {
    dispatchOwn(shape.dtype, [&](auto t) { attendPieces<decltype(t)>(args, plan, begin, end); });
  });
  if (rowsOfParts > 0) dispatchOwn(shape.dtype, [&](auto t) { joinParts<decltype(t)>(args, plan, pieces); });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRolloutAttention(Registry& registry) {
  registry.add<PagedAttentionArgs>(Family::rollout, ISA_VARIANTS(rolloutPagedAttention));
}
}  // namespace isopolicy

#endif
