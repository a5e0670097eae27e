#include "core/stream.h"

#include <chrono>
#include <utility>

namespace isopolicy {

Stream::Stream(int threads) : threads_(threads), workers_(threads), thread_([this] { loop(); }) {}

void Stream::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Stream::push(Entry entry) {
  bool notify;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    queue_.push_back(std::move(entry));
    available_.store(true, std::memory_order_release);
    notify = sleeping_;
  }
  if (notify) wake_.notify_one();
}

void Stream::fence(std::function<void()> copies, std::function<void(const StreamFailure*)> done) {
  Entry entry{Entry::Kind::fence, std::nullopt, nullptr, nullptr};
  entry.fence = std::make_unique<std::pair<std::function<void()>, std::function<void(const StreamFailure*)>>>(
      std::move(copies), std::move(done));
  entry.sequence = ++sequence_;
  push(std::move(entry));
}

void Stream::acknowledgeFailure(uint64_t failedSequence) {
  Entry entry{Entry::Kind::acknowledge, std::nullopt, nullptr, nullptr};
  entry.sequence = failedSequence;
  push(std::move(entry));
}

void Stream::replay(std::shared_ptr<Recording> recording) {
  Entry entry{Entry::Kind::replay, std::nullopt, std::move(recording), nullptr};
  entry.sequence = ++sequence_;
  push(std::move(entry));
}

void Stream::setThreads(int threads) {
  threads_ = threads;
  Entry entry{Entry::Kind::setThreads, std::nullopt, nullptr, nullptr};
  entry.setting = threads;
  push(std::move(entry));
}

void Stream::setProfiling(bool on) {
  Entry entry{Entry::Kind::setProfiling, std::nullopt, nullptr, nullptr};
  entry.setting = on;
  push(std::move(entry));
}

void Stream::runGuarded(const Command& command, uint64_t sequence) {
  if (failure_) {
    skippedUnreported_ = true;
    return;
  }
  try {
    command.run(workers_);
  } catch (const std::exception& error) {
    failure_ = StreamFailure{sequence, std::string("[") + command.op() + "] " + error.what()};
  } catch (...) {
    failure_ = StreamFailure{sequence, std::string("[") + command.op() + "] unknown failure"};
  }
  if (profile_.on()) profile_.add(command.op());
}

void Stream::loop() {
  std::vector<Entry> batch;
  for (;;) {
    // A decode step queues its commands a few microseconds apart: look again before going to sleep.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(20);
    while (!available_.load(std::memory_order_acquire) && !stopping_ &&
           std::chrono::steady_clock::now() < deadline) {
    }
    {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_ = true;
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      sleeping_ = false;
      if (stopping_) return;
      batch.swap(queue_);
      available_.store(false, std::memory_order_release);
    }
    if (profile_.on()) profile_.mark();
    for (auto& entry : batch) {
      if (stopping_) return;
      switch (entry.kind) {
        case Entry::Kind::command:
          runGuarded(*entry.command, entry.command->sequence());
          break;
        case Entry::Kind::replay:
          for (const auto& command : entry.recording->commands) runGuarded(command, entry.sequence);
          break;
        case Entry::Kind::fence:
          if (!failure_) entry.fence->first();
          if (profile_.on()) profile_.add("read");
          skippedUnreported_ = false;
          entry.fence->second(failure_ ? &*failure_ : nullptr);
          break;
        case Entry::Kind::acknowledge:
          // Another failure, or work lost since, is for the read that it is still to be told by.
          if (failure_ && failure_->sequence == entry.sequence && !skippedUnreported_) failure_.reset();
          break;
        case Entry::Kind::setThreads:
          workers_.resize(entry.setting);
          break;
        case Entry::Kind::setProfiling:
          if (entry.setting)
            profile_.start();
          else
            profile_.stop();
          break;
      }
    }
    batch.clear();
  }
}

}  // namespace isopolicy
