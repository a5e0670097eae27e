// The command stream: ops are queued by the JavaScript thread and run, in order, by one native thread that
// shares out each kernel among the workers. The JavaScript thread never computes and never waits.
//
// Failure: the first exception in queued work is kept, everything queued behind it is skipped, every fence
// reports it, and work goes on from the point where JavaScript acknowledges it, once a fence has reported it
// after the last command that was skipped: nothing is skipped without a read that tells.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/profile.h"
#include "core/queue.h"
#include "core/registry.h"
#include "core/tensor.h"
#include "core/workers.h"

namespace isopolicy {

struct StreamFailure {
  uint64_t sequence = 0;  // of the command that failed
  std::string message;
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
  void run(Workers& workers) const { kernel_.invoke(kernel_.function, args_, workers); }
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
  std::vector<Command> commands;
  std::vector<Storage*> storages;  // retained; released on the JavaScript thread
  // While recording: memory of its own that only it holds any more. A later op of the sequence may have it,
  // since a replay runs them in the same order.
  std::vector<Storage*> idle;
};

class Stream {
 public:
  explicit Stream(int threads);
  Stream(const Stream&) = delete;
  ~Stream() { stop(); }
  // Waits for the command that is running, drops the rest.
  void stop();

  template <class Args>
  uint64_t enqueue(const char* op, ErasedKernel kernel, const Args& args,
                   std::shared_ptr<void> keep = nullptr) {
    const uint64_t sequence = ++sequence_;
    if (recording_) {
      recording_->commands.emplace_back(op, sequence, kernel, args, std::move(keep));
    } else {
      push(std::in_place_type<Command>, op, sequence, kernel, args, std::move(keep));
    }
    return sequence;
  }
  // Calls `done` on the native thread once everything queued before has run (or was skipped after a failure).
  // `copies` run first, and only if nothing failed.
  void fence(std::function<void()> copies, std::function<void(const StreamFailure*)> done);
  // JavaScript has seen the failure of that command: work queued from here on runs again.
  void acknowledgeFailure(uint64_t failedSequence);
  void replay(std::shared_ptr<Recording> recording);
  void setThreads(int threads);
  int threads() const { return threads_; }
  // Times what is queued from here on, or ends that.
  void setProfiling(bool on);
  // Complete once a fence queued after setProfiling(false) was reached.
  const Profile& profile() const { return profile_; }
  // Number of the last queued command.
  uint64_t sequence() const { return sequence_; }

  void beginRecording() { recording_ = std::make_shared<Recording>(); }
  std::shared_ptr<Recording> endRecording() {
    for (Storage* storage : recording_->storages) storage->listWhenIdle(nullptr);
    recording_->idle.clear();
    return std::exchange(recording_, nullptr);
  }
  Recording* recording() const { return recording_.get(); }

 private:
  struct Fence {
    std::function<void()> copies;
    std::function<void(const StreamFailure*)> done;
  };
  struct Acknowledgement {
    uint64_t failedSequence;
  };
  struct Replay {
    std::shared_ptr<Recording> recording;
    uint64_t sequence;
  };
  struct ThreadSetting {
    int threads;
  };
  struct ProfileSetting {
    bool on;
  };
  using Entry = std::variant<Command, Fence, Acknowledgement, Replay, ThreadSetting, ProfileSetting>;
  // Entries are large and frequent: each is built where it will lie in the queue.
  template <class... A>
  void push(A&&... arguments) {
    queue_.push(std::forward<A>(arguments)...);
    // In one order with the count of the queue: either this sees the native thread about to sleep, or that
    // sees the entry.
    if (sleeping_.load()) wake();
  }
  void wake();
  bool await();
  void run(Command& command) { runGuarded(command, command.sequence()); }
  void run(Fence& fence);
  void run(Acknowledgement& acknowledgement);
  void run(Replay& replay);
  void run(ThreadSetting& setting) { workers_.resize(setting.threads); }
  void run(ProfileSetting& setting);
  void loop();
  void runGuarded(const Command& command, uint64_t sequence);

  int threads_;
  uint64_t sequence_ = 0;
  std::shared_ptr<Recording> recording_;
  Queue<Entry> queue_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> sleeping_{false};
  std::optional<StreamFailure> failure_;  // of the native thread
  bool skippedUnreported_ = false;        // a command was skipped after the last fence that reported failure_
  Profile profile_;
  Workers workers_;
  std::thread thread_;  // last: it starts when everything else exists
};

}  // namespace isopolicy
