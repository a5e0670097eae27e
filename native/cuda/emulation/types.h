// The vector types of CUDA, as the emulated build has them.
#pragma once
#include <cstddef>
#include <cstdint>

#define EMULATION_VECTOR_TYPES(Type, Element, alignment2, alignment4)                  \
  struct Type##2 {                                                                     \
    alignas(alignment2) Element x;                                                     \
    Element y;                                                                         \
  };                                                                                   \
  struct Type##3 { Element x, y, z; };                                                 \
  struct Type##4 {                                                                     \
    alignas(alignment4) Element x;                                                     \
    Element y, z, w;                                                                   \
  };                                                                                   \
  inline Type##2 make_##Type##2(Element x, Element y) { return {x, y}; }               \
  inline Type##3 make_##Type##3(Element x, Element y, Element z) { return {x, y, z}; } \
  inline Type##4 make_##Type##4(Element x, Element y, Element z, Element w) { return {x, y, z, w}; }

EMULATION_VECTOR_TYPES(int, int, 8, 16)
EMULATION_VECTOR_TYPES(uint, unsigned, 8, 16)
EMULATION_VECTOR_TYPES(float, float, 8, 16)
EMULATION_VECTOR_TYPES(short, short, 4, 8)
EMULATION_VECTOR_TYPES(ushort, unsigned short, 4, 8)
EMULATION_VECTOR_TYPES(double, double, 16, 16)
#undef EMULATION_VECTOR_TYPES

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
