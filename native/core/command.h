// A queued op: its kernel, its arguments and where its failure is told.
#pragma once
#include <cstddef>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "core/registry.h"
#include "core/tensor.h"

namespace isopolicy {

// A failure of queued work that came to light later than at its command.
struct CommandFailure : DeviceError {
  CommandFailure(uint64_t sequence, const std::string& message) : DeviceError(message), sequence(sequence) {}
  uint64_t sequence;
};

class Command {
 public:
  static constexpr size_t kArgumentBytes = 384;

  template <class Args>
  Command(const char* op, uint64_t sequence, ErasedKernel kernel, const Args& args,
          std::shared_ptr<void> keep = nullptr)
      : op_(op), sequence_(sequence), kernel_(kernel), keep_(std::move(keep)) {
    static_assert(sizeof(Args) <= kArgumentBytes && alignof(Args) <= 16 &&
                  std::is_trivially_copyable_v<Args>);
    new (args_) Args(args);
  }
  // `executor`: see ErasedKernel. Throws DeviceError that names the op.
  void run(void* executor) const {
    try {
      kernel_.invoke(kernel_.function, args_, executor);
    } catch (const std::exception& error) {
      throw DeviceError(std::string("[") + op_ + "] " + error.what());
    } catch (...) {
      throw DeviceError(std::string("[") + op_ + "] unknown failure");
    }
  }
  const char* op() const { return op_; }
  uint64_t sequence() const { return sequence_; }

 private:
  const char* op_;
  uint64_t sequence_;
  ErasedKernel kernel_;
  std::shared_ptr<void> keep_;  // host data that the command reads
  alignas(16) unsigned char args_[kArgumentBytes];
};

// A sequence of commands kept for replay, with the memory that they touch.
struct Recording {
  Device device = Device::cpu;
  std::vector<Command> commands;
  std::vector<Storage*> storages;  // retained; released on the JavaScript thread
  // While recording: memory of its own that only it holds any more. A later op of the sequence may have it,
  // since a replay runs them in the same order.
  std::vector<Storage*> idle;
  // What the processor made of it, for the next replay.
  std::shared_ptr<void> prepared;
};

}  // namespace isopolicy
