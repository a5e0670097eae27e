// The symbols of cuda.h in an addon that was built without CUDA.
#include "cuda/cuda.h"

namespace isopolicy::cuda {

bool compiled() { return false; }

std::vector<DeviceInfo> devices(std::string& problem) {
  problem = "built without CUDA";
  return {};
}

std::string driverVersion() { return ""; }

std::string runtimeVersion() { return ""; }

[[noreturn]] static void refuse() {
  throw DeviceError("[device] no usable GPU: built without CUDA (ISOPOLICY_BUILD=cuda builds with it)");
}

Driver driver() {
  return {[]() -> MemorySource& { refuse(); }, [](int) -> std::unique_ptr<Processor> { refuse(); }};
}

void registerKernels(Registry&) {}

}  // namespace isopolicy::cuda
