// (op, family, device) -> kernel. An op is named by its argument struct; a CPU kernel brings one variant for
// each vector level, a CUDA kernel one for all. Filled once when the addon is loaded, from the tables in
// cpu/kernels.cc and cuda/kernels.cu.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/numerics.h"

namespace isopolicy {

class Workers;
namespace cuda {
class Launcher;
}

enum class Device : uint8_t { cpu = 0, cuda = 1 };
inline constexpr int kDevices = 2;
inline const char* nameOf(Device d) { return d == Device::cpu ? "cpu" : "cuda"; }
inline const char* nameOf(Family f) {
  return f == Family::shared ? "shared" : f == Family::rollout ? "rollout" : "training";
}

// What the vector code may assume of the processor, each level including those before it.
enum class VectorLevel : uint8_t { portable = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3, amx = 4 };
inline constexpr int kVectorLevels = 5;

// The levels that kernels are compiled for, a bit each: all of the processor family's, or fewer where a build
// is to be quick. Each needs those before it but avx2.
#if !defined(__x86_64__)
#undef ISOPOLICY_LEVELS
#define ISOPOLICY_LEVELS 1
#elif !defined(ISOPOLICY_LEVELS)
#define ISOPOLICY_LEVELS 31
#endif
inline constexpr bool isCompiled(VectorLevel level) { return (ISOPOLICY_LEVELS >> int(level) & 1) != 0; }

// Runs the op among the workers and returns when it is done.
template <class Args>
using Kernel = void (*)(const Args&, Workers&);
// Launches the op on the GPU and returns; what it launches depends on the arguments alone.
template <class Args>
using CudaKernel = void (*)(const Args&, cuda::Launcher&);

// A kernel whose argument type is known only to the caller that put it on the stream. `executor` is what the
// device's kernels take beside their arguments.
struct ErasedKernel {
  void (*function)() = nullptr;
  void (*invoke)(void (*function)(), const void* args, void* executor) = nullptr;
};

class Registry {
 public:
  static Registry& instance();

  template <class Args>
  void add(Family family, std::array<Kernel<Args>, kVectorLevels> variants) {
    for (int level = 0; level < kVectorLevels; level++)
      set<Args, Workers>(family, Device::cpu, level, variants[size_t(level)]);
  }
  template <class Args>
  void addCuda(Family family, CudaKernel<Args> kernel) {
    for (int level = 0; level < kVectorLevels; level++)
      set<Args, cuda::Launcher>(family, Device::cuda, level, kernel);
  }

  template <class Args>
  ErasedKernel find(const char* op, Family family, Device device, VectorLevel level) {
    const ErasedKernel kernel = rowOf(indexOf<Args>())[size_t(family)][size_t(device)][size_t(level)];
    if (kernel.function == nullptr) {
      throw InvalidArgument(std::string("[") + op + "] expected a kernel that exists, got family " +
                            nameOf(family) + " on " + nameOf(device));
    }
    return kernel;
  }

 private:
  using Row = std::array<std::array<std::array<ErasedKernel, kVectorLevels>, kDevices>, 3>;
  template <class Args, class Executor>
  void set(Family family, Device device, int level, void (*kernel)(const Args&, Executor&)) {
    rowOf(indexOf<Args>())[size_t(family)][size_t(device)][size_t(level)] = {
        reinterpret_cast<void (*)()>(kernel), [](void (*function)(), const void* args, void* executor) {
          reinterpret_cast<void (*)(const Args&, Executor&)>(function)(*static_cast<const Args*>(args),
                                                                       *static_cast<Executor*>(executor));
        }};
  }
  static int nextIndex() {
    static int next = 0;
    return next++;
  }
  template <class Args>
  static int indexOf() {
    static const int index = nextIndex();
    return index;
  }
  Row& rowOf(int index) {
    if (size_t(index) >= rows_.size()) rows_.resize(size_t(index) + 1);
    return rows_[size_t(index)];
  }
  std::vector<Row> rows_;
};

}  // namespace isopolicy
