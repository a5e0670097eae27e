// Rollout attention: query tokens against the paged cache of their slots, prefill and decode alike.
//
// A warp has 16 query rows, which share the keys and values that pass through a ring in shared memory. In
// decode a block is one warp with the query heads that share a key head, and its bound is memory: enough
// blocks lie on a multiprocessor to have 100 KiB and more on their way. In prefill a block is up to four
// warps with consecutive tokens of a slot, and its bound is the tensor cores. Which tokens share a block, and
// whether one block or several walk the chunks of a token, changes no bit: the arithmetic of a row is that of
// attention_tile.cuh.
#include "cuda/rollout/paged_cache.cuh"
#include "cuda/rollout/paged_walk.cuh"
#include "cuda/shared/attention_tile.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int64_t kMostPartBytes = int64_t(256) << 20;
constexpr int kJoinWarps = 4;

template <class T>
struct PagedAttention {
  const T* qkv;
  const T* keys;
  const T* values;
  T* out;
  PagedPlaces places;
  int tokens, numHeads, numKvHeads, headDim;
  int headsPerBlock;
  // Consecutive tokens of a slot, within groups of so many, are a run that shares a block; 1: there are none.
  int runsWithin;
  int chunk, tile, mostChunks;
  float scale;  // of base 2
  // [tokens, numHeads, mostChunks] results of chunks, [headDim] and (max, sum), where several blocks share
  // the chunks of a token; else null.
  float* parts;
  float2* partStates;

  __device__ __forceinline__ int heads() const { return numHeads + 2 * numKvHeads; }

  // Whether a token is the next one in the slot of the token before it.
  __device__ __forceinline__ bool follows(int token) const {
    const int slot = places.slots[token], position = places.positions[token];
    return slot >= 0 && slot < places.slotCount && slot == places.slots[token - 1] && position > 0 &&
           position / kPageSize < places.pagesPerSlot && places.positions[token - 1] == position - 1;
  }
  __device__ __forceinline__ bool inRun(int token) const {
    if (token % runsWithin != 0 && follows(token)) return true;
    return token + 1 < tokens && (token + 1) % runsWithin != 0 && follows(token + 1);
  }
};

// Query heads firstHead .. firstHead + heads - 1, which share a key head.
struct HeadRange {
  int kvHead, firstHead, heads;
};
// Tokens token .. token + count - 1 at consecutive positions of a slot.
struct TokenRun {
  int token, count, slot, position;
};

// Pages of a slot, 32 of which a warp looks up at once.
class PageIds {
 public:
  __device__ __forceinline__ PageIds(const PagedPlaces& places, int slot, int seen)
      : places_(places), slot_(slot), seen_(seen) {}
  // -1 where there is none.
  __device__ __forceinline__ int at(int page) {
    if (page / 32 != window_) {
      window_ = page / 32;
      const int position = (window_ * 32 + laneOf()) * kPageSize;
      id_ = position < seen_ ? places_.pageOf(slot_, position) : -1;
    }
    return __shfl_sync(0xffffffffu, id_, page % 32);
  }

 private:
  const PagedPlaces& places_;
  int slot_, seen_, window_ = -1, id_ = -1;
};

template <class T>
__device__ __forceinline__ void storePair(T* to, float low, float high) {
  if constexpr (sizeof(T) == 2)
    *reinterpret_cast<uint32_t*>(to) = narrow2<T>(low, high);
  else
    *reinterpret_cast<float2*>(to) = make_float2(low, high);
}

// kRuns: of runs of two tokens and more; else a block has one token. Heads of more than 128 elements are cut
// into parts, each computed by a warp of its own, from the same scores.
template <class T_, int kDim, int kStep, int kRowGroups, bool kRuns_>
struct PagedBlock {
  using T = T_;
  static constexpr bool kRuns = kRuns_;
  static constexpr int kParts = kDim > 128 ? kDim / 128 : 1, kOut = kDim / kParts;
  static constexpr int kThreads = 32 * kRowGroups * kParts, kRows = 16 * kRowGroups;
  static constexpr int kUnitBytes = kStep * kDim * int(sizeof(T));
  static constexpr int kUnits = kUnitBytes >= 16384 ? 3 : kUnitBytes >= 8192 ? 4 : 6;
  static constexpr int kQueryBytes = kRows * kDim * int(sizeof(T));
  static constexpr int kJoinedBytes = kRows * kDim * int(sizeof(float));
  static constexpr size_t sharedBytes(bool joins) {
    return size_t(kUnits) * kUnitBytes + kQueryBytes + (joins ? kJoinedBytes : 0);
  }
  static_assert(sharedBytes(true) <= size_t(99) << 10);  // what the least of the devices has
  using Rows = SharedRows<T, kDim>;

  const PagedAttention<T>& args;
  const HeadRange& range;
  const TokenRun& run;

  // Where this warp has its query rows, and which columns of the output are its.
  static __device__ __forceinline__ int firstRow() { return int(threadIdx.x) / 32 / kParts * 16; }
  static __device__ __forceinline__ int firstColumn() { return int(threadIdx.x) / 32 % kParts * kOut; }
  static __device__ __forceinline__ Rows unitAt(int i) { return {i * kUnitBytes}; }
  static __device__ __forceinline__ Rows queries() { return {kUnits * kUnitBytes}; }
  // Element i of this thread, of the chunks that are joined so far.
  static __device__ __forceinline__ float& joinedOut(int i) {
    return reinterpret_cast<float*>(dynamicShared() + kUnits * kUnitBytes +
                                    kQueryBytes)[i * kThreads + int(threadIdx.x)];
  }
  static __device__ __forceinline__ void meet() {
    if constexpr (kThreads == 32)
      __syncwarp();
    else
      __syncthreads();
  }

  __device__ __forceinline__ void copyQueries() const {
    constexpr int kVector = Rows::kVector, kEach = kDim / kVector;
    const Rows to = queries();
    const auto isThere = [&](int row, int column) {
      return row < run.count * range.heads && column < args.headDim;
    };
    const auto query = [&](int row, int column) {
      const int64_t token = run.token + row / range.heads;
      return args.qkv + (token * args.heads() + range.firstHead + row % range.heads) * args.headDim + column;
    };
    if (args.headDim % kVector == 0 && isAligned16(args.qkv)) {
      for (int i = int(threadIdx.x); i < kRows * kEach; i += kThreads) {
        const int row = i / kEach, column = i % kEach * kVector;
        const bool present = isThere(row, column);
        copyAsync<16>(to.at(row, column), present ? query(row, column) : args.qkv, present ? 16 : 0);
      }
    } else {
      for (int i = int(threadIdx.x); i < kRows * kDim; i += kThreads) {
        const int row = i / kDim, column = i % kDim;
        *to.at(row, column) = isThere(row, column) ? *query(row, column) : T{};
      }
    }
  }

  // Keys of the unit beyond what its tile has become zeros.
  __device__ __forceinline__ void copyUnit(Rows to, const PagedWalk<kStep>& walk, PageIds& ids) const {
    const T* from = walk.unit() == Unit::values ? args.values : args.keys;
    const int keys = walk.keys();
#pragma unroll
    for (int first = 0; first < kStep; first += kPageSize) {
      const int page = first < keys ? ids.at((walk.firstKey() + first) / kPageSize) : -1;
      const int64_t row = (int64_t(max(page, 0)) * args.numKvHeads + range.kvHead) * kPageSize;
      copyRows<kPageSize, kThreads>(to.from(first), from + row * args.headDim, args.headDim,
                                    page < 0 ? 0 : keys - first, args.headDim);
    }
  }

  // The place of row r among all query rows.
  __device__ __forceinline__ int64_t rowOf(int r) const {
    return int64_t(run.token + r / range.heads) * args.numHeads + range.firstHead + r % range.heads;
  }

  // Chunks firstChunk, firstChunk + stride, ...
  __device__ __forceinline__ void attend(int firstChunk, int stride) const {
    const int seen = run.position + run.count;
    if (firstChunk * args.chunk >= seen) return;
    PagedWalk<kStep> ahead(args.chunk, args.tile, seen, firstChunk, stride);
    PagedWalk<kStep> walk = ahead;
    PageIds ids(args.places, run.slot, seen);
    const auto copyNext = [&](int place) {
      if (!ahead.done()) {
        copyUnit(unitAt(place), ahead, ids);
        ahead.next();
      }
      copyCommit();
    };
    meet();  // the run before has been computed
    copyQueries();
    for (int i = 0; i < kUnits - 1; i++) copyNext(i);

    const int lane = laneOf(), rows = run.count * range.heads, first = firstRow();
    // Rows that are not there see what the first one does, and are not stored.
    const auto limitOf = [&](int r) { return run.position + 1 + (r < rows ? r / range.heads : 0); };
    const int limits[2] = {limitOf(first + lane / 4), limitOf(first + lane / 4 + 8)};
    const int least = first + 16 <= rows ? limitOf(first) : run.position + 1;
    const int most = limitOf(min(first + 16, rows) - 1);
    const bool hasRows = first < rows;
    const Rows queryRows{queries().from(first)};

    SoftmaxRows state, joinedState;
    float out[kOut / 8][4] = {};
    float s[kStep / 8][4];
    float tileMax[2] = {kMinusInfinity, kMinusInfinity};
    for (int place = 0; !walk.done(); walk.next()) {
      copyWait<kUnits - 2>();
      meet();  // this unit is there, and nobody reads the one before it any more
      copyNext(place == 0 ? kUnits - 1 : place - 1);
      const Rows unit = unitAt(place);
      place = place + 1 == kUnits ? 0 : place + 1;
      const int key = walk.firstKey();
      if (hasRows && key < most) {
        const bool all = min(least, walk.tileEnd()) >= key + kStep;
        if (walk.unit() != Unit::values) {
          scores<kStep>(queryRows, unit, s);
          if (all) {
            scaleAll<kStep>(s, args.scale);
          } else {
            const int seenOfTile[2] = {min(limits[0], walk.tileEnd()), min(limits[1], walk.tileEnd())};
            scaleAndMask<kStep>(s, args.scale, key, seenOfTile);
          }
          if (walk.unit() == Unit::keysForMax || walk.oneStep()) raise<kStep>(tileMax, s);
          if (walk.unit() == Unit::keys) {
            if (walk.beginsTile()) {
              beginTile<kOut>(state, tileMax, out);
              tileMax[0] = tileMax[1] = kMinusInfinity;
            }
            probabilities<kStep>(state, s);
          }
        } else {
          // One token sees all but what is zeros.
          bool plain = true;
          if constexpr (kRuns) {
            plain = least >= min(key + kStep, walk.tileEnd());
            if constexpr (sizeof(T) == 2) plain = plain || rowsAreFinite<kStep, kOut>(unit, firstColumn());
          }
          if (plain)
            addRows<kStep, kOut>(s, unit, firstColumn(), out);
          else if constexpr (kRuns)
            addSeenRows<kStep, kOut>(s, unit, firstColumn(), out, key, limits);
        }
      }
      if (walk.unit() != Unit::values || !walk.endsChunk() || !hasRows) continue;
      finishSums(state);
      if (seen <= args.chunk)
        store(out, state.sum);
      else if (args.parts != nullptr)
        storePart(walk.chunk(), out, state);
      else
        join(walk.chunk(), (walk.chunk() + 1) * args.chunk >= seen, joinedState, out, state);
      state = SoftmaxRows();
#pragma unroll
      for (int j = 0; j < kOut / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) out[j][i] = 0.0f;
    }
  }

  // Calls body(row, column, j, i) for the pairs of neighbours, out[j][2 i] and out[j][2 i + 1], that this
  // lane has of rows that are there.
  template <class Body>
  __device__ __forceinline__ void eachPair(Body body) const {
    const int lane = laneOf();
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const int row = firstRow() + lane / 4 + 8 * i;
      if (row >= run.count * range.heads) continue;
      const int64_t place = rowOf(row);
#pragma unroll
      for (int j = 0; j < kOut / 8; j++) {
        const int column = firstColumn() + 8 * j + lane % 4 * 2;
        if (column < args.headDim) body(place, column, j, i);
      }
    }
  }

  __device__ __forceinline__ void store(const float (&out)[kOut / 8][4], const float (&sum)[2]) const {
    const float inverse[2] = {__frcp_rn(sum[0]), __frcp_rn(sum[1])};
    eachPair([&](int64_t row, int column, int j, int i) {
      storePair(args.out + row * args.headDim + column, normalized(out[j][2 * i], inverse[i]),
                normalized(out[j][2 * i + 1], inverse[i]));
    });
  }

  __device__ __forceinline__ void storePart(int chunk, const float (&out)[kOut / 8][4],
                                            const SoftmaxRows& state) const {
    eachPair([&](int64_t row, int column, int j, int i) {
      const int64_t part = row * args.mostChunks + chunk;
      storePair(args.parts + part * args.headDim + column, out[j][2 * i], out[j][2 * i + 1]);
      if (column == 0) args.partStates[part] = make_float2(state.max[i], state.sum[i]);
    });
  }

  __device__ __forceinline__ void join(int chunk, bool last, SoftmaxRows& all, float (&out)[kOut / 8][4],
                                       const SoftmaxRows& state) const {
    const ChunkFactors factors[2] = {joinChunk(all.max[0], all.sum[0], state.max[0], state.sum[0]),
                                     joinChunk(all.max[1], all.sum[1], state.max[1], state.sum[1])};
#pragma unroll
    for (int j = 0; j < kOut / 8; j++)
#pragma unroll
      for (int i = 0; i < 4; i++) {
        float& before = joinedOut(4 * j + i);
        out[j][i] = joined(chunk == 0 ? 0.0f : before, out[j][i], factors[i / 2]);
        if (!last) before = out[j][i];
      }
    if (last) store(out, all.sum);
  }
};

// Of single tokens, so many blocks along z as share the chunks of a token.
template <class Block>
__global__ void __launch_bounds__(Block::kThreads)
    pagedAttentionKernel(PagedAttention<typename Block::T> args) {
  const int group = args.numHeads / args.numKvHeads;
  const int ranges = (group + args.headsPerBlock - 1) / args.headsPerBlock;
  const int kvHead = int(blockIdx.y) / ranges, inGroup = int(blockIdx.y) % ranges * args.headsPerBlock;
  const HeadRange range{kvHead, kvHead * group + inGroup, min(args.headsPerBlock, group - inGroup)};
  const auto attend = [&](const TokenRun& run) {
    Block{args, range, run}.attend(int(blockIdx.z), int(gridDim.z));
  };

  if constexpr (Block::kRuns) {
    // The last tokens of a prompt see most: they go first.
    const int first = int(gridDim.x - 1 - blockIdx.x) * args.runsWithin;
    const int end = min(first + args.runsWithin, args.tokens);
    static_assert(Block::kRows <= 64);
    uint64_t follows = 0;  // bit i: token first + i is the next one after the token before
    for (int i = laneOf(); i < 64; i += 32) {
      const bool next = i > 0 && first + i < end && args.follows(first + i);
      follows |= uint64_t(__ballot_sync(0xffffffffu, next)) << (i / 32 * 32);
    }
    for (int token = first, count = 1; token < end; token += count) {
      for (count = 1; token + count < end && follows >> (token + count - first) & 1;) count++;
      if (count > 1) attend({token, count, args.places.slots[token], args.places.positions[token]});
    }
  } else {
    const int token = int(blockIdx.x);
    if (args.inRun(token)) return;
    TokenRun run{token, 1, 0, 0};
    if (args.places.place(token, run.slot, run.position)) return attend(run);
    if (blockIdx.z > 0) return;
    auto* out = args.out + (int64_t(token) * args.numHeads + range.firstHead) * args.headDim;
    for (int i = int(threadIdx.x); i < range.heads * args.headDim; i += Block::kThreads)
      out[i] = narrow<typename Block::T>(0.0f);
  }
}

// Joins the chunks that blocks shared, in order: a row a warp.
template <class T>
__global__ void __launch_bounds__(32 * kJoinWarps) joinChunksKernel(PagedAttention<T> args) {
  constexpr int kPairs = 4;  // of a lane: headDim is at most 256
  const int64_t row = int64_t(blockIdx.x) * kJoinWarps + threadIdx.x / 32;
  const int token = int(row / args.numHeads);
  if (token >= args.tokens || args.inRun(token)) return;
  int32_t slot, position;
  if (!args.places.place(token, slot, position) || position < args.chunk) return;
  const int chunks = position / args.chunk + 1, column = 2 * laneOf();
  float max = kMinusInfinity, sum = 0.0f;
  float out[kPairs][2] = {};
#pragma unroll 4
  for (int chunk = 0; chunk < chunks; chunk++) {
    const int64_t part = row * args.mostChunks + chunk;
    const float2 state = args.partStates[part];
    const ChunkFactors factors = joinChunk(max, sum, state.x, state.y);
#pragma unroll
    for (int j = 0; j < kPairs; j++) {
      if (column + 64 * j >= args.headDim) continue;
      const float2 x = *reinterpret_cast<const float2*>(args.parts + part * args.headDim + column + 64 * j);
      out[j][0] = joined(out[j][0], x.x, factors);
      out[j][1] = joined(out[j][1], x.y, factors);
    }
  }
  const float inverse = __frcp_rn(sum);
#pragma unroll
  for (int j = 0; j < kPairs; j++)
    if (column + 64 * j < args.headDim)
      storePair(args.out + row * args.headDim + column + 64 * j, normalized(out[j][0], inverse),
                normalized(out[j][1], inverse));
}

// Blocks for single tokens, and where there may be longer runs of a slot, for those.
template <class T, int kDim, int kStep>
void attend(PagedAttention<T> args, int64_t slots, Launcher& gpu) {
  constexpr int kRowBytes = kDim * int(sizeof(T));
  constexpr int kRowGroups = kRowBytes <= 256 ? 4 : kRowBytes <= 512 ? 2 : 1;
  const int group = args.numHeads / args.numKvHeads;
  const auto rangesOf = [&](int heads) { return args.numKvHeads * ceilDiv(group, heads); };

  using Runs = PagedBlock<T, kDim, kStep, kRowGroups, true>;
  args.headsPerBlock = std::min(group, Runs::kRows);
  // A step with no more tokens than slots is one of decoding: no slot has two of them, or few have.
  args.runsWithin = args.tokens > slots ? Runs::kRows / args.headsPerBlock : 1;
  if (args.runsWithin > 1)
    gpu.launch(pagedAttentionKernel<Runs>,
               Grid{ceilDiv(args.tokens, args.runsWithin), rangesOf(args.headsPerBlock)}, Runs::kThreads,
               Runs::sharedBytes(args.mostChunks > 1), args);

  using One = PagedBlock<T, kDim, kStep, 1, false>;
  args.headsPerBlock = std::min(group, One::kRows);
  const int64_t ranges = rangesOf(args.headsPerBlock);
  // Enough blocks for all multiprocessors, twice.
  int64_t shares =
      std::min<int64_t>(args.mostChunks, ceilDiv(8 * gpu.properties().multiprocessors, args.tokens * ranges));
  const int64_t parts = int64_t(args.tokens) * args.numHeads * args.mostChunks;
  if (parts * (args.headDim + 2) * int64_t(sizeof(float)) > kMostPartBytes) shares = 1;
  if (shares > 1) {
    args.parts = gpu.scratch<float>(parts * args.headDim);
    args.partStates = gpu.scratch<float2>(parts);
  }
  gpu.launch(pagedAttentionKernel<One>, Grid{args.tokens, ranges, shares}, One::kThreads,
             One::sharedBytes(args.mostChunks > 1 && shares == 1), args);
  if (shares > 1)
    gpu.launch(joinChunksKernel<T>, Grid{ceilDiv(int64_t(args.tokens) * args.numHeads, kJoinWarps)},
               32 * kJoinWarps, 0, args);
}

// Steps of 16 KiB or less, and of 32 keys where tiles are no multiples of 64.
template <class T, int kDim>
void attendInSteps(const PagedAttention<T>& args, int64_t slots, Launcher& gpu) {
  constexpr int kRowBytes = kDim * int(sizeof(T));
  if constexpr (kRowBytes <= 256 && sizeof(T) == 2) {
    if (args.tile % 64 == 0) return attend<T, kDim, 64>(args, slots, gpu);
  }
  attend<T, kDim, kRowBytes <= 512 ? 32 : 16>(args, slots, gpu);
}

void pagedAttention(const PagedAttentionArgs& args, Launcher& gpu) {
  const AttentionShape& shape = args.shape;
  if (shape.tokens == 0) return;
  const int capacity = int(args.cache.pagesPerSlot) * kPageSize;
  const int all = int(ceilDiv(std::max(capacity, 1), args.tile)) * args.tile;
  const int chunk = args.chunk == 0 ? all : std::min(args.chunk, all);
  dispatchFloat(shape.dtype, [&](auto zero) {
    using T = decltype(zero);
    const PagedAttention<T> kernelArgs{static_cast<const T*>(args.qkv),
                                       static_cast<const T*>(args.cache.keys),
                                       static_cast<const T*>(args.cache.values),
                                       static_cast<T*>(args.out),
                                       pagedPlaces(args.cache, args.slots, args.positions, gpu),
                                       int(shape.tokens),
                                       shape.numHeads,
                                       shape.numKvHeads,
                                       shape.headDim,
                                       1,
                                       1,
                                       chunk,
                                       args.tile,
                                       int(ceilDiv(std::max(capacity, 1), chunk)),
                                       args.scale * kLog2E,
                                       nullptr,
                                       nullptr};
    if (shape.headDim <= 64)
      attendInSteps<T, 64>(kernelArgs, args.cache.slots, gpu);
    else if (shape.headDim <= 128)
      attendInSteps<T, 128>(kernelArgs, args.cache.slots, gpu);
    else
      attendInSteps<T, 256>(kernelArgs, args.cache.slots, gpu);
  });
}

}  // namespace

void registerRolloutAttention(Registry& registry) {
  addKernel<PagedAttentionArgs>(registry, Family::rollout, pagedAttention);
}

}  // namespace isopolicy::cuda
