// When to tell the collector of native memory, so that it looks for tensors that were dropped without
// dispose().
//
// Every report may make it collect, which takes milliseconds and a core. Memory that comes and goes within a
// step is not its business: it hears of a new high at once, and beyond that, once a second, of what was never
// below.
#pragma once
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <utility>

namespace isopolicy {

class MemoryReport {
 public:
  // The change to report now that `bytes` are in use; mostly 0.
  int64_t due(int64_t bytes) {
    lowest_ = std::min(lowest_, bytes);
    if (bytes > highest_ + kStep) {
      highest_ = bytes;
      return report(bytes);
    }
    if (++calls_ % kCallsAClock != 0) return 0;
    const auto now = std::chrono::steady_clock::now();
    if (now - since_ < std::chrono::seconds(1)) return 0;
    since_ = now;
    const int64_t lasting = std::exchange(lowest_, bytes);
    return std::abs(lasting - reported_) > kStep ? report(lasting) : 0;
  }

 private:
  static constexpr int64_t kStep = 4 << 20;
  static constexpr uint32_t kCallsAClock = 64;
  int64_t report(int64_t bytes) { return bytes - std::exchange(reported_, bytes); }
  int64_t reported_ = 0, highest_ = 0, lowest_ = 0;
  uint32_t calls_ = 0;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
};

}  // namespace isopolicy
