// Rotary position embedding in the halves layout: element i of a head turns with element i + headDim / 2.
#include "ops/rope.h"

#include "cuda/shared/kernel.cuh"
#include "cuda/shared/rows.cuh"

namespace isopolicy::cuda {
namespace {

constexpr int kThreads = 128;
// Heads that a thread turns by the angles which it has read once.
constexpr int kHeadsEach = 2;

template <class T>
struct Rope {
  const T* x;
  const float* table;
  const int32_t* positions;
  T* y;
  int64_t tokens, headDim, positionCount;
  int heads, rotatedHeads;
  bool rounded, table16, inverse;
};

template <class T, bool kRounded>
__device__ __forceinline__ float product(float a, float b) {
  const float p = __fmul_rn(a, b);
  return kRounded ? roundThrough<T>(p) : p;
}

// A part of 16 bytes of the first half of a head, and its partner.
template <class T, bool kRounded, int kSize>
__device__ __forceinline__ void rotate(const float (&cos)[kSize], const float (&sin)[kSize], Pack<T>& lower,
                                       Pack<T>& upper) {
  float x1[kSize], x2[kSize];
  lower.widen(x1);
  upper.widen(x2);
#pragma unroll
  for (int i = 0; i < kSize; i++) {
    const float a = x1[i], b = x2[i];
    x1[i] = __fsub_rn(product<T, kRounded>(a, cos[i]), product<T, kRounded>(b, sin[i]));
    x2[i] = __fadd_rn(product<T, kRounded>(b, cos[i]), product<T, kRounded>(a, sin[i]));
  }
  lower = Pack<T>::narrow(x1);
  upper = Pack<T>::narrow(x2);
}

// A thread has a part of the angles of a token and turns the same part of two heads. Memory-bound: x passes
// once, angles come from the L1 cache for all but the first heads.
template <class T, Layout kLayout>
__global__ void __launch_bounds__(kThreads)
    ropeKernel(Rope<T> a, int parts, int slots, int tokensEach, Check check) {
  constexpr int kSize = Pack<T>::kSize;
  const int64_t half = a.headDim / 2;
  const int ofToken = parts * slots;
  for (int work = int(threadIdx.x); work < tokensEach * ofToken; work += kThreads) {
    const int64_t token = int64_t(blockIdx.x) * tokensEach + work / ofToken;
    if (token >= a.tokens) return;
    const int place = work % ofToken, slot = place / parts;
    const int64_t first = int64_t(place % parts) * kSize;
    const int32_t position = a.positions[token];
    if (position < 0 || position >= a.positionCount) {
      if (place == 0) report(check, token, position);
      continue;
    }
    const auto row = [&](auto* of, int k) { return of + (token * a.heads + slot + k * slots) * a.headDim; };
    const bool inPlace = a.y == a.x;
    const auto wanted = [&](int k) { return slot + k * slots < (inPlace ? a.rotatedHeads : a.heads); };
    Pack<T> lower[kHeadsEach], upper[kHeadsEach];
#pragma unroll
    for (int k = 0; k < kHeadsEach; k++) {
      if (!wanted(k)) continue;
      lower[k] = loadPart<kLayout>(row(a.x, k), first, half);
      upper[k] = loadPart<kLayout>(row(a.x, k) + half, first, half);
    }
    float angles[2 * kSize], cos[kSize], sin[kSize];
    loadParts<kLayout>(a.table + position * a.headDim, 2 * first, a.headDim, angles);
#pragma unroll
    for (int i = 0; i < kSize; i++) {
      cos[i] = angles[2 * i];
      sin[i] = a.inverse ? -angles[2 * i + 1] : angles[2 * i + 1];
      if (a.table16) {
        cos[i] = roundThrough<T>(cos[i]);
        sin[i] = roundThrough<T>(sin[i]);
      }
    }
#pragma unroll
    for (int k = 0; k < kHeadsEach; k++) {
      if (!wanted(k)) continue;
      if (slot + k * slots < a.rotatedHeads) {
        if (a.rounded)
          rotate<T, true>(cos, sin, lower[k], upper[k]);
        else
          rotate<T, false>(cos, sin, lower[k], upper[k]);
      }
      storePart<kLayout>(row(a.y, k), first, half, lower[k]);
      storePart<kLayout>(row(a.y, k) + half, first, half, upper[k]);
    }
  }
}

void rope(const RopeArgs& args, Launcher& gpu) {
  if (args.tokens == 0) return;
  const Check check = gpu.check("expected positions from 0 to " + std::to_string(args.positionCount - 1) +
                                ", got %v for token %i");
  dispatchFloat(args.dtype, [&](auto zero) {
    using T = decltype(zero);
    const Rope<T> rope{static_cast<const T*>(args.x),
                       args.table,
                       args.positions,
                       static_cast<T*>(args.y),
                       args.tokens,
                       args.headDim,
                       args.positionCount,
                       int(args.heads),
                       int(args.rotatedHeads),
                       args.roundings == 3,
                       args.table16,
                       args.inverse};
    const int parts = int(partsOf<T>(args.headDim / 2));
    const int slots = std::max(1, int(ceilDiv(args.heads, kHeadsEach)));
    const int tokensEach = std::max(1, kThreads / (parts * slots));
    dispatchLayout<Layout::whole>(
        inParts<T>({args.headDim / 2}, {args.x, args.y, args.table}), [&](auto layout) {
          gpu.launch(ropeKernel<T, layout()>, Grid{ceilDiv(args.tokens, tokensEach)}, kThreads, 0, rope,
                     parts, slots, tokensEach, check);
        });
  });
}

}  // namespace

void registerRope(Registry& registry) { addKernel<RopeArgs>(registry, Family::shared, rope); }

}  // namespace isopolicy::cuda
