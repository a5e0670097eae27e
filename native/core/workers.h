// The threads that kernels run on. A kernel splits its work by index; which thread takes which index never
// changes a result, so every kernel gives the same bits at any thread count.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace isopolicy {

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

class Workers {
 public:
  explicit Workers(int threads);
  Workers(const Workers&) = delete;
  ~Workers();

  // Calls body(begin, end) over disjoint ranges that cover [0, n). `grain` is the least number of indices
  // worth a thread of its own. The first exception of any thread is rethrown here.
  void parallelFor(int64_t n, int64_t grain, FunctionRef<void(int64_t, int64_t)> body);

  // Only on the thread that calls parallelFor, between kernels.
  void resize(int threads);
  int threads() const { return int(threads_.size()) + 1; }

 private:
  void loop(uint64_t seen);
  void takeChunks();
  void stop();

  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint64_t> generation_{0};
  std::atomic<int> running_{0};
  std::atomic<int64_t> next_{0};
  std::atomic<bool> stopping_{false};
  int sleeping_ = 0;
  int64_t total_ = 0;
  int64_t chunk_ = 1;
  const FunctionRef<void(int64_t, int64_t)>* body_ = nullptr;
  std::exception_ptr failure_;
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
