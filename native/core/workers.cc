#include "core/workers.h"

#include <algorithm>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

#include "core/host_memory.h"
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
  number_ = 0;
  shares_ = std::vector<Share>(size_t(threads));
  try {
    for (int i = 1; i < threads; i++) threads_.emplace_back([this, i] { loop(i); });
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are do all the work, with the same results.
  }
}

void Workers::runChunk(const Job& job, int64_t chunk) {
  const auto bound = [&](int64_t i) { return std::min(job.n, job.units * i / job.chunks * job.unit); };
  if (failed_.load(std::memory_order_relaxed)) return;
  useEmulated(job.emulated);
  try {
    (*job.body)(bound(chunk), bound(chunk + 1));
  } catch (...) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    failed_.store(true, std::memory_order_relaxed);
  }
}

int64_t Workers::firstChunk(const Job& job, int64_t thread) const { return job.chunks * thread / threads(); }

// Works on what is left of a thread's share; returns how many chunks that were.
int64_t Workers::takeChunks(int owner) {
  Share& share = shares_[size_t(owner)];
  int64_t taken = 0;
  while (anyLeft(share.state.load(std::memory_order_relaxed))) {
    const uint64_t state = share.state.fetch_add(1, std::memory_order_acquire);
    if (!anyLeft(state)) break;
    runChunk(share.job, firstChunk(share.job, owner) + int64_t(state & 0xffff));
    taken++;
  }
  return taken;
}

// The thread's own share, then what is left of the others'.
int64_t Workers::workOn(int thread) {
  int64_t taken = 0;
  const int count = threads();
  for (int i = 0; i < count; i++) taken += takeChunks((thread + i) % count);
  return taken;
}

void Workers::loop(int thread) {
  const std::atomic<uint64_t>& state = shares_[size_t(thread)].state;
  uint64_t seen = 0;
  for (;;) {
    const auto ready = [&] { return numberOf(state.load()) != seen || stopping_; };
    if (!patientlyAwait(ready)) {
      std::unique_lock<std::mutex> lock(mutex_);
      sleeping_++;
      wake_.wait(lock, ready);
      sleeping_--;
    }
    if (stopping_) return;
    seen = numberOf(state.load());
    const int64_t taken = workOn(thread);
    if (taken > 0) done_.fetch_add(taken, std::memory_order_release);
  }
}

void Workers::parallelFor(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body) {
  if (n <= 0) return;
  // Four chunks a thread even out threads that the system slows down; as many for each.
  const int64_t count = threads(), most = n / std::max<int64_t>(grain, 1);
  int64_t chunks = std::min(most, 4 * count);
  if (chunks > count && chunks < n) chunks -= chunks % count;
  if (chunks < 2 || count == 1) {
    body(0, n);
    return;
  }
  Job job;
  job.n = n;
  job.unit = n >= 64 * 16 * chunks ? 64 : 1;  // so that arrays are cut where a line begins
  job.units = (n + job.unit - 1) / job.unit;
  job.chunks = chunks;
  job.body = &body;
  job.emulated = emulatedDtype;
  number_++;
  done_.store(0, std::memory_order_relaxed);
  for (int64_t i = count - 1; i >= 0; i--) {
    Share& share = shares_[size_t(i)];
    share.job = job;
    const int64_t own = firstChunk(job, i + 1) - firstChunk(job, i);
    share.state.store(stateOf(number_, own), std::memory_order_release);
  }
  // In one order with the sleepers' count: either this sees a worker that is about to sleep, or it sees the
  // job.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (sleeping_.load() > 0) {
    {
      std::lock_guard<std::mutex> lock(mutex_);  // a sleeper is past its last look, or not asleep yet
    }
    wake_.notify_all();
  }
  const int64_t others = chunks - workOn(0);
  int spins = 0;
  while (done_.load(std::memory_order_acquire) != others) {
    // A worker may have lost its core; give it ours after a while.
    if (++spins < 20000)
      pauseBriefly();
    else
      std::this_thread::yield();
  }
  if (failed_.load(std::memory_order_relaxed)) {
    failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(std::exchange(failure_, nullptr));
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
    for (auto& b : blocks) hostMemory().give(b.data);
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
  char* data = static_cast<char*>(hostMemory().take((size + 63) / 64 * 64));
  if (data == nullptr)
    throw DeviceError("out of memory: asked for " + std::to_string(size) + " bytes of scratch");
  a.blocks.push_back({data, (size + 63) / 64 * 64});
  a.used = start + bytes;
  return data;
}

}  // namespace isopolicy
