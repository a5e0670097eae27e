// Gradients of rows picked from a table: rows that were picked several times add up in the order of the list.
//
// First the positions are listed by row, each row's in ascending order: lists get their places in the order
// in which blocks come by, and are then sorted, so that only where they lie in scratch memory depends on it.
// Then a group of threads walks each list.
#include "ops/embedding.h"

#include "cuda/shared/embedding.cuh"
#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 256;
// Lists up to this length are sorted by comparing; a longer one is gathered anew in one pass over all ids.
constexpr int kShort = 32;

struct State {
  int listed;  // places given to lists so far
  int longLists;
  int bad;  // an id is out of range: nothing is written
};
struct Lists {
  State* state;
  int32_t* lengths;   // by row
  int32_t* begins;    // by row: where its list lies in `unsorted` and `sorted`
  int32_t* arrivals;  // by position: how many of its row came before, in the order of chance; -1: bad
  int32_t* unsorted;
  int32_t* sorted;
  int32_t* longRows;
};

__device__ __forceinline__ int64_t threadNumber() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }

// The sum of the values of the threads before, and of all. Every thread of the block takes part.
__device__ __forceinline__ int2 sumBefore(int value) {
  __shared__ int ofWarps[kThreads / 32];
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32;
  int upTo = value;
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, upTo, lanes);
    if (lane >= lanes) upTo += before;
  }
  __syncthreads();  // the sums before have been read
  if (lane == 31) ofWarps[warp] = upTo;
  __syncthreads();
  int before = upTo - value, all = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; i++) {
    if (i < warp) before += ofWarps[i];
    all += ofWarps[i];
  }
  return make_int2(before, all);
}

__global__ void __launch_bounds__(kThreads)
    countKernel(const int32_t* ids, int64_t count, int64_t rows, Lists lists, Check check) {
  const int64_t i = threadNumber();
  if (i >= count) return;
  const int32_t id = ids[i];
  if (id < 0 || id >= rows) {
    report(check, i, id);
    atomicExch(&lists.state->bad, 1);
    lists.arrivals[i] = -1;
  } else {
    lists.arrivals[i] = atomicAdd(&lists.lengths[id], 1);
  }
}

// A row's first to arrive asks for its place.
__global__ void __launch_bounds__(kThreads) reserveKernel(const int32_t* ids, int64_t count, Lists lists) {
  __shared__ int begin;
  const int64_t i = threadNumber();
  const bool asks = i < count && lists.arrivals[i] == 0;
  const int length = asks ? lists.lengths[ids[i]] : 0;
  const int2 sum = sumBefore(length);
  if (threadIdx.x == 0) begin = atomicAdd(&lists.state->listed, sum.y);
  __syncthreads();
  if (!asks) return;
  lists.begins[ids[i]] = begin + sum.x;
  if (length > kShort) lists.longRows[atomicAdd(&lists.state->longLists, 1)] = ids[i];
}

__global__ void __launch_bounds__(kThreads) placeKernel(const int32_t* ids, int64_t count, Lists lists) {
  const int64_t i = threadNumber();
  if (i >= count || lists.arrivals[i] < 0) return;
  const int32_t id = ids[i];
  if (lists.lengths[id] <= kShort) lists.unsorted[lists.begins[id] + lists.arrivals[i]] = int32_t(i);
}

// A position's place is the number of smaller ones in its list.
__global__ void __launch_bounds__(kThreads) sortKernel(const int32_t* ids, int64_t count, Lists lists) {
  const int64_t i = threadNumber();
  if (i >= count || lists.arrivals[i] < 0) return;
  const int length = lists.lengths[ids[i]], begin = lists.begins[ids[i]];
  if (length > kShort) return;
  int before = 0;
  for (int k = 0; k < length; k++) before += lists.unsorted[begin + k] < i ? 1 : 0;
  lists.sorted[begin + before] = int32_t(i);
}

// A block a long list. As many as there are, and there are few: each costs a look at all ids, from the L2
// cache.
__global__ void __launch_bounds__(kThreads) gatherKernel(const int32_t* ids, int64_t count, Lists lists) {
  constexpr int kEach = 4;
  for (int list = int(blockIdx.x); list < lists.state->longLists; list += int(gridDim.x)) {
    const int32_t id = lists.longRows[list];
    int32_t* to = lists.sorted + lists.begins[id];
    for (int64_t step = 0; step < count; step += kThreads * kEach) {
      const int64_t first = step + threadIdx.x * kEach;
      bool found[kEach];
      int own = 0;
#pragma unroll
      for (int k = 0; k < kEach; k++) {
        found[k] = first + k < count && ids[first + k] == id;
        own += found[k] ? 1 : 0;
      }
      const int2 sum = sumBefore(own);
      int at = sum.x;
#pragma unroll
      for (int k = 0; k < kEach; k++)
        if (found[k]) to[at++] = int32_t(first + k);
      to += sum.y;
    }
  }
}

// Queues the kernels that make the lists.
Lists makeLists(const int32_t* ids, int64_t count, int64_t rows, bool vocabulary, Launcher& gpu) {
  constexpr int64_t kStateWords = sizeof(State) / sizeof(int32_t);
  auto* zeroed = gpu.scratch<int32_t>(kStateWords + rows);
  gpu.zero(zeroed, size_t(kStateWords + rows) * sizeof(int32_t));
  const Lists lists{reinterpret_cast<State*>(zeroed),
                    zeroed + kStateWords,
                    gpu.scratch<int32_t>(rows),
                    gpu.scratch<int32_t>(count),
                    gpu.scratch<int32_t>(count),
                    gpu.scratch<int32_t>(count),
                    gpu.scratch<int32_t>(count / kShort + 1)};
  if (count == 0) return lists;
  const Grid grid{ceilDiv(count, kThreads)};
  gpu.launch(countKernel, grid, kThreads, 0, ids, count, rows, lists, idCheck(gpu, rows, vocabulary));
  gpu.launch(reserveKernel, grid, kThreads, 0, ids, count, lists);
  gpu.launch(placeKernel, grid, kThreads, 0, ids, count, lists);
  gpu.launch(sortKernel, grid, kThreads, 0, ids, count, lists);
  if (count > kShort) {
    const int64_t blocks = std::min<int64_t>(count / kShort, 4 * gpu.properties().multiprocessors);
    gpu.launch(gatherKernel, Grid{blocks}, kThreads, 0, ids, count, lists);
  }
  return lists;
}

// One row of the result, by a group of threads: what is there (where kAdd) and dOut's rows order[0..n) in
// order, in fp32, rounded once.
template <class T, class Out, Layout kLayout, bool kAdd>
__device__ __forceinline__ void sumRows(const T* dOut, const int32_t* order, int n, Out* out, int width,
                                        int lane, int group) {
  constexpr int kSize = Pack<T>::kSize, kMostAhead = 8, kFewAhead = 4;
  for (int first = lane * kSize; first < width; first += group * kSize) {
    float sum[kSize] = {};
    if constexpr (kAdd) loadParts<kLayout>(out, first, width, sum);
    const auto addRows = [&](int i, auto ahead) {
      constexpr int kAhead = decltype(ahead)::value;
      Pack<T> rows[kAhead];
#pragma unroll
      for (int k = 0; k < kAhead; k++)
        if (kAhead == kMostAhead || i + k < n)
          rows[k] = loadPart<kLayout>(dOut + int64_t(order[i + k]) * width, first, width);
#pragma unroll
      for (int k = 0; k < kAhead; k++) {
        if (kAhead < kMostAhead && i + k >= n) break;
        float row[kSize];
        rows[k].widen(row);
        // The first is not added to a zero, which would take the sign of a -0.
        const bool only = !kAdd && i + k == 0;
#pragma unroll
        for (int j = 0; j < kSize; j++) sum[j] = only ? row[j] : sum[j] + row[j];
      }
    };
    int i = 0;
    if constexpr (kLayout == Layout::whole)
      for (; i + kMostAhead <= n; i += kMostAhead) addRows(i, std::integral_constant<int, kMostAhead>{});
    for (; i < n; i += kFewAhead) addRows(i, std::integral_constant<int, kFewAhead>{});
    storeParts<kLayout>(out, first, width, sum);
  }
}

// A group of threads for the first to arrive of each id. Memory-bound: dOut and the rows of the gradient that
// occur pass once. An id that occurs often is the slowest: its rows are added one after the other, eight
// loads ahead.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kLargestGroup, 2)
    embeddingBackwardKernel(const T* dOut, const int32_t* ids, float* grad, int64_t count, int width,
                            Lists lists, int group) {
  const auto [i, lane] = rowPlace(group);
  if (i >= count || lists.state->bad || lists.arrivals[i] != 0) return;
  const int32_t id = ids[i];
  sumRows<T, float, kLayout, true>(dOut, lists.sorted + lists.begins[id], lists.lengths[id],
                                   grad + int64_t(id) * width, width, lane, group);
}

void embeddingBackward(const EmbeddingBackwardArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  const Lists lists = makeLists(args.ids, args.count, args.rows, true, gpu);
  if (args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RowGroups groups = groupsFor(args.count, partsOf<T>(args.width));
    dispatchLayout<Layout::whole>(inParts<T>({args.width}, {args.dOut, args.grad}), [&](auto layout) {
      gpu.launch(embeddingBackwardKernel<T, layout()>, Grid{groups.blocks}, groups.threads, 0,
                 static_cast<const T*>(args.dOut), args.ids, args.grad, args.count, int(args.width), lists,
                 groups.group);
    });
  });
}

// A group of threads for each row of the result.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kLargestGroup, 2)
    scatterRowsKernel(const T* dOut, T* out, int64_t rows, int width, Lists lists, int group) {
  const auto [r, lane] = rowPlace(group);
  if (r >= rows || lists.state->bad) return;
  const int length = lists.lengths[r];
  sumRows<T, T, kLayout, false>(dOut, length > 0 ? lists.sorted + lists.begins[r] : nullptr, length,
                                out + r * width, width, lane, group);
}

void scatterRows(const ScatterRowsArgs& args, Launcher& gpu) {
  const Lists lists = makeLists(args.index, args.count, args.rows, false, gpu);
  if (args.rows == 0 || args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RowGroups groups = groupsFor(args.rows, partsOf<T>(args.width));
    dispatchLayout<Layout::whole>(inParts<T>({args.width}, {args.dOut, args.out}), [&](auto layout) {
      gpu.launch(scatterRowsKernel<T, layout()>, Grid{groups.blocks}, groups.threads, 0,
                 static_cast<const T*>(args.dOut), static_cast<T*>(args.out), args.rows, int(args.width),
                 lists, groups.group);
    });
  });
}

}  // namespace

void registerEmbeddingBackward(Registry& registry) {
  addKernel<EmbeddingBackwardArgs>(registry, Family::shared, embeddingBackward);
  addKernel<ScatterRowsArgs>(registry, Family::shared, scatterRows);
}

}  // namespace isopolicy::cuda
