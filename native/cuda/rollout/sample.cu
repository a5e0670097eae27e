// Sampling of one token a row, by inversion of the cumulative distribution in the order of token ids.
//
// The uniform number of a draw is a function of (seed, prompt, sample, position) alone, and its probabilities
// of the row alone, so a draw does not depend on what else is in the batch.
#include "ops/sample.h"

#include "core/random.h"
#include "cuda/rollout/sample_cut.cuh"

namespace isopolicy::cuda {
namespace {

__device__ __forceinline__ double uniformOf(const SampleArgs& args, int64_t i) {
  const int32_t* key = args.keys + 4 * i;
  const Philox bits =
      philox(uint32_t(key[0]), uint32_t(key[1]), uint32_t(key[2]), 0, args.seedLow, args.seedHigh);
  return uniform53(bits.word[0], bits.word[1]);
}

template <int kWarps, class Row>
__device__ __forceinline__ float lseOf(const Row& row, const Pieces& pieces, float& max) {
  __shared__ float lse;
  const LogSum sum = sumRow<kWarps, false>(row, pieces);
  max = sum.max;
  __syncthreads();  // the one before has been read
  if (threadIdx.x == 0) lse = logsOf(sum).lse;
  __syncthreads();
  return lse;
}

// The first id with the largest x.
template <int kWarps, class T>
__device__ __forceinline__ int32_t mostLikely(const KeptRow<T>& row, int columns, float max) {
  int32_t id = columns;
  eachToken<kWarps>(row, columns, [&](float x, int j) {
    if (x == max) id = min(id, j);
  });
  return blockReduce<kWarps>(id, Least{});
}

// The first id at which the cumulative mass exceeds u times the whole; always one with mass.
template <int kWarps, class T>
__device__ __forceinline__ int32_t invert(const KeptRow<T>& row, int columns, float max, double u,
                                          SampleShared<kWarps>& shared) {
  constexpr int kThreads = 32 * kWarps;
  const auto& upTo = shared.sums;
  auto& ofRuns = shared.masses;
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const Runs<kWarps> runs(columns);
  const auto massOf = [&](int first, int end) {
    float logits[kLogitGroup], mass = 0.0f;
    row.load(first, end, logits);
    row.eachKept(first, logits, [&](float x, int) { mass = mass + expBelow(x - max); });
    return mass;
  };
  ofRuns[thread] = 0.0f;
  __syncthreads();
  for (int run = warp; run < runs.count(); run += kWarps) {
    float mass = 0.0f;
    for (int first = runs.begin(run); first < runs.end(run); first += kLogitSpan)
      mass = mass + massOf(first, runs.end(run));
    mass = warpSum(mass);
    if (lane == 0) ofRuns[run] = mass;
  }
  __syncthreads();
  sumUpTo(double(ofRuns[thread]), shared);
  const double wanted = u * upTo[kThreads - 1];
  int run = firstThread<kWarps>(ofRuns[thread] > 0.0f && upTo[thread] > wanted);
  // Rounding may leave `wanted` at the very end, and then the last run with mass takes it; likewise below,
  // where the sum within a run has another order than that of the whole run.
  if (run == kThreads) run = -blockReduce<kWarps>(ofRuns[thread] > 0.0f ? -thread : 0, Least{});
  if (warp == 0) {
    double before = run > 0 ? upTo[run - 1] : 0.0;
    int32_t id = columns, last = 0;  // of this lane
    for (int first = runs.begin(run); first < runs.end(run); first += kLogitSpan) {
      float logits[kLogitGroup];
      const float mine = massOf(first, runs.end(run)), sum = sumUpToLane(mine);
      double mass = before + double(sum - mine);
      row.load(first, runs.end(run), logits);
      row.eachKept(first, logits, [&](float x, int j) {
        const float p = expBelow(x - max);
        if (!(p > 0.0f)) return;
        last = j;
        mass += double(p);
        if (mass > wanted) id = min(id, j);
      });
      before += double(__shfl_sync(0xffffffffu, sum, 31));
      if (__any_sync(0xffffffffu, id < columns)) break;
    }
    id = warpReduce(id, Least{});
    last = warpMax(last);
    if (lane == 0) shared.found = id < columns ? id : last;
  }
  __syncthreads();
  return shared.found;
}

// A row a block: it is read once for its log-sum-exp and once for the draw, and between them, where tokens
// are cut off, two to four times for each cut and once more for the log-sum-exp of what is left. The first
// time from memory, then from L2.
template <class T, int kWarps>
__global__ void __launch_bounds__(32 * kWarps, 1)
    sampleKernel(SampleArgs args, Pieces pieces, Temperature temperature, Check check) {
  __shared__ SampleShared<kWarps> shared;
  const int64_t i = blockIdx.x;
  const auto put = [&](int32_t id, float logprob) {
    if (threadIdx.x > 0) return;
    args.ids[i] = id;
    args.logprobs[i] = logprob;
  };
  if (args.keys[4 * i + 3] < 0) return put(0, 0.0f);
  const int columns = int(args.columns);
  const LogitRow<T> all{static_cast<const T*>(args.logits) + i * args.columns, temperature};
  float max;
  float lse = lseOf<kWarps>(all, pieces, max);
  if (!(fabsf(lse) < INFINITY)) {
    if (threadIdx.x == 0) report(check, i, 0);
    return put(0, lse);
  }
  KeptRow<T> row{all, Cut::ofNothing()};
  if (args.temperature == 0.0f) return put(mostLikely<kWarps>(row, columns, max), max - lse);
  const bool byCount = args.topK > 0 && args.topK < args.columns;
  if (byCount) row.cut = cutRow<false>(row, columns, max, double(args.topK), shared);
  if (args.topP < 1.0) row.cut = cutRow<true>(row, columns, max, args.topP, shared);
  if (byCount || args.topP < 1.0) lse = lseOf<kWarps>(row, pieces, max);
  const int32_t id = invert(row, columns, max, uniformOf(args, i), shared);
  put(id, row.one(id) - lse);
}

void sample(const SampleArgs& args, Launcher& gpu) {
  if (args.rows == 0) return;
  const Check check = gpu.check(
      "expected logits below infinity, one of them at least finite, got row %i with NaN, infinity or nothing "
      "finite");
  // Greedy: the log-prob is that of temperature 1.
  const auto temperature = Temperature::of(args.temperature == 0.0f ? 1.0f : args.temperature);
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto launch = [&](auto kernel, int warps) {
      gpu.launch(kernel, Grid{args.rows}, 32 * warps, 0, args, Pieces::of(args.columns, args.chunk),
                 temperature, check);
    };
    // By the columns alone: how many threads share a row is seen in the last bits of the cumulative sums.
    if (args.columns <= 512)
      launch(sampleKernel<T, 1>, 1);
    else
      launch(sampleKernel<T, 16>, 16);
  });
}

}  // namespace

void registerRolloutSample(Registry& registry) { addKernel<SampleArgs>(registry, Family::rollout, sample); }

}  // namespace isopolicy::cuda
