// AdamW with decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101), one pass over five arrays.
// No fused multiply-add: of the same numbers the same bits as on the CPU.
#include "ops/adamw.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/row_load.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 256, kEach = 4;

struct Weight {
  float master, m, v;
};

__device__ __forceinline__ Weight step(const AdamWArgs& args, Weight w, float grad) {
  const float g = __fmul_rn(grad, args.gradScale);
  const float m = __fadd_rn(__fmul_rn(w.m, args.beta1), __fmul_rn(g, args.oneMinusBeta1));
  const float v = __fadd_rn(__fmul_rn(w.v, args.beta2), __fmul_rn(__fmul_rn(g, g), args.oneMinusBeta2));
  const float correction = __fdiv_rn(1.0f, args.secondCorrection);
  const float denominator = __fadd_rn(__fmul_rn(__fsqrt_rn(v), correction), args.eps);
  const float decayed = __fmul_rn(w.master, args.decay);
  return {__fsub_rn(decayed, __fmul_rn(args.stepSize, __fdiv_rn(m, denominator))), m, v};
}

// Four weights a thread, in vectors of 16 bytes where all arrays are aligned to them. Memory-bound: 28 bytes
// a weight, and 2 more for its rounded copy.
template <class T>
__global__ void __launch_bounds__(kThreads) adamwKernel(AdamWArgs args, bool aligned) {
  const int64_t first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  T* compute = static_cast<T*>(args.compute);
  if (!aligned || first + kEach > args.count) {
    for (int64_t i = first; i < min(first + kEach, args.count); i++) {
      const Weight w = step(args, {args.master[i], args.m[i], args.v[i]}, args.grad[i]);
      args.master[i] = w.master;
      args.m[i] = w.m;
      args.v[i] = w.v;
      if (compute != nullptr) compute[i] = narrow<T>(w.master);
    }
    return;
  }
  float master[kEach], grad[kEach], m[kEach], v[kEach];
  loadWide(args.master + first, master);
  loadWide(args.grad + first, grad);
  loadWide(args.m + first, m);
  loadWide(args.v + first, v);
#pragma unroll
  for (int i = 0; i < kEach; i++) {
    const Weight w = step(args, {master[i], m[i], v[i]}, grad[i]);
    master[i] = w.master;
    m[i] = w.m;
    v[i] = w.v;
  }
  storeNarrow(args.master + first, master);
  storeNarrow(args.m + first, m);
  storeNarrow(args.v + first, v);
  if (compute == nullptr) return;
  if constexpr (sizeof(T) == 4) {
    storeNarrow(compute + first, master);
  } else {
    *reinterpret_cast<uint2*>(compute + first) =
        make_uint2(narrow2<T>(master[0], master[1]), narrow2<T>(master[2], master[3]));
  }
}

void adamw(const AdamWArgs& args, Launcher& gpu) {
  if (args.count == 0) return;
  const bool aligned = isAligned16(args.master) && isAligned16(args.grad) && isAligned16(args.m) &&
                       isAligned16(args.v) && isAligned16(args.compute);
  dispatchFloat(args.computeType, [&](auto zero) {
    gpu.launch(adamwKernel<decltype(zero)>, Grid{ceilDiv(args.count, kThreads * kEach)}, kThreads, 0, args,
               aligned);
  });
}

}  // namespace

void registerAdamW(Registry& registry) { addKernel<AdamWArgs>(registry, Family::shared, adamw); }

}  // namespace isopolicy::cuda
