// A caching allocator for one command stream.
//
// Blocks are handed back the moment the last tensor lets go of them, although queued commands may still use
// them: a block's next owner is queued later on the same in-order stream, so it cannot run before they are
// done.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace isopolicy {

struct MemoryUse {
  int64_t bytes = 0;        // held by live tensors
  int64_t cachedBytes = 0;  // free, kept for reuse
  int64_t peakBytes = 0;    // most ever held by live tensors
};

class CachingAllocator {
 public:
  static constexpr size_t kAlignment = 64;

  CachingAllocator() = default;
  CachingAllocator(const CachingAllocator&) = delete;
  ~CachingAllocator();

  // Returns a block of at least `bytes` bytes and its true size; throws DeviceError when memory is exhausted.
  void* allocate(size_t bytes, size_t& blockBytes);
  void release(void* block, size_t blockBytes);
  // Hands over every cached block, to be freed once no queued command can touch them.
  std::vector<void*> takeCached();
  const MemoryUse& use() const { return use_; }

 private:
  std::map<size_t, std::vector<void*>> free_;
  MemoryUse use_;
};

}  // namespace isopolicy
