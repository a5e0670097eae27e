// Rows of any length and alignment, shared out to threads: a group of neighbouring threads takes a row, in
// parts of 16 bytes.
#pragma once
#include <initializer_list>

#include "cuda/shared/number.cuh"

namespace isopolicy::cuda {

// A thread holds so many parts of its row in registers, and visits what is left of longer rows again.
inline constexpr int kPartsEach = 2;
// Several groups of up to a warp are a block, or one larger group.
inline constexpr int kLargestGroup = 512, kLeastThreads = 128;

struct RowGroups {
  int group;  // threads a row, a power of two
  int threads;
  int64_t blocks;
};

// The group follows from the row's length alone, and from it the order of sums over a row: a row has the same
// bits in any batch.
inline RowGroups groupsFor(int64_t rows, int64_t partsOfRow) {
  int group = 1;
  while (group < kLargestGroup && group * kPartsEach < partsOfRow) group *= 2;
  const int threads = group <= 32 ? kLeastThreads : group;
  const int together = threads / group;
  return {group, threads, (rows + together - 1) / together};
}

template <class T>
int64_t partsOf(int64_t width) {
  return (width + Pack<T>::kSize - 1) / Pack<T>::kSize;
}

// How rows lie: each begins on a multiple of 16 bytes and is of whole parts; begins so but may end within a
// part; or lies anywhere and is read element by element.
enum class Layout { whole, cut, loose };

// Whether all of these distances, in elements, and addresses are multiples of 16 bytes.
template <class T>
bool inParts(std::initializer_list<int64_t> distances, std::initializer_list<const void*> addresses) {
  for (const int64_t elements : distances)
    if (elements % Pack<T>::kSize != 0) return false;
  for (const void* address : addresses)
    if (!isAligned16(address)) return false;
  return true;
}

// Calls `body` with a constant: kInParts or Layout::loose.
template <Layout kInParts, class Body>
void dispatchLayout(bool inParts, Body body) {
  if (inParts)
    body(std::integral_constant<Layout, kInParts>{});
  else
    body(std::integral_constant<Layout, Layout::loose>{});
}

struct RowPlace {
  int64_t row;
  int lane;  // in the group
};
__device__ __forceinline__ RowPlace rowPlace(int group) {
  const int shift = __ffs(group) - 1;
  return {int64_t(blockIdx.x) * (blockDim.x >> shift) + (threadIdx.x >> shift),
          int(threadIdx.x) & (group - 1)};
}

// The part of a row of `width` elements from element `first` on, which is in the row; zeros beyond the end.
template <Layout kLayout, class T>
__device__ __forceinline__ Pack<T> loadPart(const T* row, int64_t first, int64_t width) {
  constexpr int kSize = Pack<T>::kSize, kEach = 4 / int(sizeof(T));
  if constexpr (kLayout == Layout::whole) return Pack<T>::load(row + first);
  if (kLayout == Layout::cut && first + kSize <= width) return Pack<T>::load(row + first);
  uint32_t words[4] = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < kSize; i++) {
    if (first + i >= width) break;
    if constexpr (sizeof(T) == 4) {
      words[i] = __float_as_uint(row[first + i]);
    } else {
      words[i / kEach] |= uint32_t(row[first + i].bits) << (16 * (i % kEach));
    }
  }
  return {make_uint4(words[0], words[1], words[2], words[3])};
}
template <Layout kLayout, class T>
__device__ __forceinline__ void storePart(T* row, int64_t first, int64_t width, const Pack<T>& part) {
  constexpr int kSize = Pack<T>::kSize, kEach = 4 / int(sizeof(T));
  if (kLayout == Layout::whole || (kLayout == Layout::cut && first + kSize <= width)) {
    part.store(row + first);
    return;
  }
  const uint32_t words[4] = {part.bits.x, part.bits.y, part.bits.z, part.bits.w};
#pragma unroll
  for (int i = 0; i < kSize; i++) {
    if (first + i >= width) break;
    if constexpr (sizeof(T) == 4) {
      row[first + i] = __uint_as_float(words[i]);
    } else {
      row[first + i].bits = uint16_t(words[i / kEach] >> (16 * (i % kEach)));
    }
  }
}

// The same as fp32 numbers, of some parts on end.
template <Layout kLayout, int kCount, class T>
__device__ __forceinline__ void loadParts(const T* row, int64_t first, int64_t width,
                                          float (&values)[kCount]) {
  constexpr int kSize = Pack<T>::kSize;
  static_assert(kCount % kSize == 0);
#pragma unroll
  for (int i = 0; i < kCount; i += kSize) {
    float part[kSize];
    loadPart<kLayout>(row, first + i, width).widen(part);
#pragma unroll
    for (int j = 0; j < kSize; j++) values[i + j] = part[j];
  }
}
template <Layout kLayout, int kCount, class T>
__device__ __forceinline__ void storeParts(T* row, int64_t first, int64_t width,
                                           const float (&values)[kCount]) {
  constexpr int kSize = Pack<T>::kSize;
  static_assert(kCount % kSize == 0);
#pragma unroll
  for (int i = 0; i < kCount; i += kSize) {
    float part[kSize];
#pragma unroll
    for (int j = 0; j < kSize; j++) part[j] = values[i + j];
    storePart<kLayout>(row, first + i, width, Pack<T>::narrow(part));
  }
}

template <class T>
__device__ __forceinline__ float roundThrough(float x) {
  return widen(narrow<T>(x));
}

}  // namespace isopolicy::cuda
