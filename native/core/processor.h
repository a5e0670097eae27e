// What runs the commands of a stream: the CPU's workers, or a GPU. Called by the stream's native thread
// alone.
#pragma once
#include <cstddef>
#include <memory>
#include <vector>

#include "core/command.h"

namespace isopolicy {

// A window of device memory and where its bytes go in host memory.
struct HostCopy {
  void* to;
  const void* from;
  size_t bytes;
};

class Processor {
 public:
  virtual ~Processor() = default;
  // Runs a command as the one of that number or, on a GPU, sets it going. Throws DeviceError.
  virtual void run(const Command& command, uint64_t sequence) = 0;
  // Runs a whole recording as the command of that number, or returns false: its commands are then run one by
  // one.
  virtual bool replay(Recording& recording, uint64_t sequence) = 0;
  // Waits for all that was run.
  virtual void finish() = 0;
  // The same, then copies to host memory. Throws CommandFailure where a command is found to have failed.
  virtual void read(const std::vector<HostCopy>& copies) = 0;
  virtual void resize(int threads) = 0;
};

class MemorySource;

// How a device is opened: where its memory comes from, and what runs its commands. Both throw DeviceError
// where it cannot be used.
struct Driver {
  MemorySource& (*memory)() = nullptr;
  std::unique_ptr<Processor> (*makeProcessor)(int threads) = nullptr;
};

}  // namespace isopolicy
