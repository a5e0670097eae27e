// The layouts are those of the PTX ISA manual: "Matrix Fragments for mma.m16n8k16", ldmatrix, stmatrix.
#include "cuda/emulation/warp_matrix.h"

#include "cuda/emulation/block.h"

namespace isopolicy::emulation {
namespace {

struct Rows {
  uint32_t* registers;
  unsigned char* row;
  int count;
  bool transposed;
};

// Calls body(register, half, element) for all elements of all matrices.
template <class Body>
void eachElement(void* const* operands, const Rows& first, Body body) {
  for (int matrix = 0; matrix < first.count; matrix++) {
    unsigned char* rows[8];
    for (int r = 0; r < 8; r++) rows[r] = static_cast<const Rows*>(operands[8 * matrix + r])->row;
    for (int lane = 0; lane < 32; lane++) {
      for (int half = 0; half < 2; half++) {
        int row = lane / 4, column = 2 * (lane % 4) + half;
        if (first.transposed) std::swap(row, column);
        body(static_cast<Rows*>(operands[lane])->registers[matrix], 16 * half, rows[row] + 2 * column);
      }
    }
  }
}

void meetLoad(void* const* operands, uint32_t) {
  const Rows& first = *static_cast<const Rows*>(operands[0]);
  eachElement(operands, first, [](uint32_t& to, int shift, const unsigned char* element) {
    uint16_t bits;
    std::memcpy(&bits, element, 2);
    to = (to & ~(0xffffu << shift)) | uint32_t(bits) << shift;
  });
}

void meetStore(void* const* operands, uint32_t) {
  const Rows& first = *static_cast<const Rows*>(operands[0]);
  eachElement(operands, first, [](uint32_t& from, int shift, unsigned char* element) {
    const uint16_t bits = uint16_t(from >> shift);
    std::memcpy(element, &bits, 2);
  });
}

void expectRow(const char* what, int count, const void* row, const Where& where) {
  if (int(current->lane) >= 8 * count) return;
  if (reinterpret_cast<uintptr_t>(row) % 16 != 0)
    fail(std::string(what) + ": a row that is not 16-byte aligned", where);
}

struct Product {
  float* d;
  const uint32_t* a;
  uint32_t b[2];
  DType dtype;
};

void meetProduct(void* const* operands, uint32_t) {
  float a[16][16], b[16][8];
  const DType dtype = static_cast<const Product*>(operands[0])->dtype;
  for (int lane = 0; lane < 32; lane++) {
    const Product& p = *static_cast<const Product*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; half++) {
      const auto element = [&](uint32_t bits) { return wide(uint16_t(bits >> (16 * half)), dtype); };
      for (int i = 0; i < 4; i++) a[g + 8 * (i % 2)][2 * t + half + 8 * (i / 2)] = element(p.a[i]);
      for (int i = 0; i < 2; i++) b[2 * t + half + 8 * i][g] = element(p.b[i]);
    }
  }
  float d[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const Product& p = *static_cast<const Product*>(operands[lane]);
    for (int i = 0; i < 4; i++) d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2] = p.d[i];
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++) {
    const Product& p = *static_cast<const Product*>(operands[lane]);
    for (int i = 0; i < 4; i++) p.d[i] = d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
  }
}

}  // namespace

uint32_t sharedAddress(const void* shared) {
  const auto offset = static_cast<const unsigned char*>(shared) - current->sharedMemory;
  if (offset < 0 || size_t(offset) > sharedMemoryBytes)
    fail("the address of something that is not in the block's dynamic shared memory", Where::current());
  return kSharedBase + uint32_t(offset);
}

unsigned char* sharedAt(uint32_t address, size_t bytes, const char* what, const Where& where) {
  if (address < kSharedBase || address - kSharedBase + bytes > sharedMemoryBytes)
    fail(std::string(what) + ": " + std::to_string(bytes) + " bytes at offset " +
             std::to_string(int64_t(address) - kSharedBase) + " of " + std::to_string(sharedMemoryBytes) +
             " bytes of dynamic shared memory",
         where);
  return current->sharedMemory + (address - kSharedBase);
}

void loadMatrices(uint32_t* to, int count, bool transposed, const void* row, const Where& where) {
  expectRow("ldmatrix", count, row, where);
  Rows mine{to, static_cast<unsigned char*>(const_cast<void*>(row)), count, transposed};
  meetWarp(transposed ? "ldmatrix.trans" : "ldmatrix", 0xffffffffu, &mine, meetLoad, where);
}

void storeMatrices(const uint32_t* from, int count, bool transposed, void* row, const Where& where) {
  expectRow("stmatrix", count, row, where);
  Rows mine{const_cast<uint32_t*>(from), static_cast<unsigned char*>(row), count, transposed};
  meetWarp(transposed ? "stmatrix.trans" : "stmatrix", 0xffffffffu, &mine, meetStore, where);
}

void multiplyInWarp(float* d, const uint32_t* a, uint32_t b0, uint32_t b1, DType dtype, const Where& where) {
  Product mine{d, a, {b0, b1}, dtype};
  meetWarp(dtype == DType::float16 ? "mma fp16" : "mma bf16", 0xffffffffu, &mine, meetProduct, where);
}

}  // namespace isopolicy::emulation
