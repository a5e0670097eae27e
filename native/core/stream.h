// The command stream of a device: ops are queued by the JavaScript thread and run, in order, by one native
// thread, which has them shared out among the CPU's workers or launched on a GPU. The JavaScript thread never
// computes and never waits.
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
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "core/command.h"
#include "core/processor.h"
#include "core/profile.h"
#include "core/queue.h"

namespace isopolicy {

struct StreamFailure {
  uint64_t sequence = 0;  // of the command that failed
  std::string message;
};

class Stream {
 public:
  // `sequence` numbers the commands of all streams of an environment.
  Stream(Device device, uint64_t& sequence, std::unique_ptr<Processor> processor);
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
  // `copies` come first, and only if nothing failed.
  void fence(std::vector<HostCopy> copies, std::function<void(const StreamFailure*)> done);
  // JavaScript has seen the failure of that command: work queued from here on runs again.
  void acknowledgeFailure(uint64_t failedSequence);
  void replay(std::shared_ptr<Recording> recording);
  void setThreads(int threads);
  // Times what is queued from here on, or ends that.
  void setProfiling(bool on);
  // Complete once a fence queued after setProfiling(false) was reached.
  const Profile& profile() const { return profile_; }

  void beginRecording() {
    recording_ = std::make_shared<Recording>();
    recording_->device = device_;
  }
  std::shared_ptr<Recording> endRecording() {
    for (Storage* storage : recording_->storages) storage->listWhenIdle(nullptr);
    recording_->idle.clear();
    return std::exchange(recording_, nullptr);
  }
  Recording* recording() const { return recording_.get(); }

 private:
  struct Fence {
    std::vector<HostCopy> copies;
    std::function<void(const StreamFailure*)> done;
    uint64_t sequence;
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
  void run(Command& command) { runCommand(command, command.sequence()); }
  void run(Fence& fence);
  void run(Acknowledgement& acknowledgement);
  void run(Replay& replay);
  void run(ThreadSetting& setting) { processor_->resize(setting.threads); }
  void run(ProfileSetting& setting);
  void loop();
  void runCommand(const Command& command, uint64_t sequence);
  // Keeps the failure of `body`, or of the earlier command that it names; false where it failed.
  template <class Body>
  bool guarded(uint64_t sequence, Body body);

  const Device device_;
  uint64_t& sequence_;
  std::shared_ptr<Recording> recording_;
  Queue<Entry> queue_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> sleeping_{false};
  std::optional<StreamFailure> failure_;  // of the native thread
  bool skippedUnreported_ = false;        // a command was skipped after the last fence that reported failure_
  Profile profile_;
  std::unique_ptr<Processor> processor_;
  std::thread thread_;  // last: it starts when everything else exists
};

}  // namespace isopolicy
