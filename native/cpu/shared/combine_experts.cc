// Experts' outputs back to their tokens. Products and sums are rounded on their own, never fused, so that the
// bits are the same at every vector level, and in fp32 the same with one rounding and with three.
#include "cpu/shared/kernel.h"
#include "ops/combine_experts.h"
#define ISA_KERNELS "cpu/shared/combine_experts.cc"
#include "cpu/shared/each_isa.h"
#ifdef ISA_PASS
#include "cpu/shared/each_vector.h"

namespace isopolicy::ISA_PASS {
namespace {

// On one thread, before any row is touched: a row that is missing would be left unwritten by the backward
// pass.
void checkPermutation(const int32_t* rows, int64_t count) {
  Scratch scratch;
  char* seen = scratch.get<char>(count);
  std::memset(seen, 0, size_t(count));
  for (int64_t i = 0; i < count; i++) {
    if (rows[i] >= 0 && rows[i] < count && !seen[rows[i]]) {
      seen[rows[i]] = 1;
      continue;
    }
    throw DeviceError("expected each row from 0 to tokens k - 1 = " + std::to_string(count - 1) +
                      " once, got " + std::to_string(rows[i]) + " at position " + std::to_string(i));
  }
}

// Tokens worth a call of their own.
int64_t tokenGrain(int64_t k, int64_t width) { return 8192 / (k * width + 1); }

// kRounded: weights, products and sums are rounded to T.
template <class T, bool kRounded>
ISA_FLATTEN void combineToken(const T* y, const float* weights, const int32_t* rows, T* out, int64_t k,
                              int64_t width) {
  const auto rounded = [](Vec x) __attribute__((always_inline)) {
    if constexpr (kRounded) return roundThrough<T>(x);
    return x;
  };
  eachVector(width, [&](int64_t c, auto lanes) {
    Vec sum = zero();
    for (int64_t s = 0; s < k; s++) {
      const Vec product = rounded(rounded(splat(weights[s])) * lanes.get(y + rows[s] * width + c));
      sum = s == 0 ? product : rounded(sum + product);
    }
    lanes.put(out + c, sum);
  });
}

}  // namespace

void combineExperts(const CombineExpertsArgs& args, Workers& workers) {
  checkPermutation(args.rows, args.tokens * args.k);
  workers.parallelFor(args.tokens, tokenGrain(args.k, args.width), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      using T = decltype(type);
      const auto combine = args.roundings == 3 ? combineToken<T, true> : combineToken<T, false>;
      for (int64_t t = begin; t < end; t++)
        combine(static_cast<const T*>(args.y), args.weights + t * args.k, args.rows + t * args.k,
                static_cast<T*>(args.out) + t * args.width, args.k, args.width);
    });
  });
}

void combineExpertsBackward(const CombineExpertsBackwardArgs& args, Workers& workers) {
  checkPermutation(args.rows, args.tokens * args.k);
  workers.parallelFor(args.tokens, tokenGrain(args.k, args.width), [&](int64_t begin, int64_t end) {
    dispatchFloat(args.dtype, [&](auto type) {
      using T = decltype(type);
      for (int64_t i = begin * args.k; i < end * args.k; i++) {
        const T* dOut = static_cast<const T*>(args.dOut) + i / args.k * args.width;
        const T* y = static_cast<const T*>(args.y) + args.rows[i] * args.width;
        T* dY = static_cast<T*>(args.dY) + args.rows[i] * args.width;
        const Vec weight = splat(args.weights[i]);
        Vec dot = zero();
        eachVector(args.width, [&](int64_t c, auto lanes) {
          const Vec d = lanes.get(dOut + c);
          dot = fma(d, lanes.get(y + c), dot);
          lanes.put(dY + c, weight * d);
        });
        args.dWeights[i] = reduceAdd(dot);
      }
    });
  });
}

}  // namespace isopolicy::ISA_PASS

#else

namespace isopolicy {
void registerCombineExperts(Registry& registry) {
  registry.add<CombineExpertsArgs>(Family::shared, ISA_VARIANTS(combineExperts));
  registry.add<CombineExpertsBackwardArgs>(Family::shared, ISA_VARIANTS(combineExpertsBackward));
}
}  // namespace isopolicy

#endif
