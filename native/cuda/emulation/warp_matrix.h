// ldmatrix and mma.sync for the emulated build, and the addresses of shared memory.
#pragma once
#include "core/dtype.h"
#include "cuda/emulation/device.h"

namespace isopolicy::emulation {

// What a 32-bit address of shared memory is here: offset in the block's dynamic shared memory, plus 1024.
constexpr uint32_t kSharedBase = 1024;
uint32_t sharedAddress(const void* shared);
// The memory of `bytes` bytes at such an address; the launch fails where it is outside of the block's memory.
unsigned char* sharedAt(uint32_t address, size_t bytes, const char* what, const Where& where);

void loadMatrices(uint32_t* to, int count, bool transposed, const void* row, const Where& where);
void storeMatrices(const uint32_t* from, int count, bool transposed, void* row, const Where& where);

void multiplyInWarp(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, DType dtype, const Where& where);
template <class T>
void multiplyInWarp(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, const Where& where) {
  multiplyInWarp(d, a, b0, b1, DTypeOf<T>::value, where);
}

// A 16-bit element of a register or of memory.
inline float wide(uint16_t bits, DType dtype) {
  return dtype == DType::float16 ? toFloat(Half{bits}) : toFloat(BFloat16{bits});
}

}  // namespace isopolicy::emulation
