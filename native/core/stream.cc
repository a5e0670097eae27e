#include "core/stream.h"

#include <utility>

#include "core/workers.h"

namespace isopolicy {

Stream::Stream(Device device, uint64_t& sequence, std::unique_ptr<Processor> processor)
    : device_(device), sequence_(sequence), processor_(std::move(processor)), thread_([this] { loop(); }) {}

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

void Stream::fence(std::vector<HostCopy> copies, std::function<void(const StreamFailure*)> done) {
  push(Fence{std::move(copies), std::move(done), ++sequence_});
}

void Stream::acknowledgeFailure(uint64_t failedSequence) { push(Acknowledgement{failedSequence}); }

void Stream::replay(std::shared_ptr<Recording> recording) { push(Replay{std::move(recording), ++sequence_}); }

void Stream::setThreads(int threads) { push(ThreadSetting{threads}); }

void Stream::setProfiling(bool on) { push(ProfileSetting{on}); }

template <class Body>
bool Stream::guarded(uint64_t sequence, Body body) {
  try {
    body();
    return true;
  } catch (const CommandFailure& error) {
    failure_ = StreamFailure{error.sequence, error.what()};
  } catch (const std::exception& error) {
    failure_ = StreamFailure{sequence, error.what()};
  }
  return false;
}

void Stream::runCommand(const Command& command, uint64_t sequence) {
  if (failure_) {
    skippedUnreported_ = true;
    return;
  }
  guarded(sequence, [&] {
    processor_->run(command, sequence);
    if (profile_.on()) processor_->finish();
  });
  if (profile_.on()) profile_.add(command.op());
}

void Stream::run(Fence& fence) {
  if (!failure_) guarded(fence.sequence, [&] { processor_->read(fence.copies); });
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
  bool whole = false;
  // A profile tells the ops apart.
  if (!failure_ && !profile_.on()) {
    const bool ran =
        guarded(replay.sequence, [&] { whole = processor_->replay(*replay.recording, replay.sequence); });
    if (!ran || whole) return;
  }
  for (const auto& command : replay.recording->commands) runCommand(command, replay.sequence);
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
