// A stable counting sort of choices by expert.
//
// Few choices, as of a decode step, in one launch: the row of a choice is the number of choices before it in
// the order of (expert, position), and a thread a choice counts them over keys in shared memory. Many in
// three: warps count the choices of 256 each, the counts become the rows before them, and the warps walk
// their choices again and hand out rows in order. Latency-bound either way: some microseconds.
#include "ops/group_by_expert.h"

#include "cuda/shared/expert_ids.cuh"
#include "cuda/shared/kernel.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kFew = 2048, kFewThreads = 128;
constexpr int kAfterAll = std::numeric_limits<int>::max();

// Threads beyond the choices have an expert each, whose first row is the number of choices of those before.
__global__ void __launch_bounds__(kFewThreads) fewKernel(GroupByExpertArgs args, Check badId) {
  __shared__ int4 fours[kFew / 4];
  int* keys = &fours[0].x;
  const int choices = int(args.count * args.k), experts = int(args.experts);
  const int padded = (choices + 3) / 4 * 4;
  if (blockIdx.x == 0) checkExpertIds(args.ids, 0, choices, experts, int(threadIdx.x), kFewThreads, badId);
  for (int i = int(threadIdx.x); i < padded; i += kFewThreads)
    keys[i] = i < choices ? expertWithin(args.ids[i], experts) * choices + i : kAfterAll;
  __syncthreads();
  const int i = int(blockIdx.x) * kFewThreads + int(threadIdx.x);
  if (i > choices + experts) return;
  const int key = i < choices ? keys[i] : (i - choices) * choices;
  int before = 0;
#pragma unroll 4
  for (int j = 0; j < padded / 4; j++) {
    const int4 four = fours[j];
    before += (four.x < key) + (four.y < key) + (four.z < key) + (four.w < key);
  }
  if (i < choices) {
    args.rows[i] = before;
    args.tokens[before] = i / int(args.k);
  } else {
    args.offsets[i - choices] = before;
  }
}

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kSteps = 8, kChunk = 32 * kSteps;  // choices of a warp
constexpr int kChunkWarps = 4;

// body(i, expert, lanes of the choices of the same expert) for the choices of a warp, 32 at a time in their
// order; the expert is -1 beyond the last.
template <class Body>
__device__ __forceinline__ void eachChoice(const GroupByExpertArgs& args, int64_t chunk, Body body) {
  const int64_t choices = args.count * args.k;
  int experts[kSteps];
#pragma unroll
  for (int step = 0; step < kSteps; step++) {
    const int64_t i = chunk * kChunk + step * 32 + threadIdx.x % 32;
    experts[step] = i < choices ? expertWithin(args.ids[i], int(args.experts)) : -1;
  }
#pragma unroll
  for (int step = 0; step < kSteps; step++) {
    const unsigned same = __match_any_sync(kAllLanes, experts[step]);
    body(chunk * kChunk + step * 32 + threadIdx.x % 32, experts[step], same);
    __syncwarp();
  }
}

// counts[chunk, expert]
__global__ void __launch_bounds__(32 * kChunkWarps)
    countKernel(GroupByExpertArgs args, int64_t chunks, int32_t* counts, unsigned* arrived, Check badId) {
  const int64_t chunk = int64_t(blockIdx.x) * kChunkWarps + threadIdx.x / 32;
  const int lane = int(threadIdx.x % 32);
  if (blockIdx.x == 0 && threadIdx.x == 0) *arrived = 0;  // of the blocks of the next kernel
  if (chunk >= chunks) return;
  const int64_t first = chunk * kChunk;
  checkExpertIds(args.ids + first, first, min(args.count * args.k - first, int64_t(kChunk)),
                 int(args.experts), lane, 32, badId);
  int32_t* row = counts + chunk * args.experts;
  for (int64_t e = lane; e < args.experts; e += 32) row[e] = 0;
  __syncwarp();
  eachChoice(args, chunk, [&](int64_t, int expert, unsigned same) {
    if (expert >= 0 && lane == __ffs(int(same)) - 1) row[expert] += __popc(same);
  });
}

constexpr int kSegments = 32;

// counts[chunk, e] becomes the number of e's choices in the chunks before; offsets as the output has them. A
// block has 32 experts, a warp a segment of the chunks; the last block to arrive adds up the experts.
__global__ void __launch_bounds__(32 * kSegments)
    offsetsKernel(int32_t* counts, int64_t chunks, int64_t experts, int32_t* offsets, unsigned* arrived) {
  __shared__ int32_t ofSegments[kSegments][32];
  __shared__ bool last;
  const int lane = int(threadIdx.x % 32), segment = int(threadIdx.x / 32);
  const int64_t e = int64_t(blockIdx.x) * 32 + lane;
  const int64_t length = (chunks + kSegments - 1) / kSegments;
  const int64_t begin = min(segment * length, chunks),
                end = e < experts ? min(begin + length, chunks) : begin;
  int32_t sum = 0;
#pragma unroll 4
  for (int64_t b = begin; b < end; b++) sum += counts[b * experts + e];
  ofSegments[segment][lane] = sum;
  __syncthreads();
  int32_t before = 0;
  for (int s = 0; s < segment; s++) before += ofSegments[s][lane];
#pragma unroll 4
  for (int64_t b = begin; b < end; b++) {
    const int32_t count = counts[b * experts + e];
    counts[b * experts + e] = before;
    before += count;
  }
  if (segment == kSegments - 1 && e < experts) offsets[e + 1] = before;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(arrived, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  if (threadIdx.x == 0) offsets[0] = 0;
  int32_t carried = 0;
  for (int64_t first = 1; first <= experts; first += 32 * kSegments) {
    const int64_t i = first + threadIdx.x;
    int32_t upTo = i <= experts ? offsets[i] : 0;
#pragma unroll
    for (int by = 1; by < 32; by *= 2) {
      const int32_t below = __shfl_up_sync(kAllLanes, upTo, by);
      if (lane >= by) upTo += below;
    }
    __syncthreads();  // the sums of the warps before have been read
    if (lane == 31) ofSegments[0][segment] = upTo;
    __syncthreads();
    for (int s = 0; s < kSegments; s++) {
      if (s == segment && i <= experts) offsets[i] = carried + upTo;
      carried += ofSegments[0][s];
    }
  }
}

__global__ void __launch_bounds__(32 * kChunkWarps)
    placeKernel(GroupByExpertArgs args, int64_t chunks, int32_t* before) {
  const int64_t chunk = int64_t(blockIdx.x) * kChunkWarps + threadIdx.x / 32;
  const int lane = int(threadIdx.x % 32);
  if (chunk >= chunks) return;
  int32_t* row = before + chunk * args.experts;
  eachChoice(args, chunk, [&](int64_t i, int expert, unsigned same) {
    const int leader = __ffs(int(same)) - 1;
    int32_t next = 0;
    if (expert >= 0 && lane == leader) {
      next = row[expert];
      row[expert] = next + __popc(same);
      next += args.offsets[expert];
    }
    next = __shfl_sync(kAllLanes, next, leader);
    if (expert < 0) return;
    next += __popc(same & ((1u << lane) - 1));
    args.rows[i] = next;
    args.tokens[next] = int32_t(i / args.k);
  });
}

void groupByExpert(const GroupByExpertArgs& args, Launcher& gpu) {
  const int64_t choices = args.count * args.k;
  const Check badId = gpu.check(expertIdMessage(args.experts));
  if (choices <= kFew && (args.experts + 1) * choices <= std::numeric_limits<int32_t>::max()) {
    gpu.launch(fewKernel, Grid{ceilDiv(choices + args.experts + 1, kFewThreads)}, kFewThreads, 0, args,
               badId);
    return;
  }
  const int64_t chunks = ceilDiv(choices, kChunk);
  const Grid grid{ceilDiv(chunks, kChunkWarps)};
  int32_t* counts = gpu.scratch<int32_t>(chunks * args.experts);
  unsigned* arrived = gpu.scratch<unsigned>(1);
  gpu.launch(countKernel, grid, 32 * kChunkWarps, 0, args, chunks, counts, arrived, badId);
  gpu.launch(offsetsKernel, Grid{ceilDiv(args.experts, 32)}, 32 * kSegments, 0, counts, chunks, args.experts,
             args.offsets, arrived);
  gpu.launch(placeKernel, grid, 32 * kChunkWarps, 0, args, chunks, counts);
}

}  // namespace

void registerGroupByExpert(Registry& registry) {
  addKernel<GroupByExpertArgs>(registry, Family::shared, groupByExpert);
}

}  // namespace isopolicy::cuda
