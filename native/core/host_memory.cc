#include "core/host_memory.h"

#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace isopolicy {

namespace {

constexpr size_t kAlignment = CachingAllocator::kAlignment;
constexpr size_t kHugePage = size_t(2) << 20;
// What is asked of the system at a time. Pages that were never touched cost nothing.
constexpr size_t kRegion = size_t(64) << 20;

#if defined(__SANITIZE_ADDRESS__)
// Between two blocks, for what is written past the end of the first.
constexpr size_t kRedZone = kAlignment;
void forbid(uintptr_t at, size_t bytes) { __asan_poison_memory_region(reinterpret_cast<void*>(at), bytes); }
void allow(uintptr_t at, size_t bytes) { __asan_unpoison_memory_region(reinterpret_cast<void*>(at), bytes); }
#else
constexpr size_t kRedZone = 0;
void forbid(uintptr_t, size_t) {}
void allow(uintptr_t, size_t) {}
#endif

size_t roundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Best fit over regions of the system's memory; neighbouring holes become one. It is asked once for a block
// that the caching allocator then hands out again and again.
class HostMemory final : public MemorySource {
 public:
  void* take(size_t bytes) override {
    const size_t asked = bytes;
    bytes = roundUp(bytes, kAlignment) + kRedZone;
    const std::lock_guard<std::mutex> lock(mutex_);
    auto fit = holesBySize_.lower_bound({bytes, 0});
    if (fit == holesBySize_.end()) {
      if (!addRegion(bytes > kRegion ? roundUp(bytes, kHugePage) : kRegion) &&
          !addRegion(roundUp(bytes, 4096)))
        return nullptr;
      fit = holesBySize_.lower_bound({bytes, 0});
    }
    const auto [size, at] = *fit;
    removeHole(at, size);
    if (size > bytes) addHole(at + bytes, size - bytes);
    taken_[at] = bytes;
    allow(at, asked);
    return reinterpret_cast<void*>(at);
  }

  void give(void* block) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto taken = taken_.find(reinterpret_cast<uintptr_t>(block));
    uintptr_t begin = taken->first, end = begin + taken->second;
    taken_.erase(taken);
    const auto region = std::prev(regions_.upper_bound(begin));
    const auto next = holes_.find(end);
    if (next != holes_.end() && end < region->first + region->second) {
      end += next->second;
      removeHole(next->first, next->second);
    }
    auto last = holes_.lower_bound(begin);
    if (last != holes_.begin() && begin > region->first) {
      last = std::prev(last);
      if (last->first + last->second == begin) {
        begin = last->first;
        removeHole(last->first, last->second);
      }
    }
    if (end - begin == region->second) {
      allow(begin, end - begin);
      std::free(reinterpret_cast<void*>(begin));
      regions_.erase(region);
      return;
    }
    addHole(begin, end - begin);
    giveBackPages(begin, end);
  }

  double freeBytes() override { return -1; }

 private:
  bool addRegion(size_t bytes) {
    void* region = nullptr;
    if (posix_memalign(&region, bytes < kHugePage ? 4096 : kHugePage, bytes) != 0) return false;
#if defined(__linux__)
    madvise(region, bytes, MADV_HUGEPAGE);  // a wish: without huge pages the memory works as well
#endif
    regions_[reinterpret_cast<uintptr_t>(region)] = bytes;
    addHole(reinterpret_cast<uintptr_t>(region), bytes);
    return true;
  }

  // The whole huge pages of a hole; they come back as zeros when they are touched again.
  static void giveBackPages(uintptr_t begin, uintptr_t end) {
#if defined(__linux__)
    begin = roundUp(begin, kHugePage);
    end = end / kHugePage * kHugePage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
#endif
  }

  void addHole(uintptr_t at, size_t bytes) {
    forbid(at, bytes);
    holes_[at] = bytes;
    holesBySize_.insert({bytes, at});
  }
  void removeHole(uintptr_t at, size_t bytes) {
    holes_.erase(at);
    holesBySize_.erase({bytes, at});
  }

  std::mutex mutex_;
  std::map<uintptr_t, size_t> regions_;
  std::map<uintptr_t, size_t> taken_;
  std::map<uintptr_t, size_t> holes_;
  std::set<std::pair<size_t, uintptr_t>> holesBySize_;
};

}  // namespace

MemorySource& hostMemory() {
  // Never destroyed, see MemorySource; nor on the heap, where it would be lost when the addon is unloaded.
  alignas(HostMemory) static std::byte place[sizeof(HostMemory)];
  static HostMemory& source = *new (place) HostMemory;
  return source;
}

}  // namespace isopolicy
