// Checks of device data. A kernel cannot throw: it leaves the index and the value that it objects to in a
// slot of its command, and the next read finds them.
#pragma once
#include <cuda_runtime_api.h>

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

namespace isopolicy::cuda {

// Where a kernel reports (report() in kernel.cuh); passed by value.
struct Check {
  unsigned long long* slot;  // index above value, the least that was reported; all ones where nothing was
  unsigned* any;             // set where any slot was
};

class Checks {
 public:
  explicit Checks(cudaStream_t stream);
  Checks(const Checks&) = delete;
  ~Checks();

  void begin(const char* op, uint64_t sequence) {
    op_ = op;
    sequence_ = sequence;
  }
  // A slot of the command in progress, until the next look. Throws CommandFailure where slots have run out
  // and an earlier command is found to have failed.
  Check add(const std::string& message);
  // Checks from here on are a graph's and keep their slots, listed in `kept`, until release(); null ends
  // that.
  void keepIn(std::vector<int>* kept) { kept_ = kept; }
  // Whether there are slots for a graph of so many commands.
  bool roomToKeep(size_t commands) const {
    return int64_t(commands) * kMostOfCommand <= lowestKept_ - kLeastKept;
  }
  // The graph that holds these slots is launched as the command of that number.
  void relaunched(const std::vector<int>& kept, uint64_t sequence);
  // From any thread.
  void release(const std::vector<int>& kept);

  // Queues the copy that tells whether anything was reported.
  void queueLook();
  // After that copy was waited for: throws CommandFailure for the earliest command that reported. All slots
  // are new then.
  void look();

 private:
  // Graphs have the upper three quarters of the slots.
  static constexpr int kSlots = 1 << 16, kLeastKept = kSlots / 4, kMostOfCommand = 4;
  struct Slot {
    const char* op = "";
    uint64_t sequence = 0, order = 0;  // of the command, and of the check among all
    std::string message;
  };
  int take();
  void renew();

  const cudaStream_t stream_;
  const char* op_ = "";
  uint64_t sequence_ = 0, added_ = 0;
  std::vector<Slot> slots_{kSlots};
  int used_ = 0;             // from the first on, by commands since the last look
  int lowestKept_ = kSlots;  // from there on, by graphs, now or before
  std::vector<int>* kept_ = nullptr;
  std::mutex mutex_;
  std::vector<int> released_;  // of those
  unsigned long long* deviceSlots_ = nullptr;
  unsigned* deviceAny_ = nullptr;
  unsigned* any_ = nullptr;  // page-locked host memory
};

}  // namespace isopolicy::cuda
