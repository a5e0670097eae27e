// Where the distribution of a row is cut by top k or top p, without a sort, by a block of kWarps warps.
//
// Tokens are in order of likelihood, of equals the lower id first. A range of them is divided into bins, in
// which tokens or their mass are counted; the bin in which the wanted amount is reached is the next range:
// first by the distance from the maximum, eight bins to a nat, then by the bits of x. As soon as a range has
// few tokens they are ranked, each by a thread. Counting is by integers, mass in fixed point, so that the
// order in which threads come changes nothing; each division reads the row once.
#pragma once
#include "cuda/shared/log_softmax_row.cuh"

namespace isopolicy::cuda {

// Unsigned numbers in the order of floats; both zeros are one.
__device__ __forceinline__ uint32_t orderOf(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float inOrder(uint32_t order) {
  return __uint_as_float(order >> 31 ? order & 0x7fffffffu : ~order);
}

// The last token that is kept.
struct Cut {
  uint32_t order;
  int32_t id;
  static __device__ __forceinline__ Cut ofNothing() { return {0, 0x7fffffff}; }
  __device__ __forceinline__ bool keeps(uint32_t x, int32_t j) const {
    return x > order || (x == order && j <= id);
  }
};

template <class T>
struct KeptRow : LogitRow<T> {
  static constexpr bool kMasks = true;
  Cut cut;

  __device__ __forceinline__ float kept(float logit, int64_t j) const {
    return cut.keeps(orderOf(this->prepared(logit)), int32_t(j)) ? logit : -INFINITY;
  }
  // This lane's logits of the kLogitSpan columns from `first` on, those up to `end`.
  __device__ __forceinline__ void load(int first, int end, float (&logits)[kLogitGroup]) const {
    const int j = first + int(threadIdx.x % 32) * kLogitGroup;
    loadGroup(this->logits + j, end - j, isAligned16(this->logits + j), -INFINITY, logits);
  }
  // Calls body(x, j) for those of them that are kept, in order.
  template <class Body>
  __device__ __forceinline__ void eachKept(int first, const float (&logits)[kLogitGroup], Body body) const {
    const int j = first + int(threadIdx.x % 32) * kLogitGroup;
#pragma unroll
    for (int i = 0; i < kLogitGroup; i++) {
      const float x = this->prepared(logits[i]);
      if (x > -INFINITY && cut.keeps(orderOf(x), j + i)) body(x, j + i);
    }
  }
};

// Calls body(x, j) for all tokens that are kept, by all threads.
template <int kWarps, class T, class Body>
__device__ __forceinline__ void eachToken(const KeptRow<T>& row, int columns, Body body) {
  constexpr int kStep = kWarps * kLogitSpan;
  int first = int(threadIdx.x) / 32 * kLogitSpan;
  float now[kLogitGroup], next[kLogitGroup];
  row.load(first, columns, now);
  for (; first < columns; first += kStep) {
    row.load(first + kStep, columns, next);
    row.eachKept(first, now, body);
#pragma unroll
    for (int i = 0; i < kLogitGroup; i++) now[i] = next[i];
  }
}

// Runs of tokens in order of id, one for each thread or fewer; a warp has one at a time.
template <int kWarps>
struct Runs {
  int columns, length;
  __device__ __forceinline__ explicit Runs(int columns)
      : columns(columns),
        length((columns + 32 * kWarps * kLogitSpan - 1) / (32 * kWarps * kLogitSpan) * kLogitSpan) {}
  __device__ __forceinline__ int begin(int run) const { return run * length; }
  __device__ __forceinline__ int end(int run) const { return begin(run) + min(columns - begin(run), length); }
  __device__ __forceinline__ int count() const { return (columns + length - 1) / length; }
};

// Shared memory of a block, an element a thread.
template <int kWarps>
struct SampleShared {
  static constexpr int kThreads = 32 * kWarps;
  double sums[kThreads];
  uint32_t counts[kThreads], low[kThreads], high[kThreads], orders[kThreads];
  int32_t ids[kThreads], ranked[kThreads];
  float masses[kThreads];
  double ofWarps[kWarps];
  uint32_t listed;
  int32_t found;
};

// The sum of the values of this thread and of those before it.
template <class T>
__device__ __forceinline__ T sumUpToLane(T value) {
#pragma unroll
  for (int lanes = 1; lanes < 32; lanes *= 2) {
    const T before = __shfl_up_sync(0xffffffffu, value, lanes);
    if (int(threadIdx.x % 32) >= lanes) value = value + before;
  }
  return value;
}
// Leaves them in shared.sums.
template <int kWarps>
__device__ __forceinline__ void sumUpTo(double value, SampleShared<kWarps>& shared) {
  value = sumUpToLane(value);
  if (threadIdx.x % 32 == 31) shared.ofWarps[threadIdx.x / 32] = value;
  __syncthreads();
  double before = 0.0;
  for (int warp = 0; warp < int(threadIdx.x) / 32; warp++) before = before + shared.ofWarps[warp];
  shared.sums[threadIdx.x] = before + value;
  __syncthreads();
}

struct Least {
  __device__ __forceinline__ int operator()(int a, int b) const { return min(a, b); }
};
// The first thread for which it holds, or the number of threads.
template <int kWarps>
__device__ __forceinline__ int firstThread(bool holds) {
  return blockReduce<kWarps>(holds ? int(threadIdx.x) : 32 * kWarps, Least{});
}

// Tokens with equal upper bits of their order, in one of the bins by distance. A thread has a bin.
template <int kWarps>
struct TokenRange {
  static constexpr int kBinsPerNat = 8, kBits = kWarps == 1 ? 5 : 9;
  static_assert(1 << kBits == 32 * kWarps);
  float max;
  int bin = -1;  // all
  int shift = 32;
  uint32_t upper = 0;

  __device__ __forceinline__ int binOf(float x) const {
    return int(min((max - x) * kBinsPerNat, float(32 * kWarps - 1)));
  }
  __device__ __forceinline__ bool has(float x) const {
    return (bin < 0 || binOf(x) == bin) && (shift == 32 || orderOf(x) >> shift == upper);
  }
  __device__ __forceinline__ int nextShift() const { return shift < kBits ? 0 : shift - kBits; }
  // Of a token of the range, in which bin it is, the most likely one first.
  __device__ __forceinline__ int nextBinOf(float x) const {
    if (bin < 0) return binOf(x);
    const uint32_t bins = 1u << (shift - nextShift());
    return int(bins - 1 - (orderOf(x) >> nextShift() & (bins - 1)));
  }
  __device__ __forceinline__ void narrow(int next) {
    if (bin < 0) {
      bin = next;
      return;
    }
    const int bits = shift - nextShift();
    upper = upper << bits | ((1u << bits) - 1 - uint32_t(next));
    shift = nextShift();
  }
  __device__ __forceinline__ bool ofEquals() const { return shift == 0; }

  // exp(x - max), of a token of some bin by distance: so many times unitOf(bin), which is 2^-24 and less.
  __device__ __forceinline__ uint32_t massOf(float x, int ofBin) const {
    return uint32_t(__float2int_rn(expf(float(ofBin) / kBinsPerNat - (max - x)) * 0x1p24f));
  }
  static __device__ __forceinline__ double unitOf(int ofBin) {
    return 0x1p-24 * exp(-double(ofBin) / kBinsPerNat);
  }
};

// The id of the n-th token of that order, 1 being the first.
template <int kWarps, class T>
__device__ __forceinline__ int32_t idOfEqual(const KeptRow<T>& row, int columns, uint32_t order, double n,
                                             SampleShared<kWarps>& shared) {
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const Runs<kWarps> runs(columns);
  const auto countOf = [&](int first, int end) {
    float logits[kLogitGroup];
    row.load(first, end, logits);
    int count = 0;
    row.eachKept(first, logits, [&](float x, int) { count += orderOf(x) == order; });
    return count;
  };
  shared.counts[thread] = 0;
  __syncthreads();
  for (int run = warp; run < runs.count(); run += kWarps) {
    int count = 0;
    for (int first = runs.begin(run); first < runs.end(run); first += kLogitSpan)
      count += countOf(first, runs.end(run));
    count = warpSum(count);
    if (lane == 0) shared.counts[run] = count;
  }
  __syncthreads();
  sumUpTo(shared.counts[thread], shared);
  const int run = firstThread<kWarps>(shared.sums[thread] >= n);
  if (warp == 0) {
    int left = int(n - (run > 0 ? shared.sums[run - 1] : 0.0));
    for (int first = runs.begin(run); left > 0; first += kLogitSpan) {
      const int count = countOf(first, runs.end(run)), upTo = sumUpToLane(count);
      float logits[kLogitGroup];
      row.load(first, runs.end(run), logits);
      int at = upTo - count;
      row.eachKept(first, logits, [&](float x, int j) {
        if (orderOf(x) == order && ++at == left) shared.found = j;
      });
      left -= __shfl_sync(0xffffffffu, upTo, 31);
    }
  }
  __syncthreads();
  return shared.found;
}

// kByMass: the smallest set of most likely tokens that has the `wanted` part of the mass of those that `row`
// keeps; else, the `wanted` most likely ones. `max` is the largest x of the row.
template <bool kByMass, int kWarps, class T>
__device__ __forceinline__ Cut cutRow(const KeptRow<T>& row, int columns, float max, double wanted,
                                      SampleShared<kWarps>& shared) {
  constexpr int kThreads = 32 * kWarps;
  using Range = TokenRange<kWarps>;
  const int thread = int(threadIdx.x);
  Range range{max};
  double before = 0.0;  // of the tokens that are more likely than the range
  uint32_t inRange = 0;
  do {
    shared.counts[thread] = shared.low[thread] = shared.high[thread] = 0;
    __syncthreads();
    eachToken<kWarps>(row, columns, [&](float x, int) {
      if (!range.has(x)) return;
      const int bin = range.nextBinOf(x);
      atomicAdd(&shared.counts[bin], 1u);
      if constexpr (kByMass) {
        const uint32_t mass = range.massOf(x, range.bin < 0 ? bin : range.bin);
        if (atomicAdd(&shared.low[bin], mass) > ~mass) atomicAdd(&shared.high[bin], 1u);  // it overflowed
      }
    });
    __syncthreads();
    double amount = shared.counts[thread];
    if constexpr (kByMass)
      amount = (shared.high[thread] * 0x1p32 + shared.low[thread]) *
               Range::unitOf(range.bin < 0 ? thread : range.bin);
    sumUpTo(amount, shared);
    if (kByMass && range.bin < 0) wanted *= shared.sums[kThreads - 1];
    const int edge = firstThread<kWarps>(shared.counts[thread] > 0 && before + shared.sums[thread] >= wanted);
    if (edge == kThreads) return row.cut;  // there are no more
    before += edge > 0 ? shared.sums[edge - 1] : 0.0;
    inRange = shared.counts[edge];
    range.narrow(edge);
    __syncthreads();  // before they are cleared
  } while (inRange > kThreads && !range.ofEquals());

  const double unit = kByMass ? Range::unitOf(range.bin) : 1.0;
  if (inRange > kThreads) {
    const uint32_t mass = kByMass ? range.massOf(inOrder(range.upper), range.bin) : 1u;
    const double needed = ceil((wanted - before) / (unit * mass));
    // More than there are where the mass of each is nothing.
    const double kept = needed < double(inRange) ? fmax(needed, 1.0) : double(inRange);
    return {range.upper, idOfEqual(row, columns, range.upper, kept, shared)};
  }
  if (thread == 0) shared.listed = 0;
  __syncthreads();
  eachToken<kWarps>(row, columns, [&](float x, int j) {
    if (!range.has(x)) return;
    const uint32_t place = atomicAdd(&shared.listed, 1u);
    shared.orders[place] = orderOf(x);
    shared.ids[place] = j;
    shared.low[place] = kByMass ? range.massOf(x, range.bin) : 1u;
  });
  __syncthreads();
  const int count = int(inRange);
  if (thread < count) {
    const Cut mine{shared.orders[thread], shared.ids[thread]};
    int rank = -1;  // it keeps itself
    for (int i = 0; i < count; i++) rank += mine.keeps(shared.orders[i], shared.ids[i]);
    shared.ranked[rank] = thread;
  }
  __syncthreads();
  sumUpTo(thread < count ? double(shared.low[shared.ranked[thread]]) : 0.0, shared);
  const int last =
      min(firstThread<kWarps>(thread < count && before + shared.sums[thread] * unit >= wanted), count - 1);
  return {shared.orders[shared.ranked[last]], shared.ids[shared.ranked[last]]};
}

}  // namespace isopolicy::cuda
