// Rotary position embedding in the halves layout: element i of a head turns with element i + headDim / 2.
#include "cpu/shared/kernel.h"
#include "ops/rope.h"
#define ISA_KERNELS "cpu/shared/rope.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {

// One head; products are rounded to P before their sum (float: not at all).
template <class P, class T>
static void rotateHead(const T* x, const float* cos, const float* sin, T* y, int64_t half) {
  eachVector(half, [&](int64_t i, auto lanes) {
    const Vec c = lanes.get(cos + i), s = lanes.get(sin + i);
    const Vec x1 = lanes.get(x + i), x2 = lanes.get(x + half + i);
    lanes.put(y + i, roundThrough<P>(x1 * c) - roundThrough<P>(x2 * s));
    lanes.put(y + half + i, roundThrough<P>(x2 * c) + roundThrough<P>(x1 * s));
  });
}

inline constexpr int64_t kTokensAhead = 2;

template <class T>
ISA_FLATTEN static void rotateTokens(const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t half = args.headDim / 2, width = args.heads * args.headDim;
  Scratch scratch;
  float* cos = scratch.get<float>(half);
  float* sin = scratch.get<float>(half);
  for (int64_t token = begin; token < end; token++) {
    // Pairs are pulled apart once a token, so that the heads read whole vectors.
    const float* pairs = args.table + args.positions[token] * args.headDim;
    const float sign = args.inverse ? -1.0f : 1.0f;
    int64_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
      const Vec lower = load(pairs + 2 * i), upper = load(pairs + 2 * i + kLanes);
      store(cos + i, evenLanes(lower, upper));
      store(sin + i, oddLanes(lower, upper) * splat(sign));
    }
    for (; i < half; i++) {
      cos[i] = pairs[2 * i];
      sin[i] = sign * pairs[2 * i + 1];
    }
    if (args.table16) {
      eachVector(half, [&](int64_t i, auto lanes) {
        lanes.put(cos + i, roundThrough<T>(lanes.get(cos + i)));
        lanes.put(sin + i, roundThrough<T>(lanes.get(sin + i)));
      });
    }
    const T* x = static_cast<const T*>(args.x) + token * width;
    T* y = static_cast<T*>(args.y) + token * width;
    const int64_t rotated = args.rotatedHeads * args.headDim;
    // Rows with a gap between them, each too short for the processor to run ahead by itself.
    for (int64_t at = 0; at < rotated; at += 64 / int64_t(sizeof(T)))
      __builtin_prefetch(x + kTokensAhead * width + at);
    for (int64_t at = 0; at < rotated; at += args.headDim) {
      if (args.roundings == 3)
        rotateHead<T>(x + at, cos, sin, y + at, half);
      else
        rotateHead<float>(x + at, cos, sin, y + at, half);
    }
    if (y != x) std::memcpy(y + rotated, x + rotated, size_t(width - rotated) * sizeof(T));
  }
}

void rope(const RopeArgs& args, Workers& workers) {
  // Before the work is shared out, so that the same token is named at any number of threads.
  for (int64_t token = 0; token < args.tokens; token++) {
    const int32_t position = args.positions[token];
    if (position < 0 || position >= args.positionCount) {
      throw DeviceError("expected positions from 0 to " + std::to_string(args.positionCount - 1) + ", got " +
                        std::to_string(position) + " for token " + std::to_string(token));
    }
  }
  workers.parallelFor(args.tokens, 8192 / (args.heads * args.headDim + 1), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) { rotateTokens<decltype(type)>(args, begin, end); });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerRope(Registry& registry) { registry.add<RopeArgs>(Family::shared, ISA_VARIANTS(rope)); }
}  // namespace isopolicy

#endif
