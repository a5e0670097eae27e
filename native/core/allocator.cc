#include "core/allocator.h"

#include <string>

#include "core/error.h"

namespace isopolicy {

// Eight classes a doubling: at most 12 % of a block is unused, and a step's shapes fall on few classes.
size_t CachingAllocator::sizeClass(size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  return bytes > 0 ? bytes : 1;  // room to spare would hide a write past the end
#endif
  size_t rounded = (bytes + CachingAllocator::kAlignment - 1) / CachingAllocator::kAlignment *
                   CachingAllocator::kAlignment;
  if (rounded < CachingAllocator::kAlignment) rounded = CachingAllocator::kAlignment;
  size_t step = CachingAllocator::kAlignment;
  while (step * 16 < rounded) step *= 2;
  return (rounded + step - 1) / step * step;
}

CachingAllocator::~CachingAllocator() {
  for (void* block : takeCached()) source_.give(block);
}

void* CachingAllocator::allocate(size_t bytes, size_t& blockBytes) {
  blockBytes = sizeClass(bytes);
  void* block = nullptr;
  auto it = free_.find(blockBytes);
  if (it != free_.end() && !it->second.empty()) {
    block = it->second.back();
    it->second.pop_back();
    use_.cachedBytes -= int64_t(blockBytes);
  } else {
    block = source_.take(blockBytes);
    if (block == nullptr) {
      const double free = source_.freeBytes();
      throw DeviceError("[memory] out of memory: asked for " + std::to_string(bytes) + " bytes" +
                        (free < 0 ? "" : " of " + std::to_string(int64_t(free)) + " free on the device") +
                        ", " + std::to_string(use_.bytes) + " bytes in use and " +
                        std::to_string(use_.cachedBytes) + " bytes cached (these are being returned now)");
    }
  }
  use_.bytes += int64_t(blockBytes);
  if (use_.bytes > use_.peakBytes) use_.peakBytes = use_.bytes;
  return block;
}

void CachingAllocator::release(void* block, size_t blockBytes) {
  use_.bytes -= int64_t(blockBytes);
  use_.cachedBytes += int64_t(blockBytes);
  free_[blockBytes].push_back(block);
}

std::vector<void*> CachingAllocator::takeCached() {
  std::vector<void*> all;
  for (auto& [size, blocks] : free_) all.insert(all.end(), blocks.begin(), blocks.end());
  free_.clear();
  use_.cachedBytes = 0;
  return all;
}

}  // namespace isopolicy
