// The threads that kernels run on. A kernel splits its work by index; which thread takes which index never
// changes a result, so every kernel gives the same bits at any thread count.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/dtype.h"

namespace isopolicy {

// Lets the other thread of the core, and the memory, have a moment.
inline void pauseBriefly() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// A non-owning reference to a callable; it must outlive the call.
template <class Signature>
class FunctionRef;
template <class R, class... A>
class FunctionRef<R(A...)> {
 public:
  template <class F, class = std::enable_if_t<!std::is_same_v<std::decay_t<F>, FunctionRef>>>
  FunctionRef(F&& f)  // NOLINT: implicit by design
      : object_((void*)&f), call_([](void* object, A... a) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(a...);
        }) {}
  R operator()(A... a) const { return call_(object_, a...); }

 private:
  void* object_;
  R (*call_)(void*, A...);
};

// Waits until `ready()`, but not for long: true once it is, false where sleeping is in order.
//
// It polls at first, since the kernels of a step follow one another within microseconds. Then it offers its
// core between two looks: with as many native threads as cores, the JavaScript thread would else wait for a
// thread that only waits, too.
template <class Ready>
bool patientlyAwait(Ready ready) {
  constexpr auto kPoll = std::chrono::microseconds(20), kPatience = std::chrono::microseconds(300);
  const auto start = std::chrono::steady_clock::now();
  bool offers = false;
  for (int looks = 1;; looks++) {
    if (ready()) return true;
    if (offers)
      std::this_thread::yield();
    else
      pauseBriefly();
    if (looks % 16 != 0) continue;
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited > kPatience) return false;
    offers = waited > kPoll;
  }
}

class Workers {
 public:
  explicit Workers(int threads);
  Workers(const Workers&) = delete;
  ~Workers();

  // Calls body(begin, end) over disjoint ranges that cover [0, n). `grain` is the least number of indices
  // worth a call of its own. The first exception of any thread is rethrown here.
  void parallelFor(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

  // Only on the thread that calls parallelFor, between kernels.
  void resize(int threads);
  int threads() const { return int(threads_.size()) + 1; }

 private:
  using Body = FunctionRef<void(int64_t, int64_t)>;

  // One call of parallelFor: [0, n) in chunks.
  struct Job {
    int64_t n = 0, unit = 1, units = 0, chunks = 0;
    const Body* body = nullptr;
    DType emulated = DType::float32;  // the format in force where parallelFor was called
  };
  // A thread's share of a job, on a cache line that holds all it needs: of n threads number t has the t-th
  // n-th of the chunks. In one kernel after another it meets the same rows, which its cache may still have,
  // however many chunks a kernel is cut into. Who is done with its own takes chunks of the others', so that
  // it does no harm where some are heavier. A thread that is late, because the system had put it to sleep,
  // finds nothing left: nobody waits for it.
  struct alignas(64) Share {
    // The number of the job, how many chunks the share has, and which of them is next. Whoever adds one to a
    // next chunk that there is has taken it, and the job does not end before it is done: `job` may then be
    // read.
    std::atomic<uint64_t> state{0};
    Job job;
  };
  static uint64_t stateOf(uint64_t number, int64_t chunks) { return number << 32 | uint64_t(chunks) << 16; }
  static uint64_t numberOf(uint64_t state) { return state >> 32; }
  static bool anyLeft(uint64_t state) { return (state & 0xffff) < (state >> 16 & 0xffff); }

  void loop(int thread);
  int64_t workOn(int thread);
  int64_t firstChunk(const Job& job, int64_t thread) const;
  int64_t takeChunks(int owner);
  void runChunk(const Job& job, int64_t chunk);
  void stop();

  std::vector<Share> shares_;  // one a thread; the first is that of the thread that calls parallelFor
  alignas(64) std::atomic<int64_t> done_{0};  // chunks of the job that other threads took and are done with
  alignas(64) std::atomic<bool> failed_{false};
  uint32_t number_ = 0;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stopping_{false};
};

// Scratch memory of the calling thread, released when the object goes out of scope. It grows once and stays:
// a kernel that runs every step does not allocate.
class Scratch {
 public:
  Scratch();
  Scratch(const Scratch&) = delete;
  ~Scratch();
  template <class T>
  T* get(int64_t count) {
    return static_cast<T*>(take(size_t(count) * sizeof(T)));
  }

 private:
  void* take(size_t bytes);
  size_t mark_;
};

}  // namespace isopolicy
