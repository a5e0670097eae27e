#include "core/stream.h"

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

void Stream::wake() {
  {
    std::lock_guard<std::mutex> lock(mutex_);  // the native thread is past its last look, or not asleep yet
  }
  wake_.notify_one();
}

void Stream::fence(std::function<void()> copies, std::function<void(const StreamFailure*)> done) {
  sequence_++;
  push(Fence{std::move(copies), std::move(done)});
}

void Stream::acknowledgeFailure(uint64_t failedSequence) { push(Acknowledgement{failedSequence}); }

void Stream::replay(std::shared_ptr<Recording> recording) { push(Replay{std::move(recording), ++sequence_}); }

void Stream::setThreads(int threads) {
  threads_ = threads;
  push(ThreadSetting{threads});
}

void Stream::setProfiling(bool on) { push(ProfileSetting{on}); }

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

void Stream::run(Fence& fence) {
  if (!failure_) fence.copies();
  if (profile_.on()) profile_.add("read");
  skippedUnreported_ = false;
  fence.done(failure_ ? &*failure_ : nullptr);
}

void Stream::run(Acknowledgement& acknowledgement) {
  // Another failure, or work lost since, is for the read that it is still to be told by.
  if (failure_ && failure_->sequence == acknowledgement.failedSequence && !skippedUnreported_)
    failure_.reset();
}

void Stream::run(Replay& replay) {
  for (const auto& command : replay.recording->commands) runGuarded(command, replay.sequence);
}

void Stream::run(ProfileSetting& setting) {
  if (setting.on)
    profile_.start();
  else
    profile_.stop();
}

// Waits for an entry; false when the stream is to end.
bool Stream::await() {
  // To be woken takes some 30 microseconds, as long as JavaScript needs between two steps of a generation.
  const auto ready = [this] { return !queue_.empty() || stopping_; };
  if (!patientlyAwait(ready)) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_ = true;
    wake_.wait(lock, ready);
    sleeping_ = false;
  }
  if (profile_.on()) profile_.mark();
  return !stopping_;
}

void Stream::loop() {
  while (await()) {
    std::visit([this](auto& entry) { run(entry); }, *queue_.front());
    queue_.pop();
  }
}

}  // namespace isopolicy
