// silu(gate) * up and its gradients. With e = exp(-|g|) no intermediate overflows and no difference cancels:
//   sigmoid(g) = (g < 0 ? e : 1) / (1 + e),  1 - sigmoid(g) = (g < 0 ? 1 : e) / (1 + e).
#include "ops/swiglu.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {
namespace {

// 1 / x for x from 1 to 2, exact for powers of two. A division would take as long as all the rest, and the
// kernel would no longer keep up with memory.
__device__ __forceinline__ float reciprocal(float x) {
  const float r = reciprocalApprox(x);
  return fmaf(r, fmaf(-x, r, 1.0f), r);
}

// What the forward and the backward pass need of a gate. Every operation is spelled out, so that a value has
// the same bits wherever the compiler meets it.
struct Sigmoid {
  float e, inverse;  // of 1 + e
  bool negative;
  __device__ __forceinline__ float value() const { return negative ? __fmul_rn(e, inverse) : inverse; }
  __device__ __forceinline__ float complement() const { return negative ? inverse : __fmul_rn(e, inverse); }
};
__device__ __forceinline__ Sigmoid sigmoidOf(float g) {
  const float e = expf(-fabsf(g));
  return {e, reciprocal(__fadd_rn(1.0f, e)), g < 0.0f};
}

// A group of threads a row. Memory-bound: each element passes once.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kLargestGroup)
    swigluKernel(const T* gateUp, T* y, int64_t rows, int64_t width, bool rounded, int group) {
  constexpr int kSize = Pack<T>::kSize;
  const auto [row, lane] = rowPlace(group);
  if (row >= rows) return;
  const T* gate = gateUp + row * 2 * width;
  const T* up = gate + width;
  y += row * width;
  for (int64_t first = lane * kSize; first < width; first += group * kSize) {
    float g[kSize], u[kSize];
    loadParts<kLayout>(gate, first, width, g);
    loadParts<kLayout>(up, first, width, u);
#pragma unroll
    for (int i = 0; i < kSize; i++) {
      const Sigmoid sigmoid = sigmoidOf(g[i]);
      // g e before the division: e alone may be subnormal, with few bits.
      float silu = __fmul_rn(sigmoid.negative ? __fmul_rn(g[i], sigmoid.e) : g[i], sigmoid.inverse);
      if (rounded) silu = roundThrough<T>(silu);
      u[i] = __fmul_rn(silu, u[i]);
    }
    storeParts<kLayout>(y, first, width, u);
  }
}

void swiglu(const SwigluArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RowGroups groups = groupsFor(args.rows, partsOf<T>(args.width));
    dispatchLayout<Layout::whole>(inParts<T>({args.width}, {args.gateUp, args.y}), [&](auto layout) {
      gpu.launch(swigluKernel<T, layout()>, Grid{groups.blocks}, groups.threads, 0,
                 static_cast<const T*>(args.gateUp), static_cast<T*>(args.y), args.rows, args.width,
                 args.roundings == 2, groups.group);
    });
  });
}

// The same; dGateUp may be gateUp.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kLargestGroup)
    swigluBackwardKernel(const T* dOut, const T* gateUp, T* dGateUp, int64_t rows, int64_t width, int group) {
  constexpr int kSize = Pack<T>::kSize;
  const auto [row, lane] = rowPlace(group);
  if (row >= rows) return;
  const T* gate = gateUp + row * 2 * width;
  const T* up = gate + width;
  dOut += row * width;
  T* dGate = dGateUp + row * 2 * width;
  T* dUp = dGate + width;
  for (int64_t first = lane * kSize; first < width; first += group * kSize) {
    float d[kSize], g[kSize], u[kSize];
    loadParts<kLayout>(dOut, first, width, d);
    loadParts<kLayout>(gate, first, width, g);
    loadParts<kLayout>(up, first, width, u);
#pragma unroll
    for (int i = 0; i < kSize; i++) {
      const Sigmoid sigmoid = sigmoidOf(g[i]);
      const float s = sigmoid.value();
      const float slope = __fmul_rn(s, fmaf(g[i], sigmoid.complement(), 1.0f));
      u[i] = __fmul_rn(__fmul_rn(d[i], u[i]), slope);
      d[i] = __fmul_rn(d[i], __fmul_rn(g[i], s));
    }
    storeParts<kLayout>(dGate, first, width, u);
    storeParts<kLayout>(dUp, first, width, d);
  }
}

void swigluBackward(const SwigluBackwardArgs& args, Launcher& gpu) {
  if (args.rows == 0 || args.width == 0) return;
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const RowGroups groups = groupsFor(args.rows, partsOf<T>(args.width));
    dispatchLayout<Layout::whole>(
        inParts<T>({args.width}, {args.dOut, args.gateUp, args.dGateUp}), [&](auto layout) {
          gpu.launch(swigluBackwardKernel<T, layout()>, Grid{groups.blocks}, groups.threads, 0,
                     static_cast<const T*>(args.dOut), static_cast<const T*>(args.gateUp),
                     static_cast<T*>(args.dGateUp), args.rows, args.width, groups.group);
        });
  });
}

}  // namespace

void registerSwiglu(Registry& registry) {
  addKernel<SwigluArgs>(registry, Family::shared, swiglu);
  addKernel<SwigluBackwardArgs>(registry, Family::shared, swigluBackward);
}

}  // namespace isopolicy::cuda
