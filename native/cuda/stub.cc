// The symbols of cuda.h in an addon that was built without CUDA.
#include "cuda/cuda.h"

namespace isopolicy::cuda {

bool compiled() { return false; }

std::vector<DeviceInfo> devices(std::string& problem) {
  problem = "built without CUDA";
  return {};
}

void registerKernels(Registry&) {}

}  // namespace isopolicy::cuda
