#include "core/workers.h"

#include <cstdlib>
#include <memory>
#include <string>
#include <system_error>

#include "core/allocator.h"
#include "core/error.h"

namespace isopolicy {

Workers::Workers(int threads) { resize(threads); }
Workers::~Workers() { stop(); }

void Workers::stop() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (auto& t : threads_) t.join();
  threads_.clear();
  stopping_ = false;
}

void Workers::resize(int threads) {
  stop();
  const uint64_t now = numberOf(job_.load());
  try {
    for (int i = 1; i < threads; i++) threads_.emplace_back([this, now] { loop(now); });
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do all the work, with the same results.
  }
}

void Workers::takeChunks() {
  try {
    for (;;) {
      const int64_t begin = next_.fetch_add(chunk_, std::memory_order_relaxed);
      if (begin >= total_) return;
      const int64_t end = begin + chunk_ < total_ ? begin + chunk_ : total_;
      (*body_)(begin, end);
    }
  } catch (...) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    next_.store(total_, std::memory_order_relaxed);
  }
}

// Returns the first job after number `seen` that it meets, or any when the threads are to end.
uint64_t Workers::awaitJob(uint64_t seen) {
  const auto ready = [&] { return stopping_ || numberOf(job_.load(std::memory_order_acquire)) != seen; };
  if (!patientlyAwait(ready)) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleeping_++;
    wake_.wait(lock, [&] { return stopping_ || numberOf(job_.load()) != seen; });
    sleeping_--;
  }
  return job_.load(std::memory_order_acquire);
}

void Workers::loop(uint64_t seen) {
  for (;;) {
    uint64_t job = awaitJob(seen);
    if (stopping_) return;
    bool entered = false;
    while (!entered && (job & kClosed) == 0) entered = job_.compare_exchange_weak(job, job + 1);
    seen = numberOf(job);
    if (!entered) continue;
    takeChunks();
    left_.fetch_add(1, std::memory_order_release);
  }
}

void Workers::parallelFor(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  const int64_t useful = (n + grain - 1) / grain;
  if (useful < 2 || threads_.empty()) {
    body(0, n);
    return;
  }
  // Four chunks a thread even out threads that the system slows down.
  const int64_t even = (n + threads() * 4 - 1) / (threads() * 4);
  total_ = n;
  chunk_ = even > grain ? even : grain;
  body_ = &body;
  next_.store(0, std::memory_order_relaxed);
  left_.store(0, std::memory_order_relaxed);
  // In one order with the sleepers' count: either this sees a worker that is about to sleep, or it sees the
  // job.
  job_.store((numberOf(job_.load(std::memory_order_relaxed)) + 1) << 16);
  if (sleeping_.load() > 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);  // a sleeper is past its last look, or not asleep yet
    }
    wake_.notify_all();
  }
  takeChunks();
  const uint64_t entered = job_.fetch_or(kClosed) & kEntered;
  int spins = 0;
  while (left_.load(std::memory_order_acquire) != entered) {
    // A worker may have lost its core; give it ours after a while.
    if (++spins < 20000)
      pauseBriefly();
    else
      std::this_thread::yield();
  }
  if (failure_) {
    std::exception_ptr failure;
    std::swap(failure, failure_);
    std::rethrow_exception(failure);
  }
}

// ---- Scratch ----

namespace {
struct Arena {
  struct Block {
    char* data;
    size_t bytes;
  };
  std::vector<Block> blocks;
  size_t used = 0;  // across the blocks, in the order of use
  ~Arena() {
    for (auto& b : blocks) std::free(b.data);
  }
};
Arena& arena() {
  static thread_local Arena a;
  return a;
}
}  // namespace

Scratch::Scratch() : mark_(arena().used) {}
Scratch::~Scratch() { arena().used = mark_; }

void* Scratch::take(size_t bytes) {
  Arena& a = arena();
  bytes = (bytes + 63) / 64 * 64 + 64;  // a spare line, so that two threads never share one
  size_t start = 0;
  for (auto& block : a.blocks) {
    const size_t offset = a.used > start ? a.used - start : 0;
    if (offset + bytes <= block.bytes) {
      a.used = start + offset + bytes;
      return block.data + offset;
    }
    start += block.bytes;
  }
  const size_t size = bytes > (size_t(1) << 20) ? bytes : (size_t(1) << 20);
  char* data = static_cast<char*>(allocatePages((size + 63) / 64 * 64));
  if (data == nullptr)
    throw DeviceError("out of memory: asked for " + std::to_string(size) + " bytes of scratch");
  a.blocks.push_back({data, (size + 63) / 64 * 64});
  a.used = start + bytes;
  return data;
}

}  // namespace isopolicy
