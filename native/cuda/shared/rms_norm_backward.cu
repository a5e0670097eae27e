// Gradients of RMSNorm: with v the normalised input (x, or x + delta in fp32) and r = 1 / rms(v),
//   dv = r * (dy * w - v * r^2 * mean(dy * w * v)),  dw = sum over rows of dy * v * r.
// fp32 throughout, dv rounded once. A block has a strip of rows and sums their dw in order; a second kernel
// adds the strips in an order of its own. Both follow from the shape alone.
#include "ops/rms_norm.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rms_norm.cuh"

namespace isopolicy::cuda {
namespace {

// Enough strips for every multiprocessor, and few enough that their sums stay in the L2 cache.
constexpr int kMostStrips = 640, kLeastRows = 4;
// Blocks up to this size leave registers for three of them, and more of the smaller ones.
constexpr int kUsualThreads = 256;

template <class T>
struct NormBackward {
  const T* dSum;
  const T* dy;
  const T* x;
  const T* delta;
  const T* weight;
  T* dx;
  float* strips;  // [strips, width] of dw, or null
  int64_t rows;
  int width;
  float eps;
};

// A group of threads a row, `steps` rows one after the other. Memory-bound: a row and its gradient stay in
// registers between the two looks at them, dw between rows (of columns beyond 16 KiB a row, in the caches).
template <class T, Layout kLayout, int kMostThreads>
__global__ void __launch_bounds__(kMostThreads,
                                  kLayout == Layout::whole && kMostThreads <= kUsualThreads ? 3 : 1)
    rmsNormBackwardKernel(NormBackward<T> a, int group, int64_t steps) {
  constexpr int kSize = Pack<T>::kSize;
  constexpr bool kLonger = kMostThreads == kLargestGroup;  // rows may be than their group holds
  const int together = int(blockDim.x) / group, lane = int(threadIdx.x) % group;
  const auto partStart = [&](int p) { return (lane + p * group) * kSize; };
  float* ofStrip = a.strips ? a.strips + int64_t(blockIdx.x) * a.width : nullptr;
  float dw[kPartsEach][kSize] = {};

  for (int64_t step = 0; step < steps; step++) {
    const int64_t row = (blockIdx.x * steps + step) * together + threadIdx.x / group;
    // Threads without a row take part in the reductions alone.
    const int width = row < a.rows ? a.width : 0;
    const int64_t start = row * a.width;
    const auto load = [&](int first, float(&v)[kSize], Pack<T>& dy) {
      loadParts<kLayout>(a.x + start, first, width, v);
      dy = loadPart<kLayout>(a.dy + start, first, width);
      if (a.delta == nullptr) return;
      float d[kSize];
      loadParts<kLayout>(a.delta + start, first, width, d);
#pragma unroll
      for (int i = 0; i < kSize; i++) v[i] = __fadd_rn(v[i], d[i]);
    };
    float2 sums = {0.0f, 0.0f};  // of v^2 and of dy * w * v
    const auto look = [&](int first, const float(&v)[kSize], const Pack<T>& dy) {
      float d[kSize], w[kSize];
      dy.widen(d);
      loadParts<kLayout>(a.weight, first, width, w);
#pragma unroll
      for (int i = 0; i < kSize; i++) {
        sums.x = plusProduct(sums.x, v[i], v[i]);
        sums.y = plusProduct(sums.y, __fmul_rn(d[i], w[i]), v[i]);
      }
    };
    float v[kPartsEach][kSize];
    Pack<T> dy[kPartsEach];
#pragma unroll
    for (int p = 0; p < kPartsEach; p++)
      if (partStart(p) < width) load(partStart(p), v[p], dy[p]);
#pragma unroll
    for (int p = 0; p < kPartsEach; p++)
      if (partStart(p) < width) look(partStart(p), v[p], dy[p]);
    for (int first = partStart(kPartsEach); kLonger && first < width; first += group * kSize) {
      float more[kSize];
      Pack<T> moreDy;
      load(first, more, moreDy);
      look(first, more, moreDy);
    }
    sums = groupSums(sums, group);
    const float r = inverseRms(sums.x, a.width, a.eps);
    const float along = __fmul_rn(__fmul_rn(__fdiv_rn(sums.y, float(a.width)), r), r);

    // Stores the gradient of a part and adds what it has to dw.
    const auto differentiate = [&](int first, const float(&v)[kSize], const Pack<T>& dy, float(&dw)[kSize]) {
      float d[kSize], w[kSize];
      dy.widen(d);
      loadParts<kLayout>(a.weight, first, width, w);
#pragma unroll
      for (int i = 0; i < kSize; i++) {
        dw[i] = plusProduct(dw[i], d[i], __fmul_rn(v[i], r));
        d[i] = __fmul_rn(r, __fsub_rn(__fmul_rn(d[i], w[i]), __fmul_rn(v[i], along)));
      }
      if (a.dSum != nullptr) {
        float incoming[kSize];
        loadParts<kLayout>(a.dSum + start, first, width, incoming);
#pragma unroll
        for (int i = 0; i < kSize; i++) d[i] = __fadd_rn(incoming[i], a.delta ? d[i] : roundThrough<T>(d[i]));
      }
      storeParts<kLayout>(a.dx + start, first, width, d);
    };
#pragma unroll
    for (int p = 0; p < kPartsEach; p++)
      if (partStart(p) < width) differentiate(partStart(p), v[p], dy[p], dw[p]);
    for (int first = partStart(kPartsEach); kLonger && first < width; first += group * kSize) {
      float more[kSize], sum[kSize] = {};
      Pack<T> moreDy;
      load(first, more, moreDy);
      if (ofStrip != nullptr && step > 0) loadParts<kLayout>(ofStrip, first, width, sum);
      differentiate(first, more, moreDy, sum);
      if (ofStrip != nullptr) storeParts<kLayout>(ofStrip, first, width, sum);
    }
  }
  if (ofStrip == nullptr) return;
  if (together == 1) {
#pragma unroll
    for (int p = 0; p < kPartsEach; p++)
      if (partStart(p) < a.width) storeParts<kLayout>(ofStrip, partStart(p), a.width, dw[p]);
    return;
  }
  // Of the groups of a block in order.
  constexpr int kEach = kPartsEach * kSize;
  __shared__ float ofGroups[kLeastThreads * kEach];
  float* own = ofGroups + threadIdx.x / group * group * kEach;
#pragma unroll
  for (int p = 0; p < kPartsEach; p++)
#pragma unroll
    for (int i = 0; i < kSize; i++) own[partStart(p) + i] = dw[p][i];
  __syncthreads();
  for (int c = int(threadIdx.x); c < a.width; c += int(blockDim.x)) {
    float sum = ofGroups[c];
    for (int k = 1; k < together; k++) sum = __fadd_rn(sum, ofGroups[k * group * kEach + c]);
    ofStrip[c] = sum;
  }
}

// gradWeight += the strips. A block has 32 columns; a warp takes every 32nd strip, and the warps' sums are
// added in order. Limited by how fast the L2 cache answers.
constexpr int kColumns = 32, kWarps = 32, kThreads = kColumns * kWarps;
__global__ void __launch_bounds__(kThreads)
    addStripsKernel(const float* strips, int count, int64_t width, float* gradWeight) {
  __shared__ float ofWarps[kWarps][kColumns];
  const int warp = int(threadIdx.x) / kColumns, lane = int(threadIdx.x) % kColumns;
  const int64_t column = int64_t(blockIdx.x) * kColumns + lane;
  float sum = 0.0f;
  if (column < width) {
#pragma unroll 8
    for (int strip = warp; strip < count; strip += kWarps) sum += strips[strip * width + column];
  }
  ofWarps[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  for (int k = 1; k < kWarps; k++) sum += ofWarps[k][lane];
  gradWeight[column] += sum;
}

void rmsNormBackward(const RmsNormBackwardArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RowGroups groups = groupsFor(args.rows, partsOf<T>(args.width));
    const int64_t steps =
        args.gradWeight ? std::max<int64_t>(kLeastRows, ceilDiv(groups.blocks, kMostStrips)) : 1;
    const int64_t strips = ceilDiv(groups.blocks, steps);
    const NormBackward<T> norm{static_cast<const T*>(args.dSum),
                               static_cast<const T*>(args.dy),
                               static_cast<const T*>(args.x),
                               static_cast<const T*>(args.delta),
                               static_cast<const T*>(args.weight),
                               static_cast<T*>(args.dx),
                               args.gradWeight ? gpu.scratch<float>(strips * args.width) : nullptr,
                               args.rows,
                               int(args.width),
                               args.eps};
    const bool parts =
        inParts<T>({args.width}, {args.dSum, args.dy, args.x, args.delta, args.weight, args.dx});
    dispatchLayout<Layout::whole>(parts, [&](auto layout) {
      const auto kernel = groups.threads <= kUsualThreads ? rmsNormBackwardKernel<T, layout(), kUsualThreads>
                                                          : rmsNormBackwardKernel<T, layout(), kLargestGroup>;
      gpu.launch(kernel, Grid{strips}, groups.threads, 0, norm, groups.group, steps);
    });
    if (norm.strips != nullptr)
      gpu.launch(addStripsKernel, Grid{ceilDiv(args.width, kColumns)}, kThreads, 0, norm.strips, int(strips),
                 args.width, args.gradWeight);
  });
}

}  // namespace

void registerRmsNormBackward(Registry& registry) {
  addKernel<RmsNormBackwardArgs>(registry, Family::shared, rmsNormBackward);
}

}  // namespace isopolicy::cuda
