// What each op takes on the native thread. Off, it costs a branch a command; on, a reading of the clock.
#pragma once
#include <chrono>
#include <cstdint>
#include <vector>

namespace isopolicy {

struct OpTime {
  const char* op = nullptr;
  int64_t calls = 0;
  int64_t nanoseconds = 0;
};

// Belongs to the native thread while it is on. JavaScript reads it once a fence queued after stop() was
// reached.
class Profile {
 public:
  bool on() const { return on_; }
  void start() {
    ops_.clear();
    started_ = last_ = now();
    on_ = true;
  }
  void stop() {
    elapsed_ = now() - started_;
    on_ = false;
  }
  // What follows is a command's time, up to the next add().
  void mark() { last_ = now(); }
  // The time since the last mark() or add() was that op's.
  void add(const char* op) {
    const int64_t time = now();
    OpTime& entry = entryOf(op);
    entry.calls++;
    entry.nanoseconds += time - last_;
    last_ = time;
  }
  const std::vector<OpTime>& ops() const { return ops_; }
  int64_t elapsedNanoseconds() const { return elapsed_; }

 private:
  static int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  // Names are literals: the same op has the same address.
  OpTime& entryOf(const char* op) {
    for (auto& entry : ops_)
      if (entry.op == op) return entry;
    ops_.push_back({op});
    return ops_.back();
  }
  std::vector<OpTime> ops_;
  int64_t started_ = 0, last_ = 0, elapsed_ = 0;
  bool on_ = false;
};

}  // namespace isopolicy
