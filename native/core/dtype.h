// Element types and their conversions. Half and BFloat16 are storage formats: all arithmetic is in fp32.
#pragma once
#include <cstdint>
#include <cstring>

namespace isopolicy {

enum class DType : uint8_t { float32 = 0, float16 = 1, bfloat16 = 2, int32 = 3 };

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

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
  return "unknown";
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

template <class T>
inline T roundTo(float x) {
  T out;
  fromFloat(x, out);
  return out;
}

}  // namespace isopolicy
