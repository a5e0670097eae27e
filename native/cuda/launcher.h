// What CUDA kernels take beside their arguments: it launches on the device's stream, in order.
//
// A kernel's host function runs on the device's native thread and does not wait for the GPU. What it launches
// is a function of its arguments alone, since it may be captured once and replayed as a graph.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/error.h"
#include "cuda/checks.h"

#if defined(ISOPOLICY_EMULATED)
#include "cuda/emulation/launch.h"
#endif

namespace isopolicy::cuda {

// Throws DeviceError where a call of the CUDA runtime failed.
void expectSuccess(cudaError_t status, const char* what);

struct Grid {
  int64_t x = 1, y = 1, z = 1;
};

struct Properties {
  int capability = 0;  // compute capability times 10: 8.0 is 80
  int multiprocessors = 0;
  size_t sharedMemoryPerBlock = 0;  // the most that a block can have
  size_t l2Bytes = 0;
  bool readsPageable = false;  // copies from pageable memory may go on when their call has returned
};

class Launcher {
 public:
  Launcher();
  Launcher(const Launcher&) = delete;
  ~Launcher();

  // `sharedBytes` of dynamic shared memory; arguments are converted to the kernel's parameters.
  template <class... P, class... A>
  void launch(void (*kernel)(P...), Grid grid, int threads, size_t sharedBytes, A&&... arguments) {
    static_assert(sizeof...(P) == sizeof...(A));
    launchCluster(kernel, 1, grid, threads, sharedBytes, std::forward<A>(arguments)...);
  }
  // The same in clusters of `cluster` blocks along x, on devices that have them (capability 90).
  template <class... P, class... A>
  void launchCluster(void (*kernel)(P...), int cluster, Grid grid, int threads, size_t sharedBytes,
                     A&&... arguments) {
    static_assert(sizeof...(P) == sizeof...(A));
    const void* function = reinterpret_cast<const void*>(kernel);
    prepare(function, grid, sharedBytes);
    const dim3 blocks(unsigned(grid.x), unsigned(grid.y), unsigned(grid.z));
#if defined(ISOPOLICY_EMULATED)
    std::tuple<std::remove_cv_t<P>...> values(std::forward<A>(arguments)...);
    const auto body = [kernel, values] { std::apply(kernel, values); };
    expectSuccess(emulation::launch(stream_, body, blocks, dim3(unsigned(threads)), sharedBytes,
                                    unsigned(cluster), function),
                  "launching a kernel");
#else
    std::tuple<std::remove_cv_t<P>...> values(std::forward<A>(arguments)...);
    std::apply(
        [&](auto&... value) {
          void* pointers[sizeof...(P) + 1] = {const_cast<void*>(static_cast<const void*>(&value))...};
          launchRaw(function, blocks, threads, sharedBytes, cluster, pointers);
        },
        values);
#endif
  }

  // Device memory of the command in progress: 256-byte aligned, contents undefined.
  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(takeScratch(size_t(count) * sizeof(T)));
  }
  // Scratch memory that the command takes while this lives is free again afterwards: what is launched later
  // runs later.
  class ScratchScope {
   public:
    explicit ScratchScope(Launcher& gpu) : gpu_(gpu), used_(gpu.scratchUsed_) {}
    ScratchScope(const ScratchScope&) = delete;
    ~ScratchScope() { gpu_.scratchUsed_ = used_; }

   private:
    Launcher& gpu_;
    const size_t used_;
  };
  // Numbers with which blocks of a kernel meet: zeros, and kernels leave zeros behind. They are this stream's
  // own, so that no other kernel uses them at the same time.
  static constexpr int kCounters = 2048;
  unsigned* counters() const { return counters_; }
  void zero(void* to, size_t bytes);
  void copy(void* to, const void* from, size_t bytes);
  // A check of device data by the command in progress: `message` is told where a kernel reports a failure,
  // with %i and %v replaced by the least index that was reported and its value; %i/64 and %i%64 are quotient
  // and remainder of the index.
  Check check(const std::string& message) { return checks_.add(message); }
  const Properties& properties() const { return properties_; }

  // ---- For the processor ----
  cudaStream_t stream() const { return stream_; }
  Checks& checks() { return checks_; }
  // Begins the command of that op and number; scratch memory is free again.
  void begin(const char* op, uint64_t sequence);

 private:
  struct Block {
    char* data;
    size_t bytes;
  };
  void prepare(const void* function, Grid grid, size_t sharedBytes);
  void launchRaw(const void* function, dim3 blocks, int threads, size_t sharedBytes, int cluster,
                 void** arguments);
  void* takeScratch(size_t bytes);

  cudaStream_t stream_ = nullptr;
  Properties properties_;
  Checks checks_;
  unsigned* counters_ = nullptr;
  std::unordered_map<const void*, size_t> sharedBytes_;  // that a launch of the kernel may ask for
  // Earlier blocks are kept: captured graphs use them.
  std::vector<Block> scratch_;
  size_t scratchUsed_ = 0;  // by this command, of the last block or of the ones before it
};

}  // namespace isopolicy::cuda
