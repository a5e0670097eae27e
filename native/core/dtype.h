// Element types and their conversions. Half and BFloat16 are storage formats: all arithmetic is in fp32.
// Beside them any split of exponent and mantissa bits can be emulated: such numbers are kept in fp32.
#pragma once
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace isopolicy {

enum class DType : uint8_t { float32 = 0, float16 = 1, bfloat16 = 2, int32 = 3 };  // from 4 on: emulated

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// A number of an emulated format, one that the format has, in the four bytes of an fp32 number.
struct Emulated {
  float value;
};

// Formats as IEEE 754 would have them: 2 to 8 exponent bits, 1 to 23 mantissa bits, subnormals, infinities.
inline constexpr int kLeastExponentBits = 2, kMostExponentBits = 8, kMostMantissaBits = 23;
inline constexpr int kFirstEmulated = 4;
inline constexpr int kLastEmulated =
    kFirstEmulated + (kMostExponentBits - kLeastExponentBits + 1) * kMostMantissaBits - 1;
inline constexpr bool isEmulated(DType t) { return int(t) >= kFirstEmulated; }
inline constexpr int exponentBitsOf(DType t) {
  return kLeastExponentBits + (int(t) - kFirstEmulated) / kMostMantissaBits;
}
inline constexpr int mantissaBitsOf(DType t) { return 1 + (int(t) - kFirstEmulated) % kMostMantissaBits; }

inline size_t bytesOf(DType t) { return t == DType::float16 || t == DType::bfloat16 ? 2 : 4; }
inline bool isFloat(DType t) { return t != DType::int32; }
inline const char* nameOf(DType t) {
  switch (t) {
    case DType::float32:
      return "fp32";
    case DType::float16:
      return "fp16";
    case DType::bfloat16:
      return "bf16";
    case DType::int32:
      return "int32";
  }
  // e8m7 and so on, made once: messages keep the pointer.
  static const auto names = [] {
    std::array<std::array<char, 8>, kLastEmulated + 1> all{};
    for (int i = kFirstEmulated; i <= kLastEmulated; i++)
      std::snprintf(all[size_t(i)].data(), 8, "e%dm%d", exponentBitsOf(DType(i)), mantissaBitsOf(DType(i)));
    return all;
  }();
  return int(t) <= kLastEmulated ? names[size_t(t)].data() : "unknown";
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::float32;
};
template <>
struct DTypeOf<Half> {
  static constexpr DType value = DType::float16;
};
template <>
struct DTypeOf<BFloat16> {
  static constexpr DType value = DType::bfloat16;
};

template <>
struct DTypeOf<Emulated> {
  static constexpr DType value = DType(kFirstEmulated);  // any of them: all lie in memory alike
};

inline uint32_t bitsOf(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float floatOf(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

// Scalar conversions, exact for every input: round to nearest even, subnormals and infinities kept, every NaN
// stays a quiet NaN with the top bits of its payload (as vcvtps2ph and vcvtneps2bf16 do).
inline float toFloat(float x) { return x; }
inline float toFloat(BFloat16 x) { return floatOf(uint32_t(x.bits) << 16); }
inline float toFloat(Half h) {
  const uint32_t sign = uint32_t(h.bits & 0x8000u) << 16;
  const uint32_t exponent = (h.bits >> 10) & 31u;
  const uint32_t mantissa = h.bits & 0x3ffu;
  if (exponent == 31) {
    const uint32_t quiet = mantissa ? 0x400000u : 0u;  // signalling NaN becomes quiet, as in hardware
    return floatOf(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  if (exponent != 0) return floatOf(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // Zero and subnormals: mantissa * 2^-24 is exact in fp32.
  const float magnitude = float(mantissa) * 5.9604644775390625e-8f;
  return floatOf(sign | bitsOf(magnitude));
}

inline void fromFloat(float x, float& out) { out = x; }
inline void fromFloat(float x, BFloat16& out) {
  const uint32_t u = bitsOf(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) {
    out.bits = uint16_t((u >> 16) | 0x40u);
    return;
  }
  out.bits = uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
inline void fromFloat(float x, Half& out) {
  const uint32_t u = bitsOf(x);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    out.bits = uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    return;
  }
  if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more: infinity
    out.bits = uint16_t(sign | 0x7c00u);
    return;
  }
  if (magnitude < 0x38800000u) {
    // Subnormal in fp16: adding 0.5 aligns the fp32 mantissa so that the hardware rounds at 2^-24.
    const float shifted = floatOf(magnitude) + 0.5f;
    out.bits = uint16_t(sign | (bitsOf(shifted) - 0x3f000000u));
    return;
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  out.bits = uint16_t(sign | ((rounded - 0x38000000u) >> 13));
}

// How fp32 numbers are rounded to an emulated format: magnitudes from the least normal number on at bit
// `shift` of their mantissas, smaller ones by the addition of `magic`, whose last bit is the least subnormal.
struct EmulatedFormat {
  int32_t shift = 0;
  uint32_t odd = 0, belowHalf = 0, keep = 0xffffffffu;
  uint32_t leastNormal = 0, greatest = 0x7f7fffffu;
  float magic = 0.0f;
};
inline EmulatedFormat formatOf(DType t) {
  const int mantissa = mantissaBitsOf(t), bias = (1 << (exponentBitsOf(t) - 1)) - 1;
  EmulatedFormat f;
  f.shift = kMostMantissaBits - mantissa;
  f.odd = f.shift == 0 ? 0 : 1;
  f.belowHalf = f.shift == 0 ? 0 : (1u << (f.shift - 1)) - 1;
  f.keep = ~((1u << f.shift) - 1);
  f.leastNormal = uint32_t(1 - bias + 127) << 23;
  f.greatest = (uint32_t(bias + 127) << 23) | (0x7fffffu & f.keep);
  f.magic = floatOf(uint32_t(24 - bias - mantissa + 127) << 23);
  return f;
}

// The format that Emulated has on this thread. dispatchFloat puts one in force, and a kernel's work takes it
// along to the threads that share it.
inline thread_local DType emulatedDtype = DType::float32;
inline thread_local EmulatedFormat emulatedFormat;
inline void useEmulated(DType t) {
  if (t == emulatedDtype || !isEmulated(t)) return;
  emulatedFormat = formatOf(t);
  emulatedDtype = t;
}

// To nearest even as the other formats: subnormals and infinities kept, a NaN stays a quiet NaN.
inline float roundEmulated(float x, const EmulatedFormat& f) {
  const uint32_t u = bitsOf(x);
  const uint32_t sign = u & 0x80000000u, magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return floatOf(u | 0x400000u);
  uint32_t rounded = (magnitude + f.belowHalf + ((magnitude >> f.shift) & f.odd)) & f.keep;
  if (magnitude < f.leastNormal) {
    const float aligned = floatOf(magnitude) + f.magic;
    rounded = bitsOf(aligned - f.magic);
  }
  return floatOf(sign | (rounded > f.greatest ? 0x7f800000u : rounded));
}
inline float toFloat(Emulated x) { return x.value; }
inline void fromFloat(float x, Emulated& out) { out.value = roundEmulated(x, emulatedFormat); }

template <class T>
inline T roundTo(float x) {
  T out;
  fromFloat(x, out);
  return out;
}

}  // namespace isopolicy
