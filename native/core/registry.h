// (op, family, device) -> kernel. An op is named by its argument struct; a CPU kernel brings one variant for
// each vector level. Filled once when the addon is loaded, from the tables in cpu/kernels.cc and cuda/.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/numerics.h"

namespace isopolicy {

class Workers;

enum class Device : uint8_t { cpu = 0, cuda = 1 };
inline const char* nameOf(Device d) { return d == Device::cpu ? "cpu" : "cuda"; }
inline const char* nameOf(Family f) {
  return f == Family::shared ? "shared" : f == Family::rollout ? "rollout" : "training";
}

// What the vector code may assume of the processor, each level including those before it.
enum class VectorLevel : uint8_t { portable = 0, avx2 = 1, avx512 = 2, avx512bf16 = 3, amx = 4 };
inline constexpr int kVectorLevels = 5;

template <class Args>
using Kernel = void (*)(const Args&, Workers&);

// A kernel whose argument type is known only to the caller that put it on the stream.
struct ErasedKernel {
  void (*function)() = nullptr;
  void (*invoke)(void (*function)(), const void* args, Workers& workers) = nullptr;
};

class Registry {
 public:
  static Registry& instance();

  template <class Args>
  void add(Family family, Device device, std::array<Kernel<Args>, kVectorLevels> variants) {
    auto& row = rowOf(indexOf<Args>());
    for (int level = 0; level < kVectorLevels; level++) {
      row[size_t(family)][size_t(device)][size_t(level)] = {
          reinterpret_cast<void (*)()>(variants[size_t(level)]),
          [](void (*function)(), const void* args, Workers& workers) {
            reinterpret_cast<Kernel<Args>>(function)(*static_cast<const Args*>(args), workers);
          }};
    }
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
  using Row = std::array<std::array<std::array<ErasedKernel, kVectorLevels>, 2>, 3>;
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
